"""Accounting days: where they begin in UTC, and how a local time is read.

A day has 23, 24 or 25 hours, in Australia/Lord_Howe also 23.5 or 24.5, if its zone changes its
offset. Time zones come from the caller, so that one database of time zones serves the whole run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DAY: Final = timedelta(days=1)
_NOT_A_PLACE: Final = ("right/", "posix/", "localtime", "posixrules", "Factory")
"""Files beside the zones. Those in right/ count leap seconds and are 27 seconds off."""


def time_zone(name: str) -> tzinfo:
    """Return the time zone with this IANA name; raises ValueError with what is allowed."""
    if name == "UTC":
        return UTC  # Needs no database of time zones.
    try:
        if not name.startswith(_NOT_A_PLACE):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValueError('"UTC" or an IANA time zone that this host knows (package tzdata), such as "Europe/Malta"')


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingDays:
    """The accounting days of one operator."""

    zone: tzinfo
    day_starts: time = time(0)
    """Local time of the first moment of a day. If the zone skips it, the day starts as much later;
    if it occurs twice, at the first one."""

    def start_of(self, day: date) -> datetime:
        """Return the first moment of the day, in UTC."""
        return datetime.combine(day, self.day_starts, self.zone).astimezone(UTC)

    def day_of(self, at: datetime) -> date:
        """Return the accounting day of a moment."""
        day = at.astimezone(self.zone).date()
        # The local date is at most one day away, whatever the offset does.
        for candidate in (day + _DAY, day, day - _DAY):
            if self.start_of(candidate) <= at:
                return candidate
        raise AssertionError(at)

    def edges(self, first: date, last: date) -> list[datetime]:
        """Return the first moments of all days of the period, and its end; in UTC."""
        count = (last - first).days + 1
        return [self.start_of(first + number * _DAY) for number in range(count + 1)]
