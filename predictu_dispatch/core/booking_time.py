"""Reads the time of a booking: with an offset, or in the operator's time zone."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from predictu_dispatch.core.accounting_days import AccountingDays
from predictu_dispatch.core.settings import shown

_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9])"
    r"(?::([0-5][0-9])(?:[.,]([0-9]{1,6})[0-9]{0,3})?)?"
    r"(?: ?([Zz]|UTC|[+-][0-9]{2}(?::?[0-5][0-9])?))?"
)
"""The minute, the second, microseconds and the offset. Digits beyond a microsecond are cut, because
a rounded time could be in the next day."""
_YEARS: Final = range(2000, 2200)
"""Earlier and later ones come from an empty value or a wrong conversion."""
_MINUTES_MAX: Final = 65_536
"""Minutes that are remembered: those of 45 days."""


def read_time(text: str, days: AccountingDays) -> tuple[datetime, date] | str:
    """Return the moment that a text names, in UTC, and its day; or why it names none or two."""
    match = _TIME.fullmatch(text)
    if match is None:
        return f"{shown(text)} is no date and time such as 2026-11-21T10:00:00 or 2026-11-21T10:00:00+01:00"
    minute, second, fraction, offset = match.groups("")
    moment = _minute(days, minute, offset)
    if not second or isinstance(moment, str):
        return moment
    at, day = moment
    # Offsets are whole minutes, so the second is the same in UTC.
    return at + timedelta(0, int(second), int(fraction.ljust(6, "0")) if fraction else 0), day


# Offsets change, and days begin, at whole minutes.
@lru_cache(maxsize=_MINUTES_MAX)
def _minute(days: AccountingDays, text: str, offset: str) -> tuple[datetime, date] | str:
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        return f"{shown(text)} is no date of the calendar"
    if local.year not in _YEARS:
        return f"{shown(text)} is not in the years {_YEARS[0]} to {_YEARS[-1]}"
    return _at_offset(local, offset, days) if offset else _in_zone(local, days)


def _in_zone(local: datetime, days: AccountingDays) -> tuple[datetime, date] | str:
    first, second = (local.replace(tzinfo=days.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first > second:
        return f'the clock of time_zone "{days.zone}" skips {local:%Y-%m-%d %H:%M}'
    day = days.day_of(first)
    if days.day_of(second) != day:
        return f'{local:%Y-%m-%d %H:%M} is in two accounting days of time_zone "{days.zone}"; it needs an offset'
    return first, day


def _at_offset(local: datetime, offset: str, days: AccountingDays) -> tuple[datetime, date] | str:
    zone = UTC if offset in {"Z", "z", "UTC"} else _zone_of(offset)
    at = local.replace(tzinfo=zone).astimezone(UTC)
    in_zone = at.astimezone(days.zone)
    given = local.replace(tzinfo=UTC) - at
    if given and given != in_zone.utcoffset():
        return f'offset {offset} contradicts time_zone "{days.zone}", which is at {in_zone.isoformat()[-6:]} then'
    return at, days.day_of(at)


def _zone_of(offset: str) -> timezone:
    digits = offset[1:].replace(":", "").ljust(4, "0")
    distance = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    # An hour too many for Python is too many for any zone.
    distance = min(distance, timedelta(hours=23, minutes=59))
    return timezone(-distance if offset[0] == "-" else distance)
