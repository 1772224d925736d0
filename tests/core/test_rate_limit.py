"""The rate, as a pure value: never above it in any span of time, nothing of it lost, whoever asks and however late."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictu_dispatch.core.rate_limit import Pace

LATENESS_S = 0.05
"""What may go at once after a silence is one request and so many seconds' worth: any second's rate
is 1.05 + 1."""
ROUNDING_S = 1e-6
TOLERANCE = 1e-6
"""For this test's own sums, in requests; a clock of months is exact to a hundredth of it."""
LATE_MOST_S = 0.025
"""A saturated user that waits for half a burst at a time may come so late each time and still loses
nothing."""

a_rate = st.one_of(st.floats(0.05, 100_000), st.sampled_from([0.5, 1.0, 2.0, 20.0, 60.0, 333.0, 1000.0]))
a_clock_s = st.floats(0, 1e7)
"""Monotonic clocks begin at the machine's start: months."""
a_pause = st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 3))
"""In intervals of the rate and in seconds, by turns: what comes at once, just before it is due,
after a silence."""
a_step = st.tuples(a_pause, st.booleans(), st.integers(0, 6_000), st.none() | a_rate)


@settings(max_examples=400, deadline=None)
@given(clock_s=a_clock_s, rate=a_rate, steps=st.lists(a_step, min_size=2, max_size=60))
def test_no_span_of_time_ever_sees_more_than_the_rate_and_one_burst(
    clock_s: float, rate: float, steps: list[tuple[float, bool, int, float | None]]
) -> None:
    """What is taken between two moments is at most what the rates between them add up to, and the last rate's burst."""
    pace, now_s, due = Pace(requests_per_s=rate), clock_s, 0.0
    taken: list[tuple[float, float, int]] = []
    for pause, in_intervals, wanted, other_rate in steps:
        before_s, now_s = now_s, now_s + (pause / pace.requests_per_s if in_intervals else pause)
        due += (now_s - before_s) * pace.requests_per_s
        if other_rate is not None:
            pace = pace.at_rate(other_rate, now_s)
        requests = min(wanted, pace.allowed(now_s))
        pace = pace.taken(requests, now_s)
        most = 1 + pace.requests_per_s * (LATENESS_S + ROUNDING_S)
        taken.append((due, most, requests))
    for first, (due_then, _, _) in enumerate(taken):
        sum_of_all = 0
        for due_now, most, requests in taken[first:]:
            sum_of_all += requests
            if requests:
                assert sum_of_all <= due_now - due_then + most + TOLERANCE * max(1.0, due_now)


@pytest.mark.parametrize("rate", [0.5, 1, 7, 20, 60, 100, 333.3, 1000])
def test_a_whole_second_sees_one_request_more_than_a_twentieth_above_the_rate_and_exactly_that(rate: float) -> None:
    """The bound is sharp: after a silence, somebody who takes whatever is allowed at once gets no request less."""
    pace, now_s, taken = Pace(requests_per_s=rate), 1000.0, 0
    while now_s <= 1001:
        requests = pace.allowed(now_s)
        pace, taken = pace.taken(requests, now_s), taken + requests
        now_s += max(pace.allowed_in_s(1, now_s), ROUNDING_S)
    assert taken == math.floor(rate * 1.05 + 1 + TOLERANCE)


@settings(max_examples=100, deadline=None)
@given(clock_s=a_clock_s, rate=a_rate, lateness=st.lists(st.floats(0, LATE_MOST_S), min_size=1, max_size=50))
def test_who_always_wants_more_gets_the_whole_rate_although_he_comes_late_each_time(
    clock_s: float, rate: float, lateness: list[float]
) -> None:
    """Nothing is lost by rounding or by lateness, at 1 request in 20 seconds as at 100,000 in one."""
    pace, now_s, taken = Pace(requests_per_s=rate), clock_s, 0
    for turn in range(500):
        requests = pace.allowed(now_s)
        assert requests > 0 or turn == 0
        pace, taken = pace.taken(requests, now_s), taken + requests
        now_s += pace.allowed_in_s(pace.batch, now_s) + lateness[turn % len(lateness)]
    due = (now_s - clock_s) * rate
    # But for what is due this moment and not taken yet; at most the burst, and so nothing in the
    # long run.
    assert due - pace.burst - TOLERANCE * due <= taken <= due + pace.burst + TOLERANCE * due
    assert taken >= 0.95 * (due - pace.burst)


@settings(max_examples=300, deadline=None)
@given(clock_s=a_clock_s, rate=a_rate, pauses=st.lists(a_pause, max_size=5), portion=st.floats(0, 1))
def test_the_time_until_some_may_go_is_neither_too_short_nor_too_long(
    clock_s: float, rate: float, pauses: list[float], portion: float
) -> None:
    pace, now_s = Pace(requests_per_s=rate), clock_s
    for pause in pauses:
        pace = pace.taken(pace.allowed(now_s), now_s)
        now_s += pause
    requests = max(1, int(portion * pace.burst))
    wait_s = pace.allowed_in_s(requests, now_s)
    assert pace.allowed(now_s + wait_s) >= requests
    early_s = 3 * ROUNDING_S
    if wait_s > early_s:
        assert pace.allowed(now_s + wait_s - early_s) < requests
    else:
        assert wait_s == 0 or pace.allowed(now_s + early_s) >= requests


@settings(max_examples=300, deadline=None)
@given(clock_s=a_clock_s, rate=a_rate, rates=st.lists(a_rate, min_size=1, max_size=5), portion=st.floats(0, 1))
def test_another_rate_keeps_what_is_used_up_and_no_change_back_and_forth_gains_a_request(
    clock_s: float, rate: float, rates: list[float], portion: float
) -> None:
    full = Pace(requests_per_s=rate)
    pace = full.taken(int(portion * full.burst), clock_s)
    left = pace.allowed(clock_s)
    changed = pace
    for other in rates:
        changed = changed.at_rate(other, clock_s)
        assert changed.requests_per_s == other
        used = (changed.next_s - clock_s) * other
        # The clock's last digit is worth the more requests, the higher the rate.
        assert used == pytest.approx(int(portion * full.burst), abs=ROUNDING_S / 10 * max(1.0, rate, *rates))
    assert changed.at_rate(rate, clock_s).allowed(clock_s) <= left


def test_a_rate_that_is_cut_to_a_tenth_waits_until_what_went_before_is_paid_for() -> None:
    pace = Pace(requests_per_s=100).taken(6, 1000.0)
    slower = pace.at_rate(10, 1000.0)
    assert slower.allowed(1000.0) == 0
    # Six are used, one and a half may be at once: four and a half have to become due again, and one
    # more to go.
    assert slower.allowed_in_s(1, 1000.0) == pytest.approx(0.55)
