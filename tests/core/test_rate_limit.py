"""The rate limit is never exceeded in any interval, and none of it is lost by late requests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictu_dispatch.core.rate_limit import RateLimit, SettlementPacing

LATENESS_S = 0.05
"""A burst is one request and this many seconds' worth of the rate."""
ROUNDING_S = 1e-6
TOLERANCE = 1e-6
"""The rounding error of this test's sums, in requests."""
LATE_MAX_S = 0.025
"""A caller that waits for half a burst at a time loses nothing if it is this late each time."""

a_rate = st.one_of(st.floats(0.05, 100_000), st.sampled_from([0.5, 1.0, 2.0, 20.0, 60.0, 333.0, 1000.0]))
a_clock_s = st.floats(0, 1e7)
"""A monotonic clock counts from the machine's start: months."""
a_pause = st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 3))
"""In intervals of the rate or in seconds: at once, just before a request is due, after a pause."""
a_step = st.tuples(a_pause, st.booleans(), st.integers(0, 6_000), st.none() | a_rate)


@settings(max_examples=400, deadline=None)
@given(clock_s=a_clock_s, rate=a_rate, steps=st.lists(a_step, min_size=2, max_size=60))
def test_no_interval_sees_more_than_the_rate_and_one_burst(
    clock_s: float, rate: float, steps: list[tuple[float, bool, int, float | None]]
) -> None:
    """At most the sum of the rates in between and the last rate's burst."""
    limit, now_s, due = RateLimit(requests_per_s=rate), clock_s, 0.0
    sent: list[tuple[float, float, int]] = []
    for pause, in_intervals, wanted, other_rate in steps:
        before_s, now_s = now_s, now_s + (pause / limit.requests_per_s if in_intervals else pause)
        due += (now_s - before_s) * limit.requests_per_s
        if other_rate is not None:
            limit = limit.at_rate(other_rate, now_s)
        requests = min(wanted, limit.allowed(now_s))
        limit = limit.used(requests, now_s)
        most = 1 + limit.requests_per_s * (LATENESS_S + ROUNDING_S)
        sent.append((due, most, requests))
    for first, (due_then, _, _) in enumerate(sent):
        sum_of_all = 0
        for due_now, most, requests in sent[first:]:
            sum_of_all += requests
            if requests:
                assert sum_of_all <= due_now - due_then + most + TOLERANCE * max(1.0, due_now)


@settings(max_examples=100, deadline=None)
@given(clock_s=a_clock_s, rate=a_rate, lateness=st.lists(st.floats(0, LATE_MAX_S), min_size=1, max_size=50))
def test_a_caller_that_is_always_late_still_gets_the_whole_rate(
    clock_s: float, rate: float, lateness: list[float]
) -> None:
    """Neither rounding nor lateness loses requests, from 1 in 20 seconds to 100,000 in one."""
    limit, now_s, sent = RateLimit(requests_per_s=rate), clock_s, 0
    for turn in range(500):
        requests = limit.allowed(now_s)
        assert requests > 0 or turn == 0
        limit, sent = limit.used(requests, now_s), sent + requests
        now_s += limit.allowed_in_s(limit.batch, now_s) + lateness[turn % len(lateness)]
    due = (now_s - clock_s) * rate
    # The difference is what is due now and not sent yet: at most one burst.
    assert due - limit.burst - TOLERANCE * due <= sent <= due + limit.burst + TOLERANCE * due
    assert sent >= 0.95 * (due - limit.burst)


@settings(max_examples=300, deadline=None)
@given(clock_s=a_clock_s, rate=a_rate, pauses=st.lists(a_pause, max_size=5), portion=st.floats(0, 1))
def test_the_time_until_requests_are_allowed_is_exact(
    clock_s: float, rate: float, pauses: list[float], portion: float
) -> None:
    limit, now_s = RateLimit(requests_per_s=rate), clock_s
    for pause in pauses:
        limit = limit.used(limit.allowed(now_s), now_s)
        now_s += pause
    requests = max(1, int(portion * limit.burst))
    wait_s = limit.allowed_in_s(requests, now_s)
    assert limit.allowed(now_s + wait_s) >= requests
    early_s = 3 * ROUNDING_S
    if wait_s > early_s:
        assert limit.allowed(now_s + wait_s - early_s) < requests
    else:
        assert wait_s == 0 or limit.allowed(now_s + early_s) >= requests


@settings(max_examples=300, deadline=None)
@given(clock_s=a_clock_s, rate=a_rate, rates=st.lists(a_rate, min_size=1, max_size=5), portion=st.floats(0, 1))
def test_a_change_of_rate_keeps_what_is_used_and_gains_no_request(
    clock_s: float, rate: float, rates: list[float], portion: float
) -> None:
    full = RateLimit(requests_per_s=rate)
    limit = full.used(int(portion * full.burst), clock_s)
    left = limit.allowed(clock_s)
    changed = limit
    for other in rates:
        changed = changed.at_rate(other, clock_s)
        assert changed.requests_per_s == other
        used = (changed.next_s - clock_s) * other
        # The clock's rounding error is worth more requests at a higher rate.
        assert used == pytest.approx(int(portion * full.burst), abs=ROUNDING_S / 10 * max(1.0, rate, *rates))
    assert changed.at_rate(rate, clock_s).allowed(clock_s) <= left


def test_settlements_step_back_for_one_second_after_the_last_bet() -> None:
    pacing = SettlementPacing()
    assert (pacing.gather_s(0.0), pacing.spacing_s(0.0)) == (0.0, 0.0)
    pacing.bets_claimed(1, 10.0)
    assert (pacing.gather_s(10.9), pacing.spacing_s(10.9)) == (0.025, 0.003)
    assert (pacing.gather_s(11.0), pacing.spacing_s(11.0)) == (0.0, 0.0)


def test_settlements_start_at_least_as_fast_as_bets() -> None:
    pacing = SettlementPacing()
    pacing.bets_claimed(1, 10.0)
    pacing.bets_claimed(1000, 12.0)
    assert pacing.spacing_s(12.0) == pytest.approx(0.6 / 500)
