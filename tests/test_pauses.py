"""A maintenance window: nothing is sent to a paused operator, no attempt is spent, and no other operator notices."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.circuits import (
    OWN_TURN_S,
    ask_balance,
    failing,
    has_ended,
    looks_on,
    outcomes,
    pings,
    tell,
)
from tests.support.daemons import until
from tests.support.ledger import OPERATOR, Ledger, connected, enqueue, placement_params, retried
from tests.support.postgres import Database
from tests.support.stage import OTHER, Stage, another_operator, open_stage


@pytest.fixture
async def stage(tmp_path: Path, database: Database) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, database) as stage:
        yield stage


async def pause(ledger: Ledger, operator_id: str = OPERATOR) -> None:
    await ledger.owner.execute("select predictu_dispatch.pause_operator($1, 'maintenance', 'alice')", operator_id)


async def resume(ledger: Ledger, operator_id: str = OPERATOR) -> None:
    await ledger.owner.execute("select predictu_dispatch.resume_operator($1, null, 'alice')", operator_id)


async def fate_of(ledger: Ledger, request_id: UUID) -> tuple[str, str | None, str, int]:
    """State, reason, effect and attempts of the callback."""
    callback = await ledger.callback(request_id)
    return callback["state"], callback["reason"], callback["effect"], callback["attempts"]


async def test_while_paused_bets_end_at_once_credits_wait_and_nothing_is_sent(stage: Stage, database: Database) -> None:
    stage.fleet.write_operator(stage.operator.url, health={"ping_interval_s": 0.2})
    ledger = stage.ledger
    await stage.adopt("b-to-pay")
    await stage.adopt("b-to-roll-back")
    async with another_operator(stage) as other:
        daemons = [await stage.fleet.start(instance) for instance in ("host-1", "host-2")]
        await until("the operator is pinged", lambda: len(pings(stage.operator)) >= 1)
        await pause(ledger)
        await looks_on(stage, 1)
        reached = len(stage.operator.requests)
        took_ms = []
        async with outcomes(database.owner) as heard:
            for n in range(8):
                enqueued = await (ledger.place(f"b-{n}") if n % 2 else ask_balance(stage))
                committed_at_s = time.monotonic()
                took_ms.append((await heard.of(enqueued) - committed_at_s) * 1000)
                assert await fate_of(ledger, enqueued) == ("exhausted", "paused", "none", 0)
        tell(f"commit to outcome: {sorted(round(ms, 1) for ms in took_ms)} ms")
        assert sorted(took_ms)[len(took_ms) // 2] < 250
        assert {(await ledger.bet(f"b-{n}"))["state"] for n in range(1, 8, 2)} == {"void"}

        rollback = await ledger.rollback("b-to-roll-back")
        win = await ledger.end("BET_WIN", "b-to-pay")
        assert rollback is not None
        # The other operator goes on as if nothing were.
        placed = await enqueue(ledger.producer, "BET_MAKE", placement_params("b-other"), operator_id=OTHER)
        await has_ended(stage, placed)
        assert await fate_of(ledger, placed) == ("delivered", None, "applied", 1)
        await looks_on(stage, 2)
        assert len(stage.operator.requests) == reached
        for waiting in (rollback, win):
            assert (await fate_of(ledger, waiting))[::3] == ("ready", 0)

        resumed_at_s = time.time()
        await resume(ledger)
        await has_ended(stage, rollback, win)
        arrivals_s = [stage.operator.sent(owed)[0].arrived_at_s - resumed_at_s for owed in (rollback, win)]
        tell(f"after the resuming: {[round(arrival, 3) for arrival in arrivals_s]} s")
        assert max(arrivals_s) < 1.0
        before = len(pings(stage.operator))
        await until("it is pinged again", lambda: len(pings(stage.operator)) > before)
        for daemon in daemons:
            daemon.ask_to_stop()
            assert await daemon.exited() == 0
        assert [fault for one in (stage.operator, other) for fault in one.faults] == await stage.audit_faults() == []


async def test_retries_wait_and_attempts_under_way_finish(stage: Stage) -> None:
    """What the operator was asked before the pause it may still answer; nothing is asked twice meanwhile."""
    ledger = stage.ledger
    for n in range(4):
        await stage.adopt(f"b-{n}")
    await stage.fleet.start("host-1")
    stage.operator.hold()
    answered = [await ledger.end("BET_WIN", f"b-{n}") for n in range(2)]
    await stage.held(2)
    stage.operator.answer = failing()
    failed = [await ledger.end("BET_WIN", f"b-{n}") for n in range(2, 4)]
    await stage.held(4)
    await pause(ledger)
    await looks_on(stage, 1)
    stage.operator.release()
    await has_ended(stage, *answered)

    async def both_are_to_be_retried() -> bool:
        return [(await fate_of(ledger, win))[0] for win in failed] == ["ready", "ready"]

    await until("the others are to be retried", both_are_to_be_retried)
    await looks_on(stage, 2)
    assert [await fate_of(ledger, win) for win in answered] == [("delivered", None, "applied", 1)] * 2
    assert [await fate_of(ledger, win) for win in failed] == [("ready", "http_500", "unknown", 1)] * 2
    assert len(stage.operator.requests) == 4
    stage.operator.answer = lambda _: None
    await resume(ledger)
    await has_ended(stage, *failed, within_s=5.0)
    assert [await fate_of(ledger, win) for win in failed] == [("delivered", None, "applied", 2)] * 2
    assert stage.operator.faults == await stage.audit_faults() == []


async def test_a_debit_that_waits_for_its_retry_when_the_pause_begins_is_taken_back_if_it_may_stand(
    stage: Stage, database: Database
) -> None:
    ledger = stage.ledger
    unknown = await ledger.place("b-unknown")
    await ledger.attempt(unknown, retried, due_in_s=60.0)
    never_left = await ledger.place("b-never-left")
    await ledger.attempt(never_left, retried, due_in_s=60.0, effect="none", evidence="not_sent")
    stage.operator.book("b-unknown", str(unknown), "p1", 500)
    await stage.fleet.start("host-1")
    async with outcomes(database.owner) as heard:
        await pause(ledger)
        for ended, effect in ((unknown, "unknown"), (never_left, "none")):
            await heard.of(ended, within_s=1.0 + OWN_TURN_S)
            assert await fate_of(ledger, ended) == ("exhausted", "paused", effect, 1)
    assert (await ledger.bet("b-never-left"))["state"] == "void"
    [rollback] = await ledger.rollbacks("b-unknown")
    await looks_on(stage, 1)
    assert await fate_of(ledger, rollback["request_id"]) == ("ready", rollback["reason"], "none", 0)
    assert stage.operator.requests == []
    await resume(ledger)
    await stage.all_final()
    assert stage.operator.balance["p1"] == 0
    assert stage.operator.faults == await stage.audit_faults() == []


async def test_a_pause_while_the_circuit_is_open_stops_the_pings_and_its_end_brings_them_back(stage: Stage) -> None:
    stage.fleet.write_operator(
        stage.operator.url, interactive={"max_attempts": 1}, circuit={"failure_threshold": 2, "open_s": 0.2}
    )
    await stage.fleet.start("host-1")
    stage.operator.answer = failing()
    await has_ended(stage, *[await ask_balance(stage) for _ in range(2)])
    await until("the operator is pinged", lambda: len(pings(stage.operator)) >= 2)
    await pause(stage.ledger)
    await looks_on(stage, 1)
    reached = len(stage.operator.requests)
    refused = await ask_balance(stage)
    await has_ended(stage, refused)
    assert (await fate_of(stage.ledger, refused))[1] == "paused"
    await looks_on(stage, 2)
    assert len(stage.operator.requests) == reached
    stage.operator.answer = lambda _: None
    await resume(stage.ledger)

    async def it_is_closed() -> bool:
        return bool(
            await stage.ledger.owner.fetchval("select circuit = 'closed' from predictu_dispatch.operator limit 1")
        )

    await until("a PING was answered", it_is_closed)


# ------------------------------------------------------------------------------------------------- fairness of expire()

CROWD = 5_000
OF_A_CROWD = """
    insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params, due_at, expires_at)
    select $1, gen_random_uuid(), 'BALANCE', 'interactive', 'ready', '{"n":0}',
           now() - n * interval '1 second', case when $2 then now() - interval '1 hour' end
      from generate_series(1, $3) n
"""


async def know(ledger: Ledger, operator_id: str) -> None:
    """The operator exists; no daemon has to have its file."""
    await ledger.owner.execute(
        "insert into predictu_dispatch.operator (operator_id, enabled, interactive_deadline_s, settlement_deadline_s,"
        " config_fingerprint) values ($1, true, 15, 0, 'f')",
        operator_id,
    )


@pytest.mark.parametrize("crowd", ["overdue", "refused"])
@pytest.mark.parametrize("crowded", ["op_a", "op_z"])
async def test_one_operators_crowd_keeps_no_other_operators_deadline_waiting(
    ledger: Ledger, crowd: str, crowded: str
) -> None:
    await know(ledger, crowded)
    await ledger.owner.execute(OF_A_CROWD, crowded, crowd == "overdue", CROWD)
    if crowd == "refused":
        await pause(ledger, crowded)
    balance = await enqueue(ledger.producer, "BALANCE", {"player_id": "p1", "currency": "EUR"})
    bet = await ledger.place()
    for request_id in (balance, bet):
        await ledger.let_deadline_pass(request_id)
    changes = await ledger.daemon.fetch("select * from predictu_dispatch.expire(100)")
    assert [await fate_of(ledger, one) for one in (balance, bet)] == [("exhausted", "deadline", "none", 0)] * 2
    assert (await ledger.bet())["state"] == "void"
    assert sum(change["operator_id"] == crowded for change in changes) == 100


async def test_of_those_that_are_refused_the_newest_end_first(ledger: Ledger) -> None:
    """Whoever asked last is still there to hear it."""
    await know(ledger, "op_a")
    await ledger.owner.execute(OF_A_CROWD, "op_a", False, 300)  # noqa: FBT003 - a parameter of the statement
    placed = [
        await enqueue(ledger.producer, "BET_MAKE", placement_params(f"b-{n}"), operator_id="op_a") for n in range(30)
    ]
    await pause(ledger, "op_a")
    await ledger.daemon.fetch("select * from predictu_dispatch.expire(10)")
    assert (
        await ledger.owner.fetchval(
            "select array_agg(state = 'exhausted' order by due_at desc) from predictu_dispatch.callback"
            " where method = 'BALANCE'"
        )
        == [True] * 10 + [False] * 290
    )
    assert [await ledger.state(one) for one in placed] == ["ready"] * 20 + ["exhausted"] * 10


async def test_a_bet_that_somebody_holds_is_passed_by_and_ends_with_the_next_call(
    ledger: Ledger, database: Database
) -> None:
    held, free = await ledger.place("b-held"), await ledger.place("b-free")
    await pause(ledger)
    async with connected(database.owner, 1) as [holder]:
        async with holder.transaction():
            await holder.execute("select from predictu_dispatch.bet where bet_id = 'b-held' for update")
            await ledger.daemon.fetch("select * from predictu_dispatch.expire(100)", timeout=5.0)
            assert [await ledger.state(one) for one in (held, free)] == ["ready", "exhausted"]
        await ledger.daemon.fetch("select * from predictu_dispatch.expire(100)")
    assert await fate_of(ledger, held) == ("exhausted", "paused", "none", 0)
