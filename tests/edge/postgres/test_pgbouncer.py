"""Daemons and commands behind a transaction-pooling proxy, which keeps no session state.

`TEST_POOLER=pgbouncer` uses the same proxy in any other test; see tests/support/pgbouncer.py.
"""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.bulk import until_slots
from tests.support.circuits import enqueue_balance, failing, others, until_final, until_operator_is
from tests.support.command_line import command_line_for
from tests.support.daemons import until
from tests.support.environment import Environment, open_environment
from tests.support.harness import OPERATOR, Harness, enqueue, placement_params, terminal_params
from tests.support.movements import Movement, add_movements
from tests.support.operators import Request
from tests.support.pgbouncer import PgBouncer, PooledFleet, find_pgbouncer
from tests.support.postgres import Database

NOWHERE = "postgresql://test_dispatcher@127.0.0.1:1/nowhere"
THRESHOLD = 3


@pytest.fixture
async def environment(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Environment]:
    find_pgbouncer()
    monkeypatch.setattr("tests.support.environment.Fleet", PooledFleet)
    async with open_environment(tmp_path, database) as environment:
        yield environment


def pooled(environment: Environment) -> PooledFleet:
    assert isinstance(environment.fleet, PooledFleet)
    return environment.fleet


def by_bet(request: Request) -> web.Response | None:
    """The operator rejects one bet and fails for another one."""
    bet_id = request.envelope["params"].get("bet_id")
    if request.method != "BET_MAKE" or bet_id not in ("refused", "broken"):
        return None
    return web.json_response({"status": "INSUFFICIENT_FUNDS"}) if bet_id == "refused" else web.Response(status=500)


async def enqueue_what_is_never_sent(environment: Environment) -> None:
    """Call this while no daemon runs."""
    await environment.harness.place("cancelled-early")
    await environment.harness.rollback("cancelled-early")
    await environment.harness.let_deadline_pass(await environment.harness.place("expired"))


async def enqueue_bets_of_every_path(environment: Environment) -> dict[str, str]:
    """Enqueue bets of every path; returns their expected final states."""
    harness = environment.harness
    environment.operator.answer = by_bet
    ends = {"won": "BET_WIN", "lost": "BET_LOSE", "sold": "BET_SELL", "refunded": "BET_REFUND"}
    for bet_id in ("open", "broken", *ends):
        await harness.place(bet_id)
    for bet_id, method in ends.items():
        await harness.end(method, bet_id)
    # In one transaction, or the rejection could void the bet before its win is enqueued.
    async with harness.producer.transaction():
        await harness.place("refused")
        await enqueue(harness.producer, "BET_WIN", terminal_params("BET_WIN", placement_params("refused")))
    await environment.adopt("rolled-back")
    await harness.rollback("rolled-back")
    await enqueue_balance(environment)
    never_debited = dict.fromkeys(("refused", "cancelled-early", "expired"), "void")
    closed = dict.fromkeys(("won", "lost", "sold", "refunded", "broken", "rolled-back"), "closed")
    return {"open": "open", **never_debited, **closed}


@pytest.mark.parametrize("listening", ["directly", "not at all"])
async def test_bets_of_every_path_reach_their_final_state_and_a_lease_is_reaped(
    environment: Environment, listening: str
) -> None:
    environment.fleet.write_operator(environment.operator.url, interactive={"max_attempts": 3})
    listens = {"listen_dsn": pooled(environment).direct_dsn if listening == "directly" else NOWHERE}
    harness = environment.harness
    await enqueue_what_is_never_sent(environment)
    first = await environment.fleet.start("first", database=listens)
    expected = await enqueue_bets_of_every_path(environment)
    await environment.until_all_final()
    bets = await harness.owner.fetch("select bet_id, state from predictu_dispatch.bet")
    assert {bet["bet_id"]: bet["state"] for bet in bets} == expected
    # One bet is open and one was lost; the other debits were reversed or never made.
    assert environment.operator.balance["p1"] == -500 - 500

    environment.operator.hold()
    placement = await harness.place("interrupted")
    await environment.until_in_flight(1)
    first.kill()
    await environment.expire_leases("first")
    environment.operator.release()
    second = await environment.fleet.start("second", database=listens)
    await environment.until_all_final()
    assert await environment.audit(placement) == [
        (1, "retry", "unanswered", "interrupted", "first"),
        (2, "delivered", "answered", None, "second"),
    ]
    assert environment.operator.balance["p1"] == -3 * 500
    second.terminate()
    assert await second.exited() == 0
    for daemon in (first, second):
        assert daemon.lines("chore.failed") == daemon.lines("database.lost") == []
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_two_daemons_share_limits_and_a_circuit(environment: Environment) -> None:
    circuit = {"failure_threshold": THRESHOLD, "open_s": 0.5}
    environment.fleet.write_operator(environment.operator.url, interactive={"max_attempts": 1}, circuit=circuit)
    for daemon in [environment.fleet.spawn(instance) for instance in ("host-1", "host-2")]:
        await daemon.ready()
    await until_slots(environment, host_1=30, host_2=30)
    environment.operator.answer = failing()
    await until_final(environment, *[await enqueue_balance(environment) for _ in range(THRESHOLD)])
    await until_operator_is(environment, circuit="open")
    reached = len(others(environment.operator))
    refused = await environment.harness.place("b-refused")
    await until_final(environment, refused)
    callback = await environment.harness.callback(refused)
    assert (callback["state"], callback["reason"], callback["attempts"]) == ("exhausted", "circuit_open", 0)
    assert len(others(environment.operator)) == reached
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed")
    await environment.harness.place("b-placed")
    await environment.until_all_final()
    assert await environment.bets() == {"void": 1, "open": 1}
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_commands_do_their_work_through_the_pooler(
    environment: Environment, database: Database, tmp_path: Path
) -> None:
    """They read the daemon's dispatcher.toml, and so use the same pooler."""
    await environment.fleet.start("host-1")
    await environment.adopt("b-won")
    (tmp_path / "desk").mkdir()
    desk = command_line_for(tmp_path / "desk", pooled(environment).pooler.through(database.operations))

    async def run(*arguments: str) -> str:
        code, output, errors = await desk.run(*arguments)
        assert code == 0, f"{arguments}: {errors}"
        return output

    await run("pause", OPERATOR, "--reason", "their upgrade")
    win = await environment.harness.end("BET_WIN", "b-won")
    assert OPERATOR in await run("status")
    assert "their upgrade" in await run("why", str(win))
    assert "b-won" in await run("show", str(win))
    assert str(win) in await run("show", "--bet", OPERATOR, "b-won")
    assert environment.operator.requests == []
    await run("resume", OPERATOR)
    await environment.until_all_final()
    # It repeats its statements, each in another session.
    environment.operator.answers_in_s = 0.5
    assert "delivered" in await run("ping", OPERATOR)
    assert await environment.states() == {"delivered": 2}


async def test_commands_are_not_affected_by_the_previous_users_session_state(
    harness: Harness, database: Database, tmp_path: Path
) -> None:
    """Processes one after the other, and a pooler with a single session."""
    await add_movements(harness.owner, [Movement("BET_WIN", datetime(2024, 5, 1, tzinfo=UTC), 500, "b-1")])
    pooler = PgBouncer(database.dispatcher, sessions=1)
    pooler.start()
    try:
        desk = command_line_for(tmp_path, pooler.through(database.operations))
        day = ("--from", "2024-05-01", "--until", "2024-05-01")
        statement = ("statement", OPERATOR, "--currency", "EUR", *day, "--csv")
        for arguments in (("status",), statement, statement, ("status",)):
            command = [sys.executable, "-m", "predictu_dispatch", *arguments, "--config", str(desk.config)]
            asked = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
            assert (asked.returncode, asked.stderr) == (0, "")
            assert (",b-1," in asked.stdout) == (arguments == statement)
    finally:
        pooler.stop()


async def test_a_killed_pooler_with_answers_in_flight_loses_and_doubles_nothing(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    environment.operator.hold()
    placements: list[uuid.UUID] = [await environment.harness.place(f"b-{n}") for n in range(10)]
    await environment.until_in_flight(len(placements))
    pooled(environment).pooler.kill()

    async def it_says_so() -> bool:
        return not await daemon.is_ready()

    await until("readyz reports the outage", it_says_so)
    environment.operator.release()
    await until("every answer is on its way", lambda: environment.operator.live.total() == 0)
    await asyncio.to_thread(pooled(environment).pooler.restart)
    await until("the daemon is ready again", daemon.is_ready)
    await environment.until_all_final()
    for placement in placements:
        assert await environment.audit(placement) == [(1, "delivered", "answered", None, "host-1")]
    assert len(environment.operator.requests) == len(placements)
    assert environment.operator.faults == []
