"""The rate limit over a changing fleet, as the operator counts arrivals in any second.

A busy machine may suspend the test's process, which then sees several arrivals at once. The bounds
allow for the longest such suspension.
"""

import faulthandler
import os
import signal
import statistics
import time
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from tests.support.bulk import (
    PAYOUT,
    STAKE,
    EventLoopStalls,
    longest_gap_s,
    max_requests_within,
    measure_stalls,
    place_many,
    rates,
    win_many,
)
from tests.support.circuits import pings, until_nothing_in_flight, until_operator_is
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment
from tests.support.operators import Request

A, B, C, D = "host-a", "host-b", "host-c", "host-d"
LATENESS_S = 0.05
"""A burst is one request and this many seconds' worth of the rate."""
IS_FULL = os.environ.get("TEST_SIZE") == "full"
"""The size of the outage's backlog; TEST_SIZE=full uses 10,000."""
BACKLOG, BACKLOG_RATE = (10_000, 400) if IS_FULL else (1_200, 200)


def limit_rate(environment: Environment, requests_per_s: float, **sections: Any) -> None:
    environment.fleet.write_operator(
        environment.operator.url, limits={"max_requests_per_s": requests_per_s}, **sections
    )


async def shares_are(environment: Environment, **expected: float) -> None:
    """Wait until the rate is divided like this."""
    wanted = {name.replace("_", "-"): rate for name, rate in expected.items()}

    async def so_it_is() -> bool:
        return await rates(environment) == wanted

    await until(f"the rates are {wanted}", so_it_is, within_s=15)


async def arrives(environment: Environment, count: int) -> list[Request]:
    """Count only from now on, and wait for `count` more requests."""
    before = len(environment.operator.requests)
    await until(f"{count} more have arrived", lambda: len(environment.operator.requests) >= before + count)
    return environment.operator.requests[before:]


def seen_rate(requests: list[Request]) -> float:
    return (len(requests) - 1) / (requests[-1].arrived_at_s - requests[0].arrived_at_s)


def assert_within(requests: list[Request], limit: float, standstill: EventLoopStalls) -> None:
    """Check that no second has more than 1.2 times the limit, except for our own suspensions."""
    assert max_requests_within(requests) <= 1.2 * limit * (1 + standstill.longest_s) + 1


async def test_three_daemons_keep_the_rate_while_one_is_killed_and_another_starts(environment: Environment) -> None:
    limit = 60
    limit_rate(environment, limit)
    await win_many(environment, 2_000)
    async with measure_stalls() as standstill:
        _, _, killed = await environment.fleet.start_all(A, B, C)
        await shares_are(environment, host_a=20, host_b=20, host_c=20)
        quiet = await arrives(environment, 3 * limit)
        killed.kill()
        await environment.fleet.start(D)
        await shares_are(environment, host_a=20, host_b=20, host_d=20)
        quiet_again = await arrives(environment, 3 * limit)
    assert_within(environment.operator.requests, limit, standstill)
    # Nearly all of the rate is used; being up to 50 ms late costs nothing.
    assert min(seen_rate(quiet), seen_rate(quiet_again)) > 0.85 * limit
    # Until the killed daemon's share was redistributed, the others kept theirs.
    assert longest_gap_s(environment.operator.requests) < 0.5 + standstill.longest_s
    assert environment.operator.faults == []


@pytest.mark.parametrize("limit", [2, 5])
async def test_three_daemons_keep_and_use_a_rate_of_a_few_per_second(environment: Environment, limit: int) -> None:
    """One daemon has the whole rate, because three could send at the same time."""
    limit_rate(environment, limit)
    await environment.fleet.start_all(A, B, C)
    await shares_are(environment, host_a=limit, host_b=0, host_c=0)
    began_at_s = time.time()
    await win_many(environment, 100)
    requests = await arrives(environment, 4 * limit)
    # On a slow machine several may arrive at once, but none before its time.
    due = [1 + limit * (request.arrived_at_s - began_at_s + LATENESS_S) for request in requests]
    assert [number for number, allowed in enumerate(due, start=1) if number > allowed] == []
    # A third of the rate would be too little.
    assert seen_rate(requests) > 0.5 * limit


async def test_an_idle_lane_uses_none_of_the_rate(environment: Environment) -> None:
    """Both lanes poll at the same times, bets first; settlements get the rest at once."""
    limit = 2
    limit_rate(environment, limit)
    await environment.fleet.start(A, daemon={"poll_interval_s": 0.5})
    await win_many(environment, 50)
    requests = await arrives(environment, 12)
    # The idle lane would use half of it.
    assert seen_rate(requests) > 0.7 * limit


async def test_a_bet_waits_only_a_few_intervals_of_the_rate_behind_settlements(environment: Environment) -> None:
    limit, daemons = 40, 2
    limit_rate(environment, limit)
    await environment.fleet.start_all(A, B)
    await shares_are(environment, host_a=20, host_b=20)
    await win_many(environment, 3_000)
    await arrives(environment, limit)
    interval_s = daemons / limit
    waited_s = []
    async with measure_stalls() as standstill:
        for n in range(20):
            enqueued_at_s = time.time()
            placement = await environment.harness.place(f"bet-{n}")
            waited_s.append((await arrival(environment, placement)).arrived_at_s - enqueued_at_s)
    assert statistics.median(waited_s) < 3 * interval_s
    assert max(waited_s) < 10 * interval_s + standstill.longest_s
    # A burst of bets gets the whole rate.
    before = len(environment.operator.requests)
    await place_many(environment, 3 * limit)
    await until("all bets have arrived", lambda: bets_since(environment, before) == 3 * limit)
    settlements = sum(request.method == "BET_WIN" for request in environment.operator.requests[before:])
    assert settlements < limit


async def arrival(environment: Environment, request_id: UUID) -> Request:
    await until("the bet has arrived", lambda: bool(environment.operator.sent(request_id)))
    return environment.operator.sent(request_id)[0]


def bets_since(environment: Environment, before: int) -> int:
    return sum(request.method == "BET_MAKE" for request in environment.operator.requests[before:])


async def test_a_changed_rate_applies_within_seconds_of_a_reload(environment: Environment) -> None:
    limit_rate(environment, 20)
    daemons = await environment.fleet.start_all(A, B)
    await shares_are(environment, host_a=10, host_b=10)
    await win_many(environment, 3_000)
    assert seen_rate(await arrives(environment, 40)) < 1.2 * 20 * 1.2
    await reload(environment, daemons, 120, host_a=60, host_b=60)
    assert seen_rate(await arrives(environment, 240)) > 0.8 * 120
    await reload(environment, daemons, 10, host_a=10, host_b=0)
    async with measure_stalls() as standstill:
        requests = await arrives(environment, 30)
    assert_within(requests, 10, standstill)
    assert seen_rate(requests) > 0.8 * 10


async def reload(environment: Environment, daemons: list[Daemon], requests_per_s: float, **expected: float) -> None:
    """Reload all daemons with this rate and wait until they use it."""
    limit_rate(environment, requests_per_s)
    for daemon in daemons:
        daemon.process.send_signal(signal.SIGHUP)
    await shares_are(environment, **expected)


async def test_after_a_long_outage_the_backlog_is_delivered_within_the_limits(environment: Environment) -> None:
    """Thousands of settlements were enqueued during the outage; each is delivered once."""
    if IS_FULL:
        # The time limit is for tests that hang; TEST_SIZE=full runs for minutes.
        faulthandler.cancel_dump_traceback_later()
    slots = 16
    limit_rate(
        environment, BACKLOG_RATE, circuit={"failure_threshold": 5, "open_s": 0.5}, settlement={"max_in_flight": slots}
    )
    # Long enough for concurrent requests to overlap.
    environment.operator.answers_in_s = 0.02
    environment.operator.answer = lambda _: web.Response(status=503)
    await environment.fleet.start_all(A, B, C)
    await win_many(environment, BACKLOG)
    await until_operator_is(environment, circuit="open")
    await until_nothing_in_flight(environment)
    environment.operator.requests.clear()
    environment.operator.busiest.clear()
    async with measure_stalls() as standstill:
        environment.operator.answer = lambda _: None
        await until_operator_is(environment, circuit="closed")
        back_at_s = pings(environment.operator)[-1].arrived_at_s
        await until("half a second has passed", lambda: time.time() > back_at_s + 0.5)
        in_half_a_second, at_once = len(environment.operator.requests), environment.operator.busiest["settlement"]
        environment.operator.answers_in_s = 0.002
        # Unless a busy machine cannot keep up with the rate.
        await environment.until_all_final(within_s=3 * BACKLOG / BACKLOG_RATE + 10)
    # At first one request at a time per daemon; a suspension may have lengthened the half second.
    assert at_once <= 3 * 2 ** int(2 * standstill.longest_s)
    assert in_half_a_second < BACKLOG_RATE / 2
    assert environment.operator.busiest["settlement"] <= slots
    assert_within(environment.operator.requests, BACKLOG_RATE, standstill)
    assert {state for state, count in (await environment.states()).items() if count} <= {"delivered", "exhausted"}
    assert await environment.bets() == {"closed": BACKLOG}
    assert environment.operator.faults == await environment.audit_faults() == []
    assert all(environment.operator.balance[f"p-{n}"] == PAYOUT - STAKE for n in range(BACKLOG))
