"""`why` explains why a callback is not being sent, run with the rights of the support role."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.commands.conftest import lengthen_heartbeat_timeout
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import (
    OPERATOR,
    Harness,
    claim,
    connected,
    delivered,
    exhausted,
    open_harness,
    rejected,
    retried,
)
from tests.support.postgres import Database, cloned_database, create_template, server_of

pytestmark = pytest.mark.usefixtures("long_heartbeat_timeout")
UNKNOWN = uuid.UUID(int=7)
NO_HEARTBEATS = "no daemon sends heartbeats, and without them none sends callbacks; "


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A database whose rows the test changes as its owner, in place of daemons and operators."""

    harness: Harness
    desk: CommandLine
    database: Database

    async def operator(self, changes: str) -> None:
        await self.harness.owner.execute(
            f"update predictu_dispatch.operator set {changes} where operator_id = $1",  # noqa: S608
            OPERATOR,
        )

    async def callback(self, request_id: uuid.UUID, changes: str) -> None:
        await self.harness.owner.execute(
            f"update predictu_dispatch.callback set {changes} where request_id = $1",  # noqa: S608
            request_id,
        )

    async def daemon(
        self, instance: str = "host-1", *, seen_s_ago: float = 0.2, started_s_ago: float = 3000, **share: Any
    ) -> None:
        """A daemon with the operator's file, unless `serves` is false."""
        await self.harness.owner.execute(
            "insert into predictu_dispatch.daemon"
            " (instance, session_id, host, pid, version, schema_version, started_at, seen_at)"
            " values ($1, gen_random_uuid(), 'web-' || $1, 4711, '0.1', 1, now() - $2::interval, now() - $3::interval)",
            *(instance, timedelta(seconds=started_s_ago), timedelta(seconds=seen_s_ago)),
        )
        if share.pop("serves", True):
            limits = {"slots": 4, "slots_max": 4, "per_s": 0.0, **share}
            await self.harness.owner.execute(
                "insert into predictu_dispatch.share values ($1, $2, $3, $3, null, $4, $4, $5)",
                *(OPERATOR, instance, limits["slots"], limits["slots_max"], limits["per_s"]),
            )

    async def due_win(self, bet_id: str = "b1") -> uuid.UUID:
        """A due win of a confirmed bet."""
        (win,) = await self.due_wins(bet_id)
        return win

    async def due_wins(self, *bet_ids: str) -> list[uuid.UUID]:
        """Wins that are due one after the other. The bets come first, because `attempt` claims."""
        for bet_id in bet_ids:
            await self.harness.attempt(await self.harness.place(bet_id), delivered)
        return [await self.harness.end("BET_WIN", bet_id) for bet_id in bet_ids]

    async def intervene(self, request_id: uuid.UUID, action: str, reason: str) -> None:
        await self.harness.person.execute(
            f"select predictu_dispatch.{action}_callback($1, $2, $3, 'ann@web-1')", OPERATOR, request_id, reason
        )

    async def why(self, request_id: uuid.UUID) -> tuple[list[str], str]:
        """The codes that `--json` lists, and the text for people on one line."""
        code, listed, stderr = await self.desk.run("why", str(request_id), "--json")
        assert (code, stderr) == (0, "")
        code, text, stderr = await self.desk.run("why", str(request_id))
        assert (code, stderr) == (0, "")
        assert [line for line in text.splitlines() if len(line) > 80 and len(line.split()) > 1] == []
        return [reason["code"] for reason in json.loads(listed)["reasons"]], " ".join(text.split())


@pytest.fixture
async def embedded_with_prepared() -> AsyncIterator[Database]:
    """A database on a server of its own that allows prepared transactions."""
    with EmbeddedPostgres(fsync=False, settings={"max_prepared_transactions": "4"}) as embedded:
        own = server_of(embedded)
        async with cloned_database(own, await create_template(own)) as database:
            await lengthen_heartbeat_timeout(database)
            yield database


@pytest.fixture
def scene(harness: Harness, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One operator and no daemon."""
    monkeypatch.setenv("COLUMNS", "80")
    return Scene(harness=harness, desk=command_line_for(tmp_path, database.support), database=database)


def in_order(text: str, *phrases: str) -> None:
    """Assert that all phrases occur, in this order."""
    at = 0
    for phrase in phrases:
        assert phrase in text[at:], f"{phrase!r} is missing after {text[:at]!r} in {text[at:]!r}"
        at = text.index(phrase, at)


async def test_a_rejected_win_needs_review_until_it_is_resolved(scene: Scene) -> None:
    win = await scene.due_win()
    await scene.harness.attempt(win, rejected, operator_status="PLAYER_NOT_FOUND", state_reason="player_not_found")
    codes, text = await scene.why(win)
    assert codes == ["rejected", "needs_review"]
    in_order(
        text,
        "1. it was rejected by the operator",
        "the operator answered PLAYER_NOT_FOUND",
        "2. it has needed manual review since",
        f"predictu-dispatch retry {win}",
        f"predictu-dispatch resolve {win} --reason TEXT",
    )
    # A person at psql may have written anything as a reason.
    await scene.intervene(win, "resolve", "paid\x1b[2Jmanually")
    codes, text = await scene.why(win)
    assert codes == ["rejected", "resolved"]
    in_order(text, "ann@web-1 resolved it at", "paid\\x1b[2Jmanually", "never sent again")


async def test_an_exhausted_debit_names_its_rollback_and_its_cancelled_win(scene: Scene) -> None:
    placement = await scene.harness.place()
    lease = await scene.harness.lease(placement)
    win = await scene.harness.end("BET_WIN")
    await scene.harness.settle(exhausted(lease))
    (rollback,) = await scene.harness.rollbacks()
    codes, text = await scene.why(placement)
    assert codes == ["exhausted"]
    in_order(text, "all attempts were used", "may have applied it")
    in_order(text, f"BET_ROLLBACK {rollback['request_id']} (ready) rolls back what may have been debited")
    codes, text = await scene.why(win)
    assert codes == ["cancelled", "needs_review"]
    in_order(text, "the bet was rolled back", "has needed manual review", f"predictu-dispatch resolve {win}")
    assert "predictu-dispatch retry" not in text


async def test_a_cancelled_callback_names_who_cancelled_it_and_why(scene: Scene) -> None:
    win = await scene.due_win()
    await scene.intervene(win, "cancel", "wrong market")
    codes, text = await scene.why(win)
    assert codes == ["cancelled"]
    in_order(text, "ann@web-1 cancelled it at", "wrong market", f"predictu-dispatch show --bet {OPERATOR} b1")


async def test_a_waiting_callback_lists_the_reasons_of_the_earlier_one(scene: Scene) -> None:
    await scene.daemon()
    placement = await scene.harness.place()
    win = await scene.harness.end("BET_WIN")
    await scene.harness.attempt(placement, retried, reason="connect_refused", due_in_s=600.0)
    codes, text = await scene.why(win)
    assert codes == ["waiting"]
    in_order(
        text,
        f"its bet's earlier callback is settled: BET_MAKE {placement} (ready)",
        "The earlier callback is not settled because:",
        "1. retry 1 is due at",
        "(in 10 min)",
        "attempt 1 ended at",
        "the operator's host refused the connection",
        "2. its deadline comes before that",
        "its debit, which may have been applied, is rolled back",
    )


async def test_an_in_flight_callback_names_its_daemon_and_lease(scene: Scene) -> None:
    placement = await scene.harness.place()
    await scene.daemon()
    await scene.harness.lease(placement)
    codes, text = await scene.why(placement)
    assert codes == ["in_flight"]
    in_order(text, "attempt 1 was claimed by daemon host-1, last seen", "its lease ends at", "(in ")

    assert await scene.harness.rollback() is not None
    codes, text = await scene.why(placement)
    assert codes == ["in_flight", "retry_stopped"]
    in_order(text, "a rollback of its bet was requested", "this attempt is the last one")


@pytest.mark.parametrize(
    ("seen_s_ago", "started_s_ago", "phrase"),
    [(500.0, 3000.0, "host-1 on host web-host-1, last seen"), (0.1, -60.0, "host-1, which claimed it, was restarted")],
)
async def test_the_lease_of_a_stopped_daemon_expires_and_is_recovered(
    scene: Scene, seen_s_ago: float, started_s_ago: float, phrase: str
) -> None:
    placement = await scene.harness.place()
    await scene.harness.lease(placement)
    await scene.daemon(seen_s_ago=seen_s_ago, started_s_ago=started_s_ago)
    await scene.daemon("host-2")
    codes, text = await scene.why(placement)
    assert codes == ["in_flight", "lease_owner_stopped"]
    in_order(text, phrase, "when the lease expires")
    await scene.callback(placement, "lease_until = now() - interval '3 seconds'")
    codes, text = await scene.why(placement)
    assert codes == ["lease_expired", "lease_owner_stopped"]
    in_order(text, "its lease expired at", "s ago)", "a running daemon recovers it")


async def test_a_paused_operator_names_who_paused_it_and_why(scene: Scene) -> None:
    await scene.daemon()
    win, placement = await scene.due_win(), await scene.harness.place("b2")
    await scene.harness.person.execute(
        "select predictu_dispatch.pause_operator($1, 'wallet upgrade', 'ann@web-1')", OPERATOR
    )
    codes, text = await scene.why(win)
    assert codes == ["paused"]
    in_order(
        text,
        f"operator {OPERATOR} was paused at",
        "by ann@web-1: wallet upgrade",
        "it waits and uses no attempt",
        f"predictu-dispatch resume {OPERATOR}",
    )
    codes, text = await scene.why(placement)
    assert codes == ["paused"]
    assert "a producer waits for it, so it ends exhausted at once, without a debit" in text


async def test_an_open_circuit_names_its_failures_and_the_next_ping(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    await scene.operator(
        "circuit = 'open', circuit_since = now() - interval '5 min', consecutive_failures = 14,"
        " ping_at = now() + interval '4 min'"
    )
    codes, text = await scene.why(win)
    assert codes == ["circuit_open"]
    in_order(text, f"the circuit of operator {OPERATOR} has been open since", "(5 min)", "14 failures in a row")
    in_order(text, "the next PING is at", "(in 4 min)", "uses no attempt")

    await scene.harness.owner.execute("select predictu_dispatch.start_ping($1)", OPERATOR)
    ping = await scene.harness.owner.fetchval(
        "select ping_request_id from predictu_dispatch.operator where ping_at > now()"
    )
    codes, text = await scene.why(win)
    assert codes == ["circuit_half_open"]
    in_order(text, "has been half open since", f"PING {ping} (ready) decides")
    assert (await scene.why(ping))[0] == ["due"]


async def test_slow_start_after_the_circuit_closed(scene: Scene) -> None:
    await scene.daemon()
    _, win = await scene.due_wins("b1", "b2")
    # In the future: the circuit has just closed, however slow this machine is.
    await scene.operator("circuit_since = now() + interval '1 min'")
    codes, text = await scene.why(win)
    assert codes == ["slow_start"]
    in_order(text, "closed at", "slow start allows 1 of 4 slots, and 1 due callback is ahead")


async def test_retry_after_holds_one_lane(scene: Scene) -> None:
    await scene.daemon()
    win, placement = await scene.due_win(), await scene.harness.place("b2")
    await scene.operator("settlement_backoff_until = now() + interval '10 min'")
    codes, text = await scene.why(win)
    assert codes == ["backing_off"]
    in_order(text, f"operator {OPERATOR} sent Retry-After: its settlement callbacks wait until", "(in 10 min)")
    assert (await scene.why(placement))[0] == ["due"]


async def test_a_refused_token_names_the_host_whose_clock_is_wrong(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    await scene.harness.attempt(win, retried, reason="misconfigured", due_in_s=60.0)
    assert "clock" not in (await scene.why(win))[1]
    await scene.harness.owner.execute("update predictu_dispatch.daemon set clock_ahead_s = -2.0")
    in_order((await scene.why(win))[1], "attempt 1 ended at", "(on host web-host-1: the host's clock is 2.0 s ahead")


async def test_a_rate_limit_says_how_many_are_ahead_and_how_long_it_takes(scene: Scene) -> None:
    await scene.daemon(per_s=0.5)
    wins = await scene.due_wins("b0", "b1", "b2")
    await scene.harness.place("b-now")
    codes, text = await scene.why(wins[2])
    assert codes == ["rate"]
    in_order(text, "max_requests_per_s = 0.5, over all daemons", "3 due callbacks are ahead of it")
    in_order(text, "including interactive ones", "it is sent in about 6.0 s")
    # More than AHEAD_COUNT_MAX.
    await scene.harness.owner.execute(
        "insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params)"
        " select $1, gen_random_uuid(), 'PING', 'interactive', 'ready', '{}' from generate_series(1, 1500)",
        OPERATOR,
    )
    _, text = await scene.why(wins[2])
    in_order(text, "more than 1,000 due callbacks are ahead of it", "it is sent in more than 33 min")


async def test_full_slots_name_every_daemon_and_how_many_are_ahead(scene: Scene) -> None:
    await scene.daemon("host-1", slots=2, slots_max=3)
    await scene.daemon("host-2", slots=1, slots_max=3)
    wins = await scene.due_wins("b0", "b1", "b2", "b-ahead", "b-last")
    await scene.harness.place("b-in-the-other-lane")
    await claim(scene.harness.daemon, slots=2)
    await claim(scene.harness.daemon, slots=1, instance="host-2")
    codes, text = await scene.why(wins[-1])
    assert codes == ["slots_full"]
    in_order(
        text,
        f"all 3 settlement slots of operator {OPERATOR} are in use (host-1 2 of 2, host-2 1 of 1)",
        "1 due callback is ahead of it",
        "[settlement] max_in_flight = 3",
    )


async def test_an_operator_whose_file_no_daemon_has(scene: Scene) -> None:
    await scene.daemon("host-1", serves=False)
    await scene.daemon("host-2", seen_s_ago=999)
    win = await scene.due_win()
    codes, text = await scene.why(win)
    assert codes == ["not_served", "file_missing_here"]
    in_order(
        text,
        f"no running daemon has the file of operator {OPERATOR} (running: host-1)",
        "2. this host has no file of the operator",
        f"operators/{OPERATOR}.toml",
        "another host may have it",
    )
    file = f'operator_id = "{OPERATOR}"\ncallback_url = "https://w.example/p"\n[signing]\nkey_file = "key.pem"\n'
    scene.desk.write_operator(OPERATOR, file + "[interactive]\nmax_attempts = 0\n")
    codes, text = await scene.why(win)
    assert codes == ["not_served", "file_faulty_here"]
    in_order(
        text,
        "the operator's file on this host cannot be used by this user",
        "interactive.max_attempts = 0",
        "signing.key_file",
    )
    scene.desk.write_operator(OPERATOR, file)
    create_key_file(scene.desk.folder / "operators" / "key.pem", "EdDSA")
    assert (await scene.why(win))[0] == ["not_served"]


async def test_no_running_daemon_names_the_last_one(scene: Scene) -> None:
    scene.desk.write_operator(OPERATOR, "")
    win = await scene.due_win()
    codes, text = await scene.why(win)
    assert codes == ["no_daemon", "file_faulty_here"]
    in_order(text, NO_HEARTBEATS + "there was none in the last day", "systemctl start predictu-dispatch")
    await scene.daemon("host-1", seen_s_ago=3000)
    await scene.daemon("host-2", seen_s_ago=600)
    _, text = await scene.why(win)
    in_order(text, NO_HEARTBEATS + "the last one was host-2 on host web-host-2, last seen", "(10 min ago)")


async def test_deadlines(scene: Scene) -> None:
    await scene.daemon()
    placement = await scene.harness.place()
    await scene.operator("settlement_backoff_until = now() + interval '10 min', enabled = false")
    await scene.callback(placement, "expires_at = now() + interval '5 min'")
    codes, text = await scene.why(placement)
    assert codes == ["operator_disabled", "deadline_runs"]
    in_order(text, "its deadline is at", "(in 5 min)", "it ends exhausted, without a debit")
    await scene.harness.let_deadline_pass(placement)
    codes, text = await scene.why(placement)
    assert codes == ["deadline_passed", "operator_disabled"]
    in_order(text, "its deadline passed at", "within seconds it ends exhausted, without a debit")

    await scene.operator("enabled = true")
    win = await scene.due_win("b2")
    await scene.callback(win, "expires_at = now() + interval '9 min'")
    codes, text = await scene.why(win)
    assert codes == ["backing_off", "deadline_first"]
    in_order(
        text,
        "its deadline comes before that",
        "(in 9 min)",
        "it ends exhausted at its deadline, and needs manual review",
    )


async def test_a_locked_row_names_the_session(scene: Scene) -> None:
    """A person forgot to commit in psql: claims skip the row, so it would never be sent."""
    await scene.daemon()
    win = await scene.due_win()
    person = await asyncpg.connect(scene.database.owner, server_settings={"application_name": "psql"})
    async with person.transaction():
        await person.execute("select from predictu_dispatch.callback where request_id = $1 for update", win)
        codes, text = await scene.why(win)
        assert codes == ["row_locked"]
        in_order(text, f"has locked its row: database session {person.get_server_pid()} (psql)")
    await person.close()
    codes, text = await scene.why(win)
    assert codes == ["due"]
    in_order(text, "nothing that this command can see blocks it", "a claim takes it within poll_interval_s")


@pytest.mark.parametrize("state", ["ready", "overdue", "in_flight", "waiting"])
async def test_a_prepared_transaction_is_named_with_its_id_and_owner(
    embedded_with_prepared: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """It has no session; it holds a callback or a bet until somebody ends it."""
    monkeypatch.setenv("COLUMNS", "80")
    database = embedded_with_prepared
    async with open_harness(database) as harness:
        scene = Scene(harness=harness, desk=command_line_for(tmp_path, database.support), database=database)
        await scene.daemon()
        table = "callback" if state == "ready" else "bet"
        if state == "in_flight":
            named = await harness.place("held")
            await harness.lease(named)
        elif state == "waiting":
            placement = await harness.place("held")
            named = await harness.end("BET_WIN", "held")
            await harness.lease(placement)
        else:
            named = await scene.due_win("held")
        if state == "overdue":
            await harness.let_deadline_pass(named)
        lock = f"select from predictu_dispatch.{table} where bet_id = 'held' for update"
        await harness.owner.execute(f"begin; {lock}; prepare transaction 'trade-7'")
        codes, text = await scene.why(named)
        expected = {
            "ready": ["row_locked"],
            "overdue": ["deadline_passed", "row_locked"],
            "in_flight": ["in_flight", "row_locked"],
            "waiting": ["waiting"],
        }
        assert codes == expected[state]
        owner = await harness.owner.fetchval("select current_user")
        locked = "row" if state == "ready" else "bet held"
        in_order(text, f"has locked its {locked}: the prepared transaction trade-7 of {owner}", "'trade-7'")
        assert ("within seconds" in text, "when its lock is released" in text) == (False, state == "overdue")
        await harness.owner.execute("rollback prepared 'trade-7'")
        assert "row_locked" not in (await scene.why(named))[0]


async def test_a_locked_bet_stops_no_claim_and_is_not_named(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    async with connected(scene.database.owner, 1) as [other], other.transaction():
        await other.execute("select from predictu_dispatch.bet for update")
        assert (await scene.why(win))[0] == ["due"]


@pytest.mark.parametrize(
    ("name", "arguments", "blocks_most"),
    [
        ("why_callback", f"'{UNKNOWN}', null", 50),
        ("why_ahead", f"'{OPERATOR}', 'interactive', now(), 1001", 200),
        ("why_daemons", f"'{OPERATOR}', 'interactive'", 50),
    ],
)
async def test_a_long_backlog_does_not_slow_the_queries(
    scene: Scene, name: str, arguments: str, blocks_most: int
) -> None:
    harness = scene.harness
    await scene.daemon()
    await harness.owner.execute(
        "insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params)"
        " select $1, gen_random_uuid(), 'PING', 'interactive', 'ready', '{}' from generate_series(1, 30000)",
        OPERATOR,
    )
    await harness.owner.execute(f"prepare {name} as {query(name)}")
    plan = await harness.owner.fetchval(f"explain (analyze, buffers, format json) execute {name}({arguments})")
    root = json.loads(plan)[0]["Plan"]
    assert root["Shared Hit Blocks"] + root["Shared Read Blocks"] < blocks_most
