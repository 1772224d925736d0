"""The circuit breaker over the whole fleet: when it opens, and what happens while it is open."""

import asyncio
import time
from uuid import UUID

import pytest
from aiohttp import web

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.circuits import (
    ONE_ATTEMPT,
    OPEN_S,
    THRESHOLD,
    enqueue_balance,
    failing,
    final_state,
    open_circuit,
    operator_row,
    outcomes,
    print_figures,
    until_final,
    until_heartbeats_sent,
    until_operator_is,
    wins,
    write_operator,
)
from tests.support.environment import Environment
from tests.support.harness import DISABLED, OPERATOR, Harness, claim, connected, delivered, enqueue, retried, settle_all
from tests.support.operators import receiving
from tests.support.postgres import Database
from tests.support.postgres_proxy import proxied

NEVER_S = 600.0
"""Longer than any test: no PING is sent."""
BALANCE = {"player_id": "p1", "currency": "EUR"}
POLL = "as ping_state"
"""The monitor's read, as the proxy recognizes it."""


# Opening


@pytest.mark.parametrize("code", [500, 401, 404])
async def test_consecutive_failures_open_the_circuit(environment: Environment, code: int) -> None:
    """A wrong key or address counts as a failure too."""
    write_operator(environment, open_s=NEVER_S)
    daemon = await environment.fleet.start("host-1")
    await until_final(environment, await enqueue_balance(environment))
    environment.operator.answer = failing(code)
    for _ in range(THRESHOLD - 1):
        await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(environment, circuit="closed", health="degraded", consecutive_failures=THRESHOLD - 1)
    await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(environment, circuit="open", health="down", consecutive_failures=THRESHOLD)
    seen = await operator_row(environment)
    assert seen["last_success_at"] < seen["last_failure_at"] <= seen["circuit_since"] < seen["ping_at"]
    await daemon.until_logged("circuit.opened")
    assert await daemon.metric("circuit_open", OPERATOR) == 1
    assert await daemon.metric("operator_up", OPERATOR) == 0


async def test_failures_of_two_daemons_add_up(environment: Environment) -> None:
    """Neither reaches the threshold alone: each has two slots, and all four attempts fail."""
    environment.fleet.write_operator(
        environment.operator.url,
        interactive=ONE_ATTEMPT | {"max_in_flight": 4},
        circuit={"failure_threshold": 4, "open_s": NEVER_S},
    )
    for instance in ("host-1", "host-2"):
        await environment.fleet.start(instance)
    await until_heartbeats_sent(environment, 2)
    environment.operator.answer = failing()
    environment.operator.hold()
    asked = [await enqueue_balance(environment) for _ in range(4)]
    await environment.until_in_flight(4)
    leased = await environment.harness.owner.fetch(
        "select leased_by, count(*) from predictu_dispatch.callback where state = 'in_flight' group by leased_by"
    )
    assert {lease["leased_by"]: lease["count"] for lease in leased} == {"host-1": 2, "host-2": 2}
    environment.operator.release()
    await until_final(environment, *asked)
    # Below its own threshold, each daemon writes at its next poll.
    await until_operator_is(environment, circuit="open", consecutive_failures=4, within_s=2.0)


async def test_an_old_success_does_not_reset_newer_failures_of_another_daemon(environment: Environment) -> None:
    """If a success were counted again at each poll, the circuit would never open."""
    write_operator(environment, open_s=NEVER_S)
    await environment.fleet.start("host-1")
    await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(environment, health="healthy")
    await until_final(environment, await enqueue_balance(environment))
    await until_heartbeats_sent(environment, 1)
    await environment.harness.owner.execute(
        "update predictu_dispatch.operator set consecutive_failures = 2, health = 'degraded', revision = revision + 1"
    )
    await until_heartbeats_sent(environment, 2)
    assert (await operator_row(environment))["consecutive_failures"] == 2


# While open


async def test_while_the_circuit_is_open_bets_end_at_once_and_credits_wait(
    environment: Environment, database: Database
) -> None:
    """With two daemons, also for the one that made no attempt itself."""
    write_operator(environment, open_s=NEVER_S)
    await environment.fleet.start("host-1")
    await environment.adopt("b-to-roll-back")
    await environment.adopt("b-to-pay")
    await open_circuit(environment, THRESHOLD)
    reached = len(environment.operator.requests)
    await environment.fleet.start("host-2")

    rollback = await environment.harness.rollback("b-to-roll-back")
    win = await environment.harness.end("BET_WIN", "b-to-pay")
    took_ms = []
    async with outcomes(database.owner) as outcome_times:
        for n in range(10):
            enqueued = await (environment.harness.place(f"b-{n}") if n % 2 else enqueue_balance(environment))
            committed_at_s = time.monotonic()
            took_ms.append((await outcome_times.of(enqueued) - committed_at_s) * 1000)
            assert await final_state(environment, enqueued) == ("exhausted", "circuit_open", "none", 0)
    print_figures(f"commit to outcome: {sorted(round(ms, 1) for ms in took_ms)} ms")
    # The median is a few milliseconds; a reaper without a notification polls every half second.
    assert sorted(took_ms)[5] < 250
    assert max(took_ms) < 1000
    assert [(await environment.harness.bet(f"b-{n}"))["state"] for n in range(1, 10, 2)] == ["void"] * 5
    await until_heartbeats_sent(environment, 2)
    assert rollback is not None
    for waiting in (rollback, win):
        assert (await final_state(environment, waiting))[::3] == ("ready", 0)
    assert len(environment.operator.requests) == reached


async def test_retries_end_when_the_circuit_opens_and_an_unknown_debit_is_rolled_back(
    environment: Environment, database: Database
) -> None:
    write_operator(environment, open_s=OPEN_S)
    harness = environment.harness
    # From before: attempted and due again in a minute.
    unknown = await harness.place("b-unknown")
    await harness.attempt(unknown, retried, due_in_s=60.0)
    never_left = await harness.place("b-never-left")
    await harness.attempt(never_left, retried, due_in_s=60.0, effect="none", evidence="not_sent")
    balance = await enqueue_balance(environment)
    await harness.attempt(balance, retried, due_in_s=60.0)
    reviewed = await harness.end("BET_WIN", "b-unknown")
    environment.operator.book("b-unknown", str(unknown), "p1", 500)

    await environment.fleet.start("host-1")
    async with outcomes(database.owner) as outcome_times:
        await open_circuit(environment, THRESHOLD)
        for ended, effect in ((unknown, "unknown"), (never_left, "none"), (balance, "unknown")):
            # They were due in a minute.
            await outcome_times.of(ended)
            assert await final_state(environment, ended) == ("exhausted", "circuit_open", effect, 1)
    assert (await harness.bet("b-never-left"))["state"] == "void"
    assert (await harness.bet("b-unknown"))["state"] == "closing"
    assert (await harness.callback(reviewed))["state"] == "cancelled"
    [rollback] = await harness.rollbacks("b-unknown")
    assert (rollback["state"], rollback["attempts"]) == ("ready", 0)
    environment.operator.answer = lambda _: None
    await environment.until_all_final()
    assert await harness.state(rollback["request_id"]) == "delivered"
    assert environment.operator.balance["p1"] == 0
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_without_notifications_polling_does_the_same(environment: Environment) -> None:
    """As behind a pooling proxy, where a listener receives nothing."""
    write_operator(environment, open_s=OPEN_S)
    silent = {"listen_dsn": "postgresql://test_dispatcher@127.0.0.1:1/nowhere"}
    daemons = [await environment.fleet.start(instance, database=silent) for instance in ("host-1", "host-2")]
    waiting_wins = await wins(environment, 3)
    await environment.until_all_final()
    # A success that a daemon writes later would reset the failures that the other one has written.
    await until_heartbeats_sent(environment, 2)
    await open_circuit(environment, THRESHOLD)
    for daemon in daemons:
        await daemon.until_logged("circuit.opened")
    refused = await environment.harness.place("b-refused")
    await until_final(environment, refused, within_s=3.0)
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed", health="healthy", consecutive_failures=0)
    for daemon in daemons:
        await daemon.until_logged("circuit.closed")
    await environment.harness.place("b-taken")
    await environment.until_all_final(within_s=3.0)
    assert [await environment.harness.state(win) for win in waiting_wins] == ["delivered"] * 3
    assert {(await environment.harness.bet(bet))["state"] for bet in ("b-refused", "b-taken")} == {"void", "open"}


# Database load


@pytest.mark.parametrize("situation", ["well, with traffic", "open", "its row is locked", "sixty others are pinged"])
async def test_the_monitor_polls_about_once_per_second(
    environment: Environment, database: Database, situation: str
) -> None:
    polls = 3
    others = [f"op_{n}" for n in range(60)] if situation == "sixty others are pinged" else []
    environment.fleet.write_operator(
        environment.operator.url,
        interactive=ONE_ATTEMPT,
        circuit={"failure_threshold": THRESHOLD, "open_s": NEVER_S},
        # A PING's answer causes no further statements.
        health={"ping_interval_s": 2.0 if situation == "well, with traffic" or others else 0.2},
    )

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"status": "OK"})

    async with (
        receiving(answer) as others_url,
        proxied(environment.fleet.dsn) as proxy,
        connected(database.owner, 1) as [holder],
        outcomes(database.owner) as outcome_times,
    ):
        for other in others:
            create_key_file(environment.fleet.folder / f"{other}.pem", "EdDSA")
            environment.fleet.write_operator(
                others_url,
                operator_id=other,
                signing={"key_file": f"../{other}.pem"},
                health={"ping_interval_s": 10.0},
            )
        await environment.fleet.start("host-1", database={"dsn": proxy.dsn()})
        await until_operator_is(environment, health="healthy")
        if situation == "open":
            await open_circuit(environment, THRESHOLD)
        for other in others:
            # At random times, as for operators that were added one by one.
            await until_operator_is(environment, operator_id=other, health="healthy")
            await holder.execute(
                "update predictu_dispatch.operator set ping_at = now() + random() * interval '10 s',"
                " revision = revision + 1 where operator_id = $1",
                other,
            )
        async with holder.transaction():
            if situation == "its row is locked":
                await holder.execute("select from predictu_dispatch.operator for update")
            polls_before = proxy.runs(POLL)
            polling = asyncio.create_task(until_heartbeats_sent(environment, polls))
            balances = 0
            while situation == "well, with traffic" and not polling.done():
                await outcome_times.of(await enqueue_balance(environment))
                balances += 1
            await polling
            polled = proxy.runs(POLL) - polls_before
    print_figures(f"{situation}: {polled} statements in {polls} to {polls + 2} s, {balances} callbacks")
    assert polled < 20


# The claim and the write in the database


async def be(harness: Harness, **columns: object) -> None:
    """Updates every operator's row; `columns` are SQL."""
    changes = ", ".join(f"{name} = {text}" for name, text in columns.items())
    await harness.owner.execute(f"update predictu_dispatch.operator set {changes}, revision = revision + 1")  # noqa: S608


async def claimed(harness: Harness, *request_ids: UUID | None) -> set[UUID | None]:
    """The callbacks that a claim without limits returns now; they are ready again afterwards."""
    leases = await claim(harness.daemon)
    await settle_all(harness.daemon, *(retried(lease) for lease in leases))
    assert {lease["request_id"] for lease in leases} <= set(request_ids)
    return {lease["request_id"] for lease in leases}


async def test_the_claim_itself_respects_circuit_pause_and_backoff(harness: Harness) -> None:
    """A daemon's knowledge may be a second old, so the claim checks again."""
    place, balance = await harness.place("b-1"), await enqueue(harness.producer, "BALANCE", BALANCE)
    await harness.owner.execute(
        "insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount,"
        " placement_request_id) values ($1, 'b-2', 'open', 'p1', 'EUR', 500, gen_random_uuid())",
        OPERATOR,
    )
    win = await harness.end("BET_WIN", "b-2")
    every = (place, balance, win)
    assert await claimed(harness, *every) == set(every)
    await be(harness, circuit="'open'")
    assert await claimed(harness, *every) == set()
    ping = await harness.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR)
    circuits = await harness.owner.fetch("select operator_id, circuit from predictu_dispatch.operator")
    assert {found["operator_id"]: found["circuit"] for found in circuits} == {OPERATOR: "half_open", DISABLED: "open"}
    [lease] = await claim(harness.daemon)
    assert (lease["request_id"], lease["method"]) == (ping, "PING")
    # One is unfinished; starting another one returns it.
    assert await harness.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR) == ping
    assert await claimed(harness) == set()
    await harness.settle(delivered(lease))
    await be(harness, circuit="'closed'", interactive_backoff_until="now() + interval '1 hour'")
    assert await claimed(harness, *every) == {win}
    await be(harness, interactive_backoff_until="null", settlement_backoff_until="now() + interval '1 hour'")
    assert await claimed(harness, *every) == {place, balance}
    await be(
        harness,
        settlement_backoff_until="now() - interval '1 second'",
        paused_at="now()",
        paused_by="'a'",
        pause_reason="'b'",
    )
    assert await claimed(harness, *every) == set()
    await be(harness, paused_at="null", paused_by="null", pause_reason="null")
    assert await claimed(harness, *every) == set(every)


async def test_of_two_decisions_on_the_same_row_one_is_written_and_starts_the_ping(harness: Harness) -> None:
    """Two daemons have read the same revision; the second reads again and finds the PING."""

    async def written(revision: int) -> bool:
        rows = await harness.daemon.fetch(
            query("write_circuits"),
            *([OPERATOR], [revision], ["open"], ["down"], [THRESHOLD], [None], [0.0], [OPEN_S], [True], *[[None]] * 7),
        )
        return bool(rows)

    async def revision() -> int:
        return int(
            await harness.owner.fetchval(
                "select revision from predictu_dispatch.operator where operator_id = $1", OPERATOR
            )
        )

    read = await revision()
    assert await written(read)
    assert not await written(read)
    assert await revision() > read
    started = await harness.owner.fetch("select method, state from predictu_dispatch.callback")
    assert [tuple(found) for found in started] == [("PING", "ready")]
    async with harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.operator for update")
        # Locked by a person: the daemon does not wait, and nothing is lost.
        assert not await written(await revision())
    assert await written(await revision())
