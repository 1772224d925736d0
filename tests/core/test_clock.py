"""What a daemon concludes from its readings of the database's clock."""

import pytest

from predictu_dispatch.core.clock import FOLLOWED_MAX_S, STEP_MIN_S, ClockReading, DatabaseClock

HOST_AT_S = 1_700_000_000.0
"""The Unix time at the monotonic time 0."""


def read(clock: DatabaseClock, at_s: float, *, shift_s: float = 0.0, took_s: float = 0.001) -> None:
    """The database answers `shift_s` ahead of the host, in the middle of a statement."""
    clock.observe(ClockReading(HOST_AT_S + at_s + shift_s, at_s - took_s / 2, at_s + took_s / 2))


def steady(*, shift_s: float = 0.0) -> DatabaseClock:
    """A clock that was read every half second until the monotonic time 20."""
    clock = DatabaseClock()
    for n in range(41):
        read(clock, n / 2, shift_s=shift_s)
    return clock


def test_a_clock_that_was_never_read_is_not_steady_and_tokens_have_the_hosts_time() -> None:
    clock = DatabaseClock()
    assert clock.steady_for_s(1000.0) < 0
    assert clock.ahead_of_host_s(HOST_AT_S, 0.0) is None
    assert clock.issued_at_s(HOST_AT_S, 0.0) == HOST_AT_S


def test_it_is_steady_since_the_first_reading() -> None:
    clock = steady()
    assert clock.steady_for_s(20.0) == pytest.approx(20.0, abs=0.01)
    assert clock.take_steps() == []


@pytest.mark.parametrize("step_s", [-3600.0, -0.5, 0.5, 3600.0])
def test_a_step_in_either_direction_begins_the_steady_time_again(step_s: float) -> None:
    clock = steady()
    read(clock, 20.5, shift_s=step_s)
    assert clock.take_steps() == [pytest.approx(step_s, abs=0.01)]
    assert clock.take_steps() == []
    read(clock, 21.0, shift_s=step_s)
    assert clock.steady_for_s(21.0) == pytest.approx(0.5, abs=0.01)
    assert clock.stepped_s_ago(21.0) == pytest.approx(0.5, abs=0.01)


def test_a_step_there_and_back_is_two_steps() -> None:
    clock = steady()
    read(clock, 20.5, shift_s=-3600.0)
    read(clock, 21.0)
    assert [round(step_s) for step_s in clock.take_steps()] == [-3600, 3600]


def test_drift_and_a_slow_statement_are_no_step_and_a_step_during_a_slow_statement_is_seen() -> None:
    clock = steady()
    for n in range(10):
        read(clock, 20.5 + n / 2, shift_s=n * STEP_MIN_S / 2)
    drift_s = 9 * STEP_MIN_S / 2
    read(clock, 30.0, shift_s=drift_s + 2.0, took_s=8.0)
    assert clock.take_steps() == []
    # The slow reading allowed it, the next exact one shows it.
    read(clock, 30.5, shift_s=drift_s + 2.0)
    assert clock.take_steps() == [pytest.approx(2.0, abs=0.01)]


def test_over_a_long_distance_it_is_as_steady_and_expects_statements_when_they_arrive() -> None:
    clock = DatabaseClock()
    for n in range(200):
        read(clock, n / 2, shift_s=n * 0.01, took_s=0.6 + 0.1 * (n % 3))
    assert clock.take_steps() == []
    assert clock.steady_for_s(99.5) == pytest.approx(99.5, abs=0.5)
    # The readings take a third of a second in each direction, and the last shift is 1.99 s.
    assert clock.at_arrival_s(100.0) == pytest.approx(HOST_AT_S + 100.0 + 1.99 + 0.35, abs=0.1)


def test_nothing_is_known_of_a_time_without_readings() -> None:
    clock = steady()
    read(clock, 60.0)
    assert clock.steady_for_s(60.0) == pytest.approx(0.0, abs=0.01)
    assert clock.take_steps() == []


@pytest.mark.parametrize("shift_s", [-29.9, -2.0, 0.0, 2.0, 29.9])
def test_tokens_follow_the_database_and_are_never_issued_in_its_future(shift_s: float) -> None:
    issued_at_s = steady(shift_s=shift_s).issued_at_s(HOST_AT_S + 25.0, 25.0)
    assert issued_at_s <= HOST_AT_S + 25.0 + shift_s
    assert issued_at_s == pytest.approx(HOST_AT_S + 25.0 + shift_s, abs=0.01)


@pytest.mark.parametrize("shift_s", [-3600.0, -FOLLOWED_MAX_S - 1, FOLLOWED_MAX_S + 1, 3600.0])
def test_tokens_have_the_hosts_time_if_the_clocks_differ_by_half_a_minute(shift_s: float) -> None:
    clock = steady(shift_s=shift_s)
    assert clock.issued_at_s(HOST_AT_S + 25.0, 25.0) == HOST_AT_S + 25.0
    assert clock.ahead_of_host_s(HOST_AT_S + 25.0, 25.0) == pytest.approx(shift_s, abs=0.01)


def test_a_step_of_the_hosts_clock_changes_only_the_difference() -> None:
    clock = steady()
    assert clock.issued_at_s(HOST_AT_S + 25.0 - 10.0, 25.0) == pytest.approx(HOST_AT_S + 25.0, abs=0.01)
    assert clock.ahead_of_host_s(HOST_AT_S + 25.0 - 10.0, 25.0) == pytest.approx(10.0, abs=0.01)
    assert clock.steady_for_s(25.0) == pytest.approx(25.0, abs=0.01)
