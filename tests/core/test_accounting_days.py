"""Accounting days in zones that change their offset, and the times of bookings in them."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.accounting_days import AccountingDays, time_zone
from predictu_dispatch.core.booking_time import read_time

ZONES = (
    "Europe/Malta",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "UTC",
    "America/New_York",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Pacific/Chatham",
)


def days(zone: str, day_starts: str = "00:00") -> AccountingDays:
    return AccountingDays(zone=time_zone(zone), day_starts=time.fromisoformat(day_starts))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day_starts", "day", "hours"),
    [
        ("Europe/Malta", "00:00", date(2026, 3, 29), 23),
        ("Europe/Malta", "00:00", date(2026, 10, 25), 25),
        ("Europe/Malta", "00:00", date(2026, 11, 21), 24),
        ("Australia/Lord_Howe", "00:00", date(2026, 10, 4), 23.5),
        ("Australia/Lord_Howe", "00:00", date(2026, 4, 5), 24.5),
        ("Asia/Kolkata", "00:00", date(2026, 3, 29), 24),
        # The change at 02:00 is in the accounting day that began the day before.
        ("Europe/Malta", "06:00", date(2026, 3, 28), 23),
        ("Europe/Malta", "06:00", date(2026, 3, 29), 24),
        # 02:30 is skipped on 29 March: that day starts at 03:30.
        ("Europe/Malta", "02:30", date(2026, 3, 28), 24),
        ("Europe/Malta", "02:30", date(2026, 3, 29), 23),
        # 02:30 occurs twice on 25 October: the day starts at the first one.
        ("Europe/Malta", "02:30", date(2026, 10, 24), 24),
        ("Europe/Malta", "02:30", date(2026, 10, 25), 25),
    ],
)
def test_a_day_is_as_long_as_its_zone_makes_it(zone: str, day_starts: str, day: date, hours: float) -> None:
    [start, end] = days(zone, day_starts).edges(day, day)
    assert end - start == timedelta(hours=hours)


def test_a_day_begins_at_local_midnight() -> None:
    assert days("Europe/Malta").start_of(date(2026, 11, 21)) == utc("2026-11-20T23:00")
    assert days("Asia/Kolkata").start_of(date(2026, 11, 21)) == utc("2026-11-20T18:30")
    assert days("Europe/Malta", "06:00").start_of(date(2026, 3, 29)) == utc("2026-03-29T04:00")
    assert days("Europe/Malta", "02:30").start_of(date(2026, 3, 29)) == utc("2026-03-29T01:30")
    assert days("Europe/Malta", "02:30").start_of(date(2026, 10, 25)) == utc("2026-10-25T00:30")


@given(
    st.sampled_from(ZONES),
    st.times(timezones=st.none()).map(lambda t: t.replace(second=0, microsecond=0)),
    st.dates(date(2000, 1, 1), date(2199, 12, 30)),
)
def test_a_day_holds_its_first_and_its_last_moment_and_no_other_day_does(zone: str, starts: time, day: date) -> None:
    kept = AccountingDays(zone=time_zone(zone), day_starts=starts)
    start, end = kept.edges(day, day)
    assert timedelta(hours=22) < end - start < timedelta(hours=26)
    assert kept.day_of(start) == kept.day_of(end - timedelta(microseconds=1)) == day
    assert kept.day_of(end) == day + timedelta(days=1)
    assert kept.day_of(start - timedelta(microseconds=1)) == day - timedelta(days=1)


def test_a_day_has_begun_even_if_the_clock_goes_back_to_the_day_before() -> None:
    # At 00:01 on 29 October the clock of St. John's went back to 23:01.
    johns = days("America/St_Johns")
    assert johns.start_of(date(2006, 10, 29)) == utc("2006-10-29T02:30")
    moments = [utc(f"2006-10-29T{at}") for at in ("02:29:59", "02:30", "02:45", "03:30")]
    assert [johns.day_of(at).day for at in moments] == [28, 29, 29, 29]


def test_the_edges_of_a_period_are_the_starts_of_its_days_and_its_end() -> None:
    edges = days("Europe/Malta").edges(date(2026, 10, 24), date(2026, 10, 26))
    assert edges == [utc(f"2026-10-{day}") for day in ("23T22:00", "24T22:00", "25T23:00", "26T23:00")]


@pytest.mark.parametrize(
    "name",
    [
        *("", "Europe", "europe/malta", "Mars/Base", "../etc/passwd", "/etc/localtime", "localtime", "a\0b", "+01:00"),
        *("right/Europe/Malta", "posix/Europe/Malta", "Factory", "posixrules", "x" * 5000),
    ],
)
def test_only_names_of_places_are_time_zones(name: str) -> None:
    with pytest.raises(ValueError, match="Europe/Malta"):
        time_zone(name)


@pytest.mark.parametrize(
    ("zone", "text", "at", "day"),
    [
        ("Europe/Malta", "2026-11-21T00:00:00", "2026-11-20T23:00", "2026-11-21"),
        ("Europe/Malta", "2026-11-20 23:59:59.999999999", "2026-11-20T22:59:59.999999", "2026-11-20"),
        ("Europe/Malta", "2026-11-20T22:59:59.999Z", "2026-11-20T22:59:59.999", "2026-11-20"),
        ("Europe/Malta", "2026-11-20T23:00:00Z", "2026-11-20T23:00", "2026-11-21"),
        ("Europe/Malta", "2026-11-20 23:00:00 UTC", "2026-11-20T23:00", "2026-11-21"),
        ("Europe/Malta", "2026-11-20t23:00:00,5z", "2026-11-20T23:00:00.5", "2026-11-21"),
        ("Europe/Malta", "2026-11-21T10:00:00+01:00", "2026-11-21T09:00", "2026-11-21"),
        ("Europe/Malta", "2026-11-21 10:00:00 +0100", "2026-11-21T09:00", "2026-11-21"),
        ("Europe/Malta", "2026-11-21T10:00+01", "2026-11-21T09:00", "2026-11-21"),
        ("Europe/Malta", "2026-11-21T10:00:00+00:00", "2026-11-21T10:00", "2026-11-21"),
        ("Europe/Malta", "2026-11-21T10:00:00-00:00", "2026-11-21T10:00", "2026-11-21"),
        ("Europe/Malta", "2026-07-01T10:00:00+02:00", "2026-07-01T08:00", "2026-07-01"),
        # Twice on the clock, in one day: the earlier one. With an offset, each of the two.
        ("Europe/Malta", "2026-10-25T02:30:00", "2026-10-25T00:30", "2026-10-25"),
        ("Europe/Malta", "2026-10-25T02:30:00+02:00", "2026-10-25T00:30", "2026-10-25"),
        ("Europe/Malta", "2026-10-25T02:30:00+01:00", "2026-10-25T01:30", "2026-10-25"),
        ("Australia/Lord_Howe", "2026-04-05T01:45:00", "2026-04-04T14:45", "2026-04-05"),
        ("Australia/Lord_Howe", "2026-04-05T01:45:00+10:30", "2026-04-04T15:15", "2026-04-05"),
        ("Asia/Kolkata", "2026-11-21T05:29:59", "2026-11-20T23:59:59", "2026-11-21"),
        ("Asia/Kolkata", "2026-11-20T18:30:00Z", "2026-11-20T18:30", "2026-11-21"),
        ("UTC", "2026-11-21T23:59:59", "2026-11-21T23:59:59", "2026-11-21"),
    ],
)
def test_a_time_is_read_with_its_offset_or_in_the_operators_zone(zone: str, text: str, at: str, day: str) -> None:
    assert read_time(text, days(zone)) == (utc(at), date.fromisoformat(day))


@pytest.mark.parametrize(
    ("zone", "text", "why"),
    [
        ("Europe/Malta", "2026-11-21T10:00:00+02:00", "which is at +01:00 then"),
        ("Europe/Malta", "2026-07-01T10:00:00+01:00", "which is at +02:00 then"),
        ("Europe/Malta", "2026-10-25T03:30:00+02:00", "which is at +01:00 then"),
        ("Australia/Lord_Howe", "2026-11-21T10:00:00+10:30", "which is at +11:00 then"),
        ("Asia/Kolkata", "2026-11-21T10:00:00+05:00", "which is at +05:30 then"),
        ("UTC", "2026-11-21T10:00:00+01:00", "which is at +00:00 then"),
        ("UTC", "2026-11-21T10:00:00+99:59", "contradicts"),
        ("Europe/Malta", "2026-03-29T02:30:00", "skips 2026-03-29 02:30"),
        ("Australia/Lord_Howe", "2026-10-04 02:15", "skips 2026-10-04 02:15"),
        *(
            ("Europe/Malta", text, "is no date and time")
            for text in (
                *(
                    "2026-11-21",
                    "1795255800",
                    "1795255800.5",
                    "26-11-21 10:00:00",
                    "21/11/2026 10:00",
                    "20261121T100000",
                ),
                *(
                    "2026-11-21T24:00:00",
                    "2026-11-21T10:60:00",
                    "2026-11-21T10:00:60",
                    "2026-11-21T10",
                    "TOTAL",
                    "x" * 999,
                ),
                *("2026-11-21T10:00:00 ", " 2026-11-21T10:00:00", "2026-11-21T10:00:00 CET", "2026-W47-6T10:00:00"),
                *(
                    "2026-11-21T10:00:00.",
                    "2026-11-21T10:00:00+1",
                    "\uff12\uff10\uff12\uff16-11-21T10:00:00",
                    "2026-11-21T10:00:00\n",
                ),
                *("2026-11-21T10:00:00+01:00[Europe/Malta]", "2026-11-21 10:00:00 AM"),
            )
        ),
        ("Europe/Malta", "2026-02-30T10:00:00", "is no date of the calendar"),
        ("Europe/Malta", "1970-01-01T00:00:00Z", "is not in the years 2000 to 2199"),
        ("Europe/Malta", "0026-11-21T10:00:00", "is not in the years"),
        ("Europe/Malta", "9999-12-31T23:59:59", "is not in the years"),
    ],
)
def test_a_time_that_is_uncertain_is_refused(zone: str, text: str, why: str) -> None:
    read = read_time(text, days(zone))
    assert isinstance(read, str)
    assert why in read


def test_a_time_that_occurs_twice_on_the_edge_of_a_day_needs_an_offset() -> None:
    twice = days("Europe/Malta", "02:30")
    # 02:30 begins a day at its first occurrence; 02:15 occurs before and after it.
    assert "it needs an offset" in str(read_time("2026-10-25T02:15:00", twice))
    assert read_time("2026-10-25T02:15:00+02:00", twice) == (utc("2026-10-25T00:15"), date(2026, 10, 24))
    assert read_time("2026-10-25T02:15:00+01:00", twice) == (utc("2026-10-25T01:15"), date(2026, 10, 25))
    assert read_time("2026-10-25T02:45:00", twice) == (utc("2026-10-25T00:45"), date(2026, 10, 25))


@given(
    st.sampled_from(ZONES),
    st.datetimes(utc("2000-01-02").replace(tzinfo=None), utc("2199-12-30").replace(tzinfo=None)),
    st.integers(0, 2),
)
def test_a_moment_that_is_written_in_its_zone_is_read_back(zone: str, naive: datetime, spelling: int) -> None:
    kept = days(zone)
    at = naive.replace(tzinfo=UTC)
    local = at.astimezone(kept.zone)
    text = (at.isoformat(), local.isoformat(), local.replace(tzinfo=None).isoformat(sep=" "))[spelling]
    read = read_time(text, kept)
    if spelling == 2 and local.fold:
        assert read == (local.replace(fold=0).astimezone(UTC), kept.day_of(at))
    else:
        assert read == (at, kept.day_of(at))
