"""An operator is pinged once per interval by one daemon of the fleet, as a normal callback."""

import itertools
import json

from tests.support.circuits import (
    OWN_TURN_S,
    enqueue_balance,
    failing,
    operator_row,
    pings,
    print_figures,
    until_final,
    until_heartbeats_sent,
    until_operator_is,
)
from tests.support.daemons import until
from tests.support.environment import OTHER, Environment, another_operator
from tests.support.harness import OPERATOR

INTERVAL_S = 0.4


def write_operator(
    environment: Environment, *, ping_interval_s: float = INTERVAL_S, open_s: float = INTERVAL_S
) -> None:
    environment.fleet.write_operator(
        environment.operator.url,
        circuit={"failure_threshold": 3, "open_s": open_s},
        health={"ping_interval_s": ping_interval_s},
    )


async def more_pings(environment: Environment, count: int) -> None:
    """Wait for `count` more PINGs at the operator."""
    wanted = len(pings(environment.operator)) + count
    await until(f"{count} more PINGs", lambda: len(pings(environment.operator)) >= wanted)


async def test_two_daemons_send_one_ping_per_interval_through_the_normal_path(environment: Environment) -> None:
    write_operator(environment)
    daemons = [await environment.fleet.start(instance) for instance in ("host-1", "host-2")]
    await more_pings(environment, 6)
    sent = pings(environment.operator)
    intervals_s = [later.arrived_at_s - sooner.arrived_at_s for sooner, later in itertools.pairwise(sent)]
    print_figures(f"from PING to PING: {[round(interval, 3) for interval in intervals_s]} s")
    # At least the interval on the database's clock; the arrival varies by a claim's delay.
    assert min(intervals_s) > INTERVAL_S / 2
    assert sorted(intervals_s)[len(intervals_s) // 2] < INTERVAL_S + OWN_TURN_S
    assert sum(intervals_s) > INTERVAL_S * len(intervals_s) - 0.1
    assert {json.dumps(ping.envelope["params"]) for ping in sent} == {"{}"}

    for daemon in daemons:
        daemon.terminate()
        assert await daemon.exited() == 0
    # Signed, one attempt, an audit row, as for any other callback.
    assert environment.operator.faults == await environment.audit_faults() == []
    rows = await environment.harness.owner.fetch(
        "select c.method, c.lane, c.attempts, c.state, a.verdict, a.evidence, c.expires_at is null as is_endless"
        "  from predictu_dispatch.callback c join predictu_dispatch.attempt a using (operator_id, request_id)"
    )
    assert {tuple(found) for found in rows} == {("PING", "interactive", 1, "delivered", "delivered", "answered", False)}
    assert len(rows) == len(pings(environment.operator))


async def test_health_goes_from_unknown_to_healthy_degraded_down_and_back(environment: Environment) -> None:
    write_operator(environment)
    environment.operator.hold()
    daemon = await environment.fleet.start("host-1")
    await until("the first PING is under way", lambda: environment.operator.live.total() == 1)
    before = await operator_row(environment)
    assert (before["health"], before["last_success_at"], before["last_failure_at"]) == ("unknown", None, None)
    # Before the first answer the metric is absent.
    assert await daemon.metric("operator_up", OPERATOR) is None
    environment.operator.release()
    await until_operator_is(environment, health="healthy", consecutive_failures=0, circuit="closed")
    healthy = await operator_row(environment)
    assert healthy["last_success_at"] is not None
    assert healthy["last_failure_at"] is None

    environment.operator.answer = failing()
    await until_operator_is(environment, health="degraded", circuit="closed")
    degraded = await operator_row(environment)
    assert degraded["consecutive_failures"] in (1, 2)
    assert degraded["last_success_at"] <= degraded["last_failure_at"]
    await until_operator_is(environment, health="down")
    down = await operator_row(environment)
    assert down["consecutive_failures"] >= 3
    assert down["last_failure_at"] > degraded["last_failure_at"]
    assert down["circuit"] in ("open", "half_open")

    async def is_up(figure: float) -> bool:
        return await daemon.metric("operator_up", OPERATOR) == figure

    await until("the metric says down", lambda: is_up(0))
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, health="healthy", consecutive_failures=0, circuit="closed")
    assert (await operator_row(environment))["last_success_at"] > down["last_failure_at"]
    await until("the metric says up", lambda: is_up(1))
    # PINGs continue.
    await more_pings(environment, 3)


async def test_last_success_at_of_a_healthy_operator_is_at_most_seconds_old(environment: Environment) -> None:
    """Not every answer is written, because each update writes the operator's row."""
    write_operator(environment, ping_interval_s=0)
    await environment.fleet.start("host-1")
    await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(environment, health="healthy")
    first = (await operator_row(environment))["last_success_at"]

    async def a_later_one_is_told() -> bool:
        await until_final(environment, await enqueue_balance(environment))
        return bool((await operator_row(environment))["last_success_at"] > first)

    await until("a later success is written", a_later_one_is_told, within_s=8.0)


async def test_no_pings_with_an_interval_of_zero_or_for_a_disabled_operator(environment: Environment) -> None:
    write_operator(environment, ping_interval_s=0)
    async with another_operator(environment, enabled=False, health={"ping_interval_s": 0.05}) as disabled:
        for instance in ("host-1", "host-2"):
            await environment.fleet.start(instance)
        await until_final(environment, await enqueue_balance(environment))
        await until_heartbeats_sent(environment, 3)
    assert [request.method for request in environment.operator.requests] == ["BALANCE"]
    assert disabled.requests == []
    for operator_id in (OPERATOR, OTHER):
        found = await operator_row(environment, operator_id)
        assert (found["ping_at"], found["ping_request_id"]) == (None, None)
