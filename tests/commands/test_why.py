"""`why` says in words why a callback is not being sent this moment: every reason, asked as the support desk does."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import OPERATOR, Harness, claim, delivered, exhausted, rejected, retried
from tests.support.postgres import Database

LOST = uuid.UUID(int=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A database in which a test arranges, as its owner, what daemons and operators would have written."""

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
            "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, started_at, seen_at)"
            " values ($1, gen_random_uuid(), 'web-' || $1, 4711, '0.1.0', now() - $2::interval, now() - $3::interval)",
            *(instance, timedelta(seconds=started_s_ago), timedelta(seconds=seen_s_ago)),
        )
        if share.pop("serves", True):
            limits = {"slots": 4, "slots_max": 4, "per_s": 0.0, **share}
            await self.harness.owner.execute(
                "insert into predictu_dispatch.share values ($1, $2, $3, $3, null, $4, $4, $5)",
                *(OPERATOR, instance, limits["slots"], limits["slots_max"], limits["per_s"]),
            )

    async def due_win(self, bet_id: str = "b1") -> uuid.UUID:
        """A win that is due, of a bet that was placed."""
        (win,) = await self.due_wins(bet_id)
        return win

    async def due_wins(self, *bet_ids: str) -> list[uuid.UUID]:
        """Wins that are due one after the other; nothing is claimed once the first of them is there."""
        for bet_id in bet_ids:
            await self.harness.attempt(await self.harness.place(bet_id), delivered)
        return [await self.harness.end("BET_WIN", bet_id) for bet_id in bet_ids]

    async def intervene(self, request_id: uuid.UUID, action: str, reason: str) -> None:
        await self.harness.daemon.execute(
            f"select predictu_dispatch.{action}_callback($1, $2, $3, 'ann@web-1')", OPERATOR, request_id, reason
        )

    async def why(self, request_id: uuid.UUID) -> tuple[list[str], str]:
        """The reasons' codes, as a program reads them, and the words, as a person does, without their line ends."""
        code, said, complaint = await self.desk.run("why", str(request_id), "--json")
        assert (code, complaint) == (0, "")
        code, words, complaint = await self.desk.run("why", str(request_id))
        assert (code, complaint) == (0, "")
        assert max(map(len, words.splitlines())) <= 120
        return [reason["code"] for reason in json.loads(said)["reasons"]], " ".join(words.split())


@pytest.fixture
async def scene(harness: Harness, database: Database, tmp_path: Path) -> Scene:
    """One operator and no daemon yet. A daemon counts as running for a minute: a slow machine changes nothing."""
    await harness.owner.execute(
        "create or replace function predictu_dispatch.heartbeat_timeout() returns interval language sql immutable"
        " parallel safe as $$ select interval '1 minute' $$"
    )
    return Scene(harness=harness, desk=command_line_for(tmp_path, database.support), database=database)


def in_order(said: str, *phrases: str) -> None:
    """All of them are said, in this order."""
    at = 0
    for phrase in phrases:
        assert phrase in said[at:], f"{phrase!r} is not said after {said[:at]!r}, but: {said[at:]!r}"
        at = said.index(phrase, at)


async def test_what_was_delivered(scene: Scene) -> None:
    placement = await scene.harness.place()
    await scene.harness.attempt(placement, delivered)
    codes, said = await scene.why(placement)
    assert codes == ["delivered"]
    in_order(said, f"BET_MAKE {placement} of operator {OPERATOR} is delivered:", "was confirmed by the operator")


async def test_what_was_refused_and_then_resolved(scene: Scene) -> None:
    win = await scene.due_win()
    await scene.harness.attempt(win, rejected, operator_status="PLAYER_NOT_FOUND", state_reason="player_not_found")
    codes, said = await scene.why(win)
    assert codes == ["rejected", "needs_review"]
    in_order(
        said,
        "1. it was refused by the operator",
        "the operator said PLAYER_NOT_FOUND",
        "2. a person must look at it, since",
        f"predictu-dispatch retry {win}",
        f"predictu-dispatch resolve {win} --reason TEXT",
    )
    await scene.intervene(win, "resolve", "paid by hand")
    codes, said = await scene.why(win)
    assert codes == ["rejected", "resolved"]
    in_order(said, "ann@web-1 resolved it at", "paid by hand", "never sent again")


async def test_a_debit_that_was_given_up_names_its_rollback_and_the_win_that_must_not_go(scene: Scene) -> None:
    placement = await scene.harness.place()
    lease = await scene.harness.lease(placement)
    win = await scene.harness.end("BET_WIN")
    await scene.harness.settle(exhausted(lease))
    (rollback,) = await scene.harness.rollbacks()
    codes, said = await scene.why(placement)
    assert codes == ["exhausted"]
    in_order(
        said,
        "all attempts were made",
        "may or may not have applied it",
        f"given back by BET_ROLLBACK {rollback['request_id']}, which is ready",
    )
    codes, said = await scene.why(win)
    assert codes == ["cancelled", "needs_review"]
    in_order(said, "the bet was rolled back", "a person must look at it", f"predictu-dispatch resolve {win}")
    assert "predictu-dispatch retry" not in said


async def test_what_a_person_took_back(scene: Scene) -> None:
    win = await scene.due_win()
    await scene.intervene(win, "cancel", "wrong market")
    codes, said = await scene.why(win)
    assert codes == ["cancelled"]
    in_order(said, "ann@web-1 took it back at", "wrong market", f"predictu-dispatch show --bet {OPERATOR} b1")


async def test_what_waits_names_the_earlier_callback_and_why_that_one_is_not_done(scene: Scene) -> None:
    await scene.daemon()
    placement = await scene.harness.place()
    win = await scene.harness.end("BET_WIN")
    await scene.harness.attempt(placement, retried, reason="connect_refused", due_in_s=600.0)
    codes, said = await scene.why(win)
    assert codes == ["waiting"]
    in_order(
        said,
        f"its bet's earlier callback is settled: BET_MAKE {placement}, which is ready",
        "That one is not done because:",
        "1. retry number 1 is due at",
        "the operator's host refused the connection",
        "2. its deadline comes before that",
        "its debit, which may stand, is rolled back",
    )


async def test_what_is_in_flight_names_the_daemon_and_its_lease(scene: Scene) -> None:
    placement = await scene.harness.place()
    await scene.daemon()
    await scene.harness.lease(placement)
    codes, said = await scene.why(placement)
    assert codes == ["in_flight"]
    in_order(said, "attempt 1, by daemon host-1, last seen", "whose lease ends at", "(in ")

    assert await scene.harness.rollback() is not None
    codes, said = await scene.why(placement)
    assert codes == ["in_flight", "retry_stopped"]
    in_order(said, "a rollback of its bet was asked for", "there is no other")


@pytest.mark.parametrize(
    ("seen_s_ago", "started_s_ago", "words"),
    [
        (500.0, 3000.0, "host-1 on host web-host-1, last seen"),
        (0.1, -60.0, "host-1, which sent it, was started anew"),
    ],
)
async def test_a_lease_whose_daemon_is_gone_runs_out_and_is_taken_back(
    scene: Scene, seen_s_ago: float, started_s_ago: float, words: str
) -> None:
    placement = await scene.harness.place()
    await scene.harness.lease(placement)
    await scene.daemon(seen_s_ago=seen_s_ago, started_s_ago=started_s_ago)
    await scene.daemon("host-2")
    codes, said = await scene.why(placement)
    assert codes == ["in_flight", "lease_owner_gone"]
    in_order(said, words, "nobody waits for that answer any more")
    await scene.callback(placement, "lease_until = now() - interval '3 seconds'")
    codes, said = await scene.why(placement)
    assert codes == ["lease_ran_out", "lease_owner_gone"]
    in_order(said, "its lease ran out at", "s ago)", "a running daemon takes it back within a second")


async def test_a_retry_that_is_due_later_and_what_failed(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    await scene.harness.attempt(win, retried, reason="connect_refused")
    await scene.harness.attempt(win, retried, reason="timeout", due_in_s=600.0)
    codes, said = await scene.why(win)
    assert codes == ["due_later"]
    in_order(said, "retry number 2 is due at", "(in 10 min)", "attempt 2 ended at", "no complete answer within")


async def test_a_paused_operator_names_who_and_why_and_what_becomes_of_a_bet(scene: Scene) -> None:
    await scene.daemon()
    win, placement = await scene.due_win(), await scene.harness.place("b2")
    await scene.harness.daemon.execute(
        "select predictu_dispatch.pause_operator($1, 'wallet upgrade', 'ann@web-1')", OPERATOR
    )
    codes, said = await scene.why(win)
    assert codes == ["paused"]
    in_order(
        said,
        f"operator {OPERATOR} is paused since",
        "by ann@web-1: wallet upgrade",
        "it waits, and no attempt is spent",
        f"predictu-dispatch resume {OPERATOR}",
    )
    codes, said = await scene.why(placement)
    assert codes == ["paused"]
    assert "someone waits for it, so it ends exhausted at once, without any debit" in said


async def test_an_open_circuit_names_its_failures_and_the_next_ping(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    await scene.operator(
        "circuit = 'open', circuit_since = now() - interval '5 min', consecutive_failures = 14,"
        " ping_at = now() + interval '4 min'"
    )
    codes, said = await scene.why(win)
    assert codes == ["circuit_open"]
    in_order(said, f"the circuit of operator {OPERATOR} is open since", "(5 min)", "14 failures in a row")
    in_order(said, "the next PING goes at", "(in 4 min)", "no attempt is spent")

    await scene.harness.owner.execute("select predictu_dispatch.start_ping($1)", OPERATOR)
    ping = await scene.harness.owner.fetchval(
        "select ping_request_id from predictu_dispatch.operator where ping_at > now()"
    )
    codes, said = await scene.why(win)
    assert codes == ["circuit_half_open"]
    in_order(said, "is half open since", f"PING {ping}, which is ready, decides")
    assert (await scene.why(ping))[0] == ["due"]


async def test_a_circuit_that_closed_a_moment_ago_lets_the_backlog_flow_gently(scene: Scene) -> None:
    await scene.daemon()
    _, win = await scene.due_wins("b1", "b2")
    # A moment ahead of us: however long this machine takes, it has just closed.
    await scene.operator("circuit_since = now() + interval '1 min'")
    codes, said = await scene.why(win)
    assert codes == ["slow_start"]
    in_order(said, "is closed again since", "flows gently: 1 of 4 slots may be used yet, and 1 due callback is ahead")


async def test_an_operator_that_asked_to_be_left_alone(scene: Scene) -> None:
    await scene.daemon()
    win, placement = await scene.due_win(), await scene.harness.place("b2")
    await scene.operator("settlement_backoff_until = now() + interval '10 min'")
    codes, said = await scene.why(win)
    assert codes == ["backing_off"]
    in_order(said, f"operator {OPERATOR} asked to be left alone (Retry-After) until", "(in 10 min)")
    assert (await scene.why(placement))[0] == ["due"]


async def test_a_rate_says_how_many_are_ahead_and_how_long_that_takes(scene: Scene) -> None:
    await scene.daemon(per_s=0.5)
    wins = await scene.due_wins("b0", "b1", "b2")
    await scene.harness.place("b-now")
    codes, said = await scene.why(wins[2])
    assert codes == ["rate"]
    in_order(
        said,
        "max_requests_per_s = 0.5, over all daemons",
        "3 due callbacks are ahead of it, interactive ones among them",
        "its turn comes in about 6.0 s",
    )
    # More than is worth counting.
    await scene.harness.owner.execute(
        "insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params)"
        " select $1, gen_random_uuid(), 'PING', 'interactive', 'ready', '{}' from generate_series(1, 1500)",
        OPERATOR,
    )
    _, said = await scene.why(wins[2])
    in_order(said, "more than 1,000 due callbacks are ahead of it", "its turn comes in more than 33 min")


async def test_full_slots_name_every_daemon_and_what_is_ahead(scene: Scene) -> None:
    await scene.daemon("host-1", slots=2, slots_max=3)
    await scene.daemon("host-2", slots=1, slots_max=3)
    wins = await scene.due_wins("b0", "b1", "b2", "b-ahead", "b-last")
    await scene.harness.place("b-in-the-other-lane")
    await claim(scene.harness.daemon, slots=2)
    await claim(scene.harness.daemon, slots=1, instance="host-2")
    codes, said = await scene.why(wins[-1])
    assert codes == ["slots_full"]
    in_order(
        said,
        f"all 3 settlement slots of operator {OPERATOR} are in use (host-1 2 of 2, host-2 1 of 1)",
        "1 due callback is ahead of it",
        "[settlement] max_in_flight = 3",
    )


async def test_a_disabled_operator(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    await scene.operator("enabled = false")
    codes, said = await scene.why(win)
    assert codes == ["operator_disabled"]
    in_order(said, f"operator {OPERATOR} is disabled", "enabled = false", "systemctl reload")


async def test_an_operator_whose_file_no_daemon_has_and_how_it_is_here(scene: Scene) -> None:
    await scene.daemon("host-1", serves=False)
    await scene.daemon("host-2", seen_s_ago=999)
    win = await scene.due_win()
    codes, said = await scene.why(win)
    assert codes == ["not_served", "file_missing_here"]
    in_order(
        said,
        f"no running daemon has the file of operator {OPERATOR} (running: host-1)",
        "2. the operator's file is missing here",
        f"operators/{OPERATOR}.toml",
        "another host may have it",
    )
    file = f'operator_id = "{OPERATOR}"\ncallback_url = "https://w.example/p"\n[signing]\nkey_file = "key.pem"\n'
    scene.desk.write_operator(OPERATOR, file + "[interactive]\nmax_attempts = 0\n")
    codes, said = await scene.why(win)
    assert codes == ["not_served", "file_faulty_here"]
    in_order(said, "the operator's file is refused here", "interactive.max_attempts = 0", "signing.key_file")
    scene.desk.write_operator(OPERATOR, file)
    create_key_file(scene.desk.folder / "operators" / "key.pem", "EdDSA")
    assert (await scene.why(win))[0] == ["not_served"]


async def test_no_daemon_at_all_names_the_last_one(scene: Scene) -> None:
    scene.desk.write_operator(OPERATOR, "")
    win = await scene.due_win()
    codes, said = await scene.why(win)
    assert codes == ["no_daemon", "file_faulty_here"]
    in_order(said, "no daemon is running; none was seen within a day", "systemctl start predictu-dispatch")
    await scene.daemon("host-1", seen_s_ago=3000)
    await scene.daemon("host-2", seen_s_ago=600)
    _, said = await scene.why(win)
    in_order(said, "no daemon is running; the last one was host-2 on host web-host-2, last seen", "(10 min ago)")


async def test_deadlines_that_passed_come_first_or_run(scene: Scene) -> None:
    await scene.daemon()
    placement = await scene.harness.place()
    await scene.operator("settlement_backoff_until = now() + interval '10 min', enabled = false")
    await scene.callback(placement, "expires_at = now() + interval '5 min'")
    codes, said = await scene.why(placement)
    assert codes == ["operator_disabled", "deadline_runs"]
    in_order(said, "its deadline is at", "(in 5 min)", "it ends exhausted, without any debit")
    await scene.harness.let_deadline_pass(placement)
    codes, said = await scene.why(placement)
    assert codes == ["deadline_passed", "operator_disabled"]
    in_order(said, "its deadline passed at", "within a second it ends exhausted, without any debit")

    await scene.operator("enabled = true")
    win = await scene.due_win("b2")
    await scene.callback(win, "expires_at = now() + interval '9 min'")
    codes, said = await scene.why(win)
    assert codes == ["backing_off", "deadline_first"]
    in_order(
        said, "its deadline comes before that", "(in 9 min)", "it ends exhausted then, and a person must look at it"
    )


async def test_a_row_that_somebody_holds_names_the_session(scene: Scene) -> None:
    """A person at psql who forgot to commit: no daemon waits for that row, so nothing would ever be sent."""
    await scene.daemon()
    win = await scene.due_win()
    person = await asyncpg.connect(scene.database.owner, server_settings={"application_name": "psql"})
    async with person.transaction():
        await person.execute("select from predictu_dispatch.callback where request_id = $1 for update", win)
        codes, said = await scene.why(win)
        assert codes == ["row_locked"]
        in_order(said, f"an open transaction holds its row: database session {person.get_server_pid()} (psql)")
    await person.close()
    codes, said = await scene.why(win)
    assert codes == ["due"]
    in_order(said, "nothing stands in its way", "with the next claim")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([str(LOST)], 1, f"no callback {LOST}"),
        ([str(LOST), "--operator", OPERATOR], 1, f"no callback {LOST} of operator {OPERATOR}"),
        ([str(LOST), "--operator", "op_x"], 1, f"no callback {LOST}: unknown operator op_x;"),
        (["7"], 2, "not a valid UUID"),
        ([], 2, "Missing argument 'REQUEST_ID'"),
    ],
)
async def test_what_is_not_there_is_said_so(scene: Scene, arguments: list[str], code: int, words: str) -> None:
    found, said, complaint = await scene.desk.run("why", *arguments)
    assert (found, said) == (code, "")
    assert words in complaint


async def test_an_id_that_two_operators_have_asks_for_the_operator(scene: Scene) -> None:
    await scene.harness.owner.execute("update predictu_dispatch.operator set enabled = true")
    for operator_id in (OPERATOR, "op_off"):
        await scene.harness.producer.execute(
            "select predictu_dispatch.enqueue_callback($1, 'PING', '{}', $2)", operator_id, LOST
        )
    code, _, complaint = await scene.desk.run("why", str(LOST))
    assert code == 1
    assert f"--operator {OPERATOR} | op_off" in complaint
    code, said, _ = await scene.desk.run("why", str(LOST), "--operator", "op_off")
    assert code == 0
    assert "of operator op_off is ready" in said


@pytest.mark.parametrize(
    ("name", "arguments", "blocks_most"),
    [
        ("why_callback", f"'{LOST}', null", 50),
        ("why_ahead", f"'{OPERATOR}', 'interactive', now(), 1001", 200),
        ("why_daemons", f"'{OPERATOR}', 'interactive'", 50),
    ],
)
async def test_a_long_backlog_costs_no_more_than_what_is_counted(
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
