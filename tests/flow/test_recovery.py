"""How an open circuit closes again: its PING, and the slow start after an outage."""

import itertools
import math

import pytest

from predictu_dispatch.core.breaker import SLOW_START_STEP_S
from tests.support.circuits import (
    ONE_ATTEMPT,
    OPEN_S,
    OWN_TURN_S,
    THRESHOLD,
    enqueue_balance,
    failing,
    final_state,
    open_circuit,
    operator_row,
    others,
    pings,
    print_figures,
    until_final,
    until_heartbeats_sent,
    until_nothing_in_flight,
    until_operator_is,
    wins,
    write_operator,
)
from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR
from tests.support.operators import Request

NEVER_S = 600.0
"""Longer than any test: no PING is sent."""


async def test_an_open_circuit_gets_one_ping_every_open_s_from_the_whole_fleet(environment: Environment) -> None:
    write_operator(environment, open_s=OPEN_S)
    for instance in ("host-1", "host-2"):
        await environment.fleet.start(instance)
    await open_circuit(environment, THRESHOLD)
    opened_at_s = (await operator_row(environment))["circuit_since"].timestamp()
    reached = len(others(environment.operator))
    waiting_wins = await wins(environment, 5)
    periods = 6
    await until(f"{periods} PINGs", lambda: len(pings(environment.operator)) >= periods)
    arrivals_s = [opened_at_s, *(ping.arrived_at_s for ping in pings(environment.operator))]
    intervals_s = [later - sooner for sooner, later in itertools.pairwise(arrivals_s)]
    print_figures(f"from PING to PING: {[round(interval, 3) for interval in intervals_s]} s")
    # Never sooner; later by the time to decide and to claim.
    assert min(intervals_s) > OPEN_S - 0.01
    assert sorted(intervals_s)[len(intervals_s) // 2] < OPEN_S + OWN_TURN_S
    assert len({ping.request_id for ping in pings(environment.operator)}) == len(pings(environment.operator))
    assert len(others(environment.operator)) == reached
    assert {(await final_state(environment, win))[::3] for win in waiting_wins} == {("ready", 0)}
    assert (await operator_row(environment))["circuit_since"].timestamp() == opened_at_s
    assert environment.operator.faults == []


@pytest.mark.parametrize("failure", ["killed", "frozen"])
async def test_other_daemons_ping_after_the_daemon_with_the_ping_stops(environment: Environment, failure: str) -> None:
    """The PING's lease expires, it counts as failed, and another daemon sends the next one."""
    write_operator(environment, open_s=OPEN_S)
    daemons = {instance: await environment.fleet.start(instance) for instance in ("host-1", "host-2")}
    await open_circuit(environment, THRESHOLD)
    environment.operator.hold()
    await until("a PING is under way", lambda: environment.operator.live.total() == 1)
    lost = daemons[
        await environment.harness.owner.fetchval(
            "select leased_by from predictu_dispatch.callback where method = 'PING' and state = 'in_flight'"
        )
    ]
    if failure == "killed":
        lost.kill()
    else:
        lost.freeze()
    # The frozen daemon's PING was answered, but long ago.
    environment.operator.release()
    before = len(pings(environment.operator))
    await environment.expire_leases(lost.instance)
    await until("three more PINGs", lambda: len(pings(environment.operator)) >= before + 3)
    since = (await operator_row(environment))["circuit_since"]
    if failure == "frozen":
        lost.thaw()
        await lost.until_logged("lease.lost")
    await until_heartbeats_sent(environment, 1)
    assert (await operator_row(environment))["circuit_since"] == since
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed")
    await until_nothing_in_flight(environment)
    assert await environment.audit_faults() == []


async def test_a_half_open_circuit_of_a_crashed_daemon_is_decided_by_the_next(environment: Environment) -> None:
    """It crashed between starting the PING and its claim; another daemon claims that PING."""
    write_operator(environment, open_s=NEVER_S)
    daemon = await environment.fleet.start("host-1")
    await open_circuit(environment, THRESHOLD)
    daemon.kill()
    left = await environment.harness.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR)
    await until_operator_is(environment, circuit="half_open")
    environment.operator.answer = lambda _: None
    await environment.fleet.start("host-2")
    await until_operator_is(environment, circuit="closed", ping_request_id=left)
    assert [ping.request_id for ping in pings(environment.operator)] == [str(left)]


async def test_a_ping_that_no_daemon_may_send_expires_and_another_one_follows(environment: Environment) -> None:
    """The only slot belongs to a frozen daemon, so no other has a share until it is released."""
    one_slot = ONE_ATTEMPT | {"max_in_flight": 1, "deadline_s": 0.5, "attempt_timeout_s": 0.4, "connect_timeout_s": 0.4}
    write_operator(environment, open_s=OPEN_S, interactive=one_slot)
    holder = await environment.fleet.start("host-1")
    await environment.fleet.start("host-2")
    await open_circuit(environment, THRESHOLD)
    holder.freeze()
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed", within_s=15.0)
    ended = await environment.harness.owner.fetch(
        "select state, reason from predictu_dispatch.callback where method = 'PING' and attempts = 0"
    )
    assert {tuple(one) for one in ended} <= {("exhausted", "deadline")}
    assert len(pings(environment.operator)) >= 1


# Recovery


async def test_after_an_outage_the_slow_start_delivers_the_whole_backlog(environment: Environment) -> None:
    """The number of concurrent requests doubles with each step."""
    count = 40
    write_operator(environment, open_s=OPEN_S)
    await environment.fleet.start("host-1")
    await open_circuit(environment, THRESHOLD)
    waiting_wins = await wins(environment, count)
    reached = len(others(environment.operator))

    def answer_pings_and_hold_the_rest(request: Request) -> None:
        if request.method != "PING":
            environment.operator.hold()

    environment.operator.answer = answer_pings_and_hold_the_rest
    await until_operator_is(environment, circuit="closed")
    closed_at_s = (await operator_row(environment))["circuit_since"].timestamp()
    await until("eight at once", lambda: environment.operator.live.total() >= 8)
    arrivals_s = [request.arrived_at_s - closed_at_s for request in others(environment.operator)[reached:]]
    print_figures(f"after the closing: {[round(arrival, 3) for arrival in arrivals_s]} s")
    # The answer closes the circuit, before the PING is settled.
    assert closed_at_s - pings(environment.operator)[-1].arrived_at_s < OWN_TURN_S
    assert arrivals_s[0] < 1.0
    for concurrent, arrival_s in enumerate(arrivals_s, start=1):
        assert arrival_s > math.ceil(math.log2(concurrent)) * SLOW_START_STEP_S - 0.1, (
            f"{concurrent} at once after {arrival_s} s"
        )
    environment.operator.answer = lambda _: None
    environment.operator.release()
    await environment.until_all_final()
    assert {(await final_state(environment, win))[::3] for win in waiting_wins} == {("delivered", 1)}
    assert (await operator_row(environment))["circuit"] == "closed"
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_a_daemon_that_was_suspended_during_the_outage_does_not_reopen_the_circuit(
    environment: Environment,
) -> None:
    """It resumes with many failures, and has not read yet that the circuit opened and closed."""
    write_operator(environment, open_s=OPEN_S)
    sleeper = await environment.fleet.start("host-1")
    environment.operator.answer = failing()
    environment.operator.hold()
    hanging = await wins(environment, THRESHOLD + 1)
    await environment.until_in_flight(len(hanging))
    environment.operator.stop_holding()
    sleeper.freeze()
    await environment.fleet.start("host-2")
    for _ in range(THRESHOLD):
        await enqueue_balance(environment)
    await until_operator_is(environment, circuit="open")
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed")
    since = (await operator_row(environment))["circuit_since"]
    environment.operator.release()
    await until("the answers are on their way", lambda: environment.operator.live.total() == 0)
    sleeper.thaw()
    await until_final(environment, *hanging)
    await until_heartbeats_sent(environment, 1)
    assert (await operator_row(environment))["circuit_since"] == since
    assert sleeper.lines("circuit.opened") == []
