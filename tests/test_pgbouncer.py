"""Daemons and commands behind a transaction-pooling proxy: no statement finds anything of the one before it.

`TEST_POOLER=pgbouncer` puts the same proxy before the daemons of any other test; see tests/support/pgbouncer.py.
"""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.circuits import ask_balance, becomes, failing, has_ended, others
from tests.support.crowd import shared
from tests.support.daemons import until
from tests.support.desk import desk_at
from tests.support.ledger import OPERATOR
from tests.support.operators import Request
from tests.support.pgbouncer import PgBouncer, PooledFleet, find_pgbouncer
from tests.support.postgres import Database
from tests.support.stage import Stage, open_stage

NOWHERE = "postgresql://test_dispatcher@127.0.0.1:1/nowhere"
THRESHOLD = 3


@pytest.fixture
async def stage(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    find_pgbouncer()
    monkeypatch.setattr("tests.support.stage.Fleet", PooledFleet)
    async with open_stage(tmp_path, database) as stage:
        yield stage


def pooled(stage: Stage) -> PooledFleet:
    assert isinstance(stage.fleet, PooledFleet)
    return stage.fleet


def by_bet(request: Request) -> web.Response | None:
    """The operator has no money for one bet, and is broken for another one."""
    bet_id = request.envelope["params"].get("bet_id")
    if request.method != "BET_MAKE" or bet_id not in ("refused", "broken"):
        return None
    return web.json_response({"status": "INSUFFICIENT_FUNDS"}) if bet_id == "refused" else web.Response(status=500)


async def enqueue_what_is_never_sent(stage: Stage) -> None:
    """To be done while no daemon runs."""
    await stage.ledger.place("taken-back")
    await stage.ledger.rollback("taken-back")
    await stage.ledger.let_deadline_pass(await stage.ledger.place("expired"))


async def enqueue_bets_of_every_path(stage: Stage) -> dict[str, str]:
    """Bets with the state they, and those that are never sent, have to end in; the operator answers as it must."""
    ledger = stage.ledger
    stage.operator.answer = by_bet
    ends = {"won": "BET_WIN", "lost": "BET_LOSE", "sold": "BET_SELL", "refunded": "BET_REFUND", "refused": "BET_WIN"}
    for bet_id in ("open", "broken", *ends):
        await ledger.place(bet_id)
    for bet_id, method in ends.items():
        await ledger.end(method, bet_id)
    await stage.adopt("rolled-back")
    await ledger.rollback("rolled-back")
    await ask_balance(stage)
    never_debited = dict.fromkeys(("refused", "taken-back", "expired"), "void")
    closed = dict.fromkeys(("won", "lost", "sold", "refunded", "broken", "rolled-back"), "closed")
    return {"open": "open", **never_debited, **closed}


@pytest.mark.parametrize("listening", ["directly", "not at all"])
async def test_bets_of_every_path_end_as_they_must_and_a_killed_daemons_lease_is_reaped(
    stage: Stage, listening: str
) -> None:
    stage.fleet.write_operator(stage.operator.url, interactive={"max_attempts": 3})
    listens = {"listen_dsn": pooled(stage).direct_dsn if listening == "directly" else NOWHERE}
    ledger = stage.ledger
    await enqueue_what_is_never_sent(stage)
    first = await stage.fleet.start("first", database=listens)
    expected = await enqueue_bets_of_every_path(stage)
    await stage.all_final()
    bets = await ledger.owner.fetch("select bet_id, state from predictu_dispatch.bet")
    assert {bet["bet_id"]: bet["state"] for bet in bets} == expected
    # One bet is open and one was lost; the others' debits came back, or never were.
    assert stage.operator.balance["p1"] == -500 - 500

    stage.operator.hold()
    placement = await ledger.place("interrupted")
    await stage.held(1)
    first.kill()
    await stage.expire_leases("first")
    stage.operator.release()
    second = await stage.fleet.start("second", database=listens)
    await stage.all_final()
    assert await stage.audit(placement) == [
        (1, "retry", "unanswered", "interrupted", "first"),
        (2, "delivered", "answered", None, "second"),
    ]
    assert stage.operator.balance["p1"] == -3 * 500
    second.ask_to_stop()
    assert await second.exited() == 0
    for daemon in (first, second):
        assert daemon.lines("chore.failed") == daemon.lines("database.lost") == []
    assert stage.operator.faults == await stage.audit_faults() == []


async def test_two_daemons_share_limits_and_a_circuit(stage: Stage) -> None:
    circuit = {"failure_threshold": THRESHOLD, "open_s": 0.5}
    stage.fleet.write_operator(stage.operator.url, interactive={"max_attempts": 1}, circuit=circuit)
    for daemon in [stage.fleet.spawn(instance) for instance in ("host-1", "host-2")]:
        await daemon.ready()
    await shared(stage, host_1=30, host_2=30)
    stage.operator.answer = failing()
    await has_ended(stage, *[await ask_balance(stage) for _ in range(THRESHOLD)])
    await becomes(stage, circuit="open")
    reached = len(others(stage.operator))
    refused = await stage.ledger.place("b-refused")
    await has_ended(stage, refused)
    callback = await stage.ledger.callback(refused)
    assert (callback["state"], callback["reason"], callback["attempts"]) == ("exhausted", "circuit_open", 0)
    assert len(others(stage.operator)) == reached
    stage.operator.answer = lambda _: None
    await becomes(stage, circuit="closed")
    await stage.ledger.place("b-placed")
    await stage.all_final()
    assert await stage.bets() == {"void": 1, "open": 1}
    assert stage.operator.faults == await stage.audit_faults() == []


async def test_commands_do_their_work_through_the_pooler(stage: Stage, tmp_path: Path) -> None:
    """They read the daemon's own dispatcher.toml, and so go through whatever it goes through."""
    await stage.fleet.start("host-1")
    await stage.adopt("b-won")
    (tmp_path / "desk").mkdir()
    desk = desk_at(tmp_path / "desk", stage.fleet.dsn)

    async def said(*arguments: str) -> str:
        code, words, complaint = await desk.ask(*arguments)
        assert code == 0, f"{arguments}: {complaint}"
        return words

    await said("pause", OPERATOR, "--reason", "their upgrade")
    win = await stage.ledger.end("BET_WIN", "b-won")
    assert OPERATOR in await said("status")
    assert "their upgrade" in await said("why", str(win))
    assert "b-won" in await said("show", str(win))
    assert str(win) in await said("show", "--bet", OPERATOR, "b-won")
    assert stage.operator.requests == []
    await said("resume", OPERATOR)
    await stage.all_final()
    # It asks the same again and again, and each time another session.
    stage.operator.answers_in_s = 0.5
    assert "delivered" in await said("ping", OPERATOR)
    assert await stage.states() == {"delivered": 2}


async def test_commands_do_not_stumble_over_what_the_one_before_has_left_in_a_session(
    database: Database, tmp_path: Path
) -> None:
    """Two processes of their own, one after the other, and a pooler with a single session."""
    pooler = PgBouncer(database.dispatcher, sessions=1)
    pooler.start()
    try:
        desk = desk_at(tmp_path, pooler.through(database.dispatcher))
        command = [sys.executable, "-m", "predictu_dispatch", "status", "--config", str(desk.config)]
        for _ in range(2):
            asked = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
            assert (asked.returncode, asked.stderr) == (0, "")
    finally:
        pooler.stop()


async def test_a_pooler_that_dies_with_answers_in_flight_loses_and_doubles_nothing(stage: Stage) -> None:
    daemon = await stage.fleet.start("host-1")
    stage.operator.hold()
    placements: list[uuid.UUID] = [await stage.ledger.place(f"b-{n}") for n in range(10)]
    await stage.held(len(placements))
    pooled(stage).pooler.kill()

    async def it_says_so() -> bool:
        return not await daemon.is_ready()

    await until("readyz says that the database is away", it_says_so)
    stage.operator.release()
    await until("every answer is on its way", lambda: stage.operator.live.total() == 0)
    await asyncio.to_thread(pooled(stage).pooler.restart)
    await until("the daemon is ready again", daemon.is_ready)
    await stage.all_final()
    for placement in placements:
        assert await stage.audit(placement) == [(1, "delivered", "answered", None, "host-1")]
    assert len(stage.operator.requests) == len(placements)
    assert stage.operator.faults == []
