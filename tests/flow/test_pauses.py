"""Pauses: nothing is sent to a paused operator, and no attempt is used."""

import time
from uuid import UUID

import pytest

from tests.support.circuits import (
    enqueue_balance,
    failing,
    outcomes,
    pings,
    print_figures,
    until_final,
    until_heartbeats_sent,
)
from tests.support.daemons import until
from tests.support.environment import OTHER, Environment, another_operator
from tests.support.harness import OPERATOR, Harness, enqueue, placement_params
from tests.support.postgres import Database


async def pause(harness: Harness, operator_id: str = OPERATOR) -> None:
    await harness.owner.execute("select predictu_dispatch.pause_operator($1, 'maintenance', 'alice')", operator_id)


async def resume(harness: Harness, operator_id: str = OPERATOR) -> None:
    await harness.owner.execute("select predictu_dispatch.resume_operator($1, null, 'alice')", operator_id)


async def final_state(harness: Harness, request_id: UUID) -> tuple[str, str | None, str, int]:
    """State, reason, effect and attempts of the callback."""
    callback = await harness.callback(request_id)
    return callback["state"], callback["reason"], callback["effect"], callback["attempts"]


async def test_while_paused_bets_end_at_once_and_credits_wait(environment: Environment, database: Database) -> None:
    environment.fleet.write_operator(environment.operator.url, health={"ping_interval_s": 0.2})
    harness = environment.harness
    await environment.adopt("b-to-pay")
    await environment.adopt("b-to-roll-back")
    async with another_operator(environment) as other:
        daemons = [await environment.fleet.start(instance) for instance in ("host-1", "host-2")]
        await until("the operator is pinged", lambda: len(pings(environment.operator)) >= 1)
        await pause(harness)
        await until_heartbeats_sent(environment, 1)
        reached = len(environment.operator.requests)
        took_ms = []
        async with outcomes(database.owner) as outcome_times:
            for n in range(8):
                enqueued = await (harness.place(f"b-{n}") if n % 2 else enqueue_balance(environment))
                committed_at_s = time.monotonic()
                took_ms.append((await outcome_times.of(enqueued) - committed_at_s) * 1000)
                assert await final_state(harness, enqueued) == ("exhausted", "paused", "none", 0)
        print_figures(f"commit to outcome: {sorted(round(ms, 1) for ms in took_ms)} ms")
        assert sorted(took_ms)[len(took_ms) // 2] < 250
        assert {(await harness.bet(f"b-{n}"))["state"] for n in range(1, 8, 2)} == {"void"}

        rollback = await harness.rollback("b-to-roll-back")
        win = await harness.end("BET_WIN", "b-to-pay")
        assert rollback is not None
        # The other operator is not affected.
        placed = await enqueue(harness.producer, "BET_MAKE", placement_params("b-other"), operator_id=OTHER)
        await until_final(environment, placed)
        assert await final_state(harness, placed) == ("delivered", None, "applied", 1)
        await until_heartbeats_sent(environment, 2)
        assert len(environment.operator.requests) == reached
        for waiting in (rollback, win):
            assert (await final_state(harness, waiting))[::3] == ("ready", 0)

        resumed_at_s = time.time()
        await resume(harness)
        await until_final(environment, rollback, win)
        arrivals_s = [environment.operator.sent(one)[0].arrived_at_s - resumed_at_s for one in (rollback, win)]
        print_figures(f"after the resuming: {[round(arrival, 3) for arrival in arrivals_s]} s")
        assert max(arrivals_s) < 1.0
        before = len(pings(environment.operator))
        await until("it is pinged again", lambda: len(pings(environment.operator)) > before)
        for daemon in daemons:
            daemon.terminate()
            assert await daemon.exited() == 0
        assert (
            [fault for one in (environment.operator, other) for fault in one.faults]
            == await environment.audit_faults()
            == []
        )


async def test_retries_wait_and_attempts_in_flight_finish(environment: Environment) -> None:
    """Requests sent before the pause may still be answered; nothing is retried during it."""
    harness = environment.harness
    for n in range(4):
        await environment.adopt(f"b-{n}")
    await environment.fleet.start("host-1")
    environment.operator.hold()
    answered = [await harness.end("BET_WIN", f"b-{n}") for n in range(2)]
    await environment.until_in_flight(2)
    environment.operator.answer = failing()
    failed = [await harness.end("BET_WIN", f"b-{n}") for n in range(2, 4)]
    await environment.until_in_flight(4)
    await pause(harness)
    await until_heartbeats_sent(environment, 1)
    environment.operator.release()
    await until_final(environment, *answered)

    async def both_are_to_be_retried() -> bool:
        return [(await final_state(harness, win))[0] for win in failed] == ["ready", "ready"]

    await until("the others are to be retried", both_are_to_be_retried)
    await until_heartbeats_sent(environment, 2)
    assert [await final_state(harness, win) for win in answered] == [("delivered", None, "applied", 1)] * 2
    assert [await final_state(harness, win) for win in failed] == [("ready", "http_500", "unknown", 1)] * 2
    assert len(environment.operator.requests) == 4
    environment.operator.answer = lambda _: None
    await resume(harness)
    await until_final(environment, *failed, within_s=5.0)
    assert [await final_state(harness, win) for win in failed] == [("delivered", None, "applied", 2)] * 2
    assert environment.operator.faults == await environment.audit_faults() == []


# Fairness of expire()

CROWD = 5_000
OF_A_CROWD = """
    insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params, due_at, expires_at)
    select $1, gen_random_uuid(), 'BALANCE', 'interactive', 'ready', '{"n":0}',
           now() - n * interval '1 second', case when $2 then now() - interval '1 hour' end
      from generate_series(1, $3) n
"""


async def know(harness: Harness, operator_id: str) -> None:
    """Insert the operator; no daemon needs its file."""
    await harness.owner.execute(
        "insert into predictu_dispatch.operator (operator_id, enabled, interactive_deadline_s, settlement_deadline_s,"
        " config_fingerprint) values ($1, true, 15, 0, 'f')",
        operator_id,
    )


@pytest.mark.parametrize("bulk", ["overdue", "refused"])
@pytest.mark.parametrize("crowded", ["op_a", "op_z"])
async def test_many_overdue_callbacks_of_one_operator_delay_no_other_operators_deadline(
    harness: Harness, bulk: str, crowded: str
) -> None:
    await know(harness, crowded)
    await harness.owner.execute(OF_A_CROWD, crowded, bulk == "overdue", CROWD)
    if bulk == "refused":
        await pause(harness, crowded)
    balance = await enqueue(harness.producer, "BALANCE", {"player_id": "p1", "currency": "EUR"})
    bet = await harness.place()
    for request_id in (balance, bet):
        await harness.let_deadline_pass(request_id)
    changes = await harness.daemon.fetch("select * from predictu_dispatch.expire(100)")
    assert [await final_state(harness, one) for one in (balance, bet)] == [("exhausted", "deadline", "none", 0)] * 2
    assert (await harness.bet())["state"] == "void"
    assert sum(change["operator_id"] == crowded for change in changes) == 100


async def test_of_a_paused_operators_callbacks_the_newest_end_first(harness: Harness) -> None:
    """The newest callers still wait."""
    await know(harness, "op_a")
    await harness.owner.execute(OF_A_CROWD, "op_a", False, 300)  # noqa: FBT003 - a parameter of the statement
    placed = [
        await enqueue(harness.producer, "BET_MAKE", placement_params(f"b-{n}"), operator_id="op_a") for n in range(30)
    ]
    await pause(harness, "op_a")
    await harness.daemon.fetch("select * from predictu_dispatch.expire(10)")
    assert (
        await harness.owner.fetchval(
            "select array_agg(state = 'exhausted' order by due_at desc) from predictu_dispatch.callback"
            " where method = 'BALANCE'"
        )
        == [True] * 10 + [False] * 290
    )
    assert [await harness.state(one) for one in placed] == ["ready"] * 20 + ["exhausted"] * 10
