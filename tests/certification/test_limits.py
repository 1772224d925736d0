"""The number and the rate of a run's requests, on a clock of the test."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.certification.limits import BURST, Limits, RequestCapError

TAKES = st.lists(st.tuples(st.integers(1, 80), st.floats(0, 2)), min_size=1, max_size=60)


@given(takes=TAKES, requests_per_s=st.floats(0.5, 500))
def test_no_period_has_more_than_the_burst_and_its_share_of_the_rate(
    takes: list[tuple[int, float]], requests_per_s: float
) -> None:
    limits = Limits(requests_max=10_000, requests_per_s=requests_per_s)
    now_s, sent = 1000.0, []
    for requests, pause_s in takes:
        now_s += pause_s
        # The caller waits, then sends all at once.
        now_s += limits.take(requests, now_s)
        sent.append((now_s, requests))
    for first, (begin_s, _) in enumerate(sent):
        total = 0
        for at_s, requests in sent[first:]:
            total += requests
            assert total <= BURST + (at_s - begin_s) * requests_per_s + 80 + 1e-6


def test_sixty_four_may_go_at_once_and_the_next_waits_for_its_turn() -> None:
    limits = Limits(requests_max=1000, requests_per_s=200.0)
    assert [limits.take(1, 5.0) for _ in range(64)] == [0.0] * 64
    assert limits.take(1, 5.0) == pytest.approx(0.005)
    assert limits.take(1, 5.005) == pytest.approx(0.005)
    assert limits.take(64, 100.0) == 0.0


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    limits = Limits(requests_max=1000, requests_per_s=10.0)
    limits.take(64, 50.0)
    assert limits.take(1, 10.0) == pytest.approx(0.1)
    assert limits.take(1, 50.0) == pytest.approx(0.2)


def test_a_run_never_has_more_requests_than_its_cap() -> None:
    limits = Limits(requests_max=10, requests_per_s=200.0)
    limits.take(9, 0.0)
    message = "the run has sent 9 of at most 10 requests and needs 2 more; raise --max-requests"
    with pytest.raises(RequestCapError, match=message):
        limits.take(2, 0.0)
    assert limits.take(1, 0.0) == 0.0
    assert limits.taken == 10


def test_an_operator_that_puts_requests_off_halves_the_rate_once_and_it_rises_again() -> None:
    limits = Limits(requests_max=1000, requests_per_s=100.0)
    for _ in range(10):
        limits.slow_down(5.0, 1.0)
    assert limits.take(1, 5.0) == pytest.approx(1 / 50.5)
    limits.slow_down(6.0, 1.0)
    assert limits.burst == 16
    waits = [limits.take(1, 6.0) for _ in range(300)]
    assert limits.burst == 64
    assert waits[-1] - waits[-2] == pytest.approx(0.01)


def test_the_rate_never_falls_below_one_request_a_second() -> None:
    limits = Limits(requests_max=1000, requests_per_s=100.0)
    for second in range(20):
        limits.slow_down(float(second), 1.0)
    assert limits.take(1, 20.0) <= 1.0
    assert limits.burst == 1
