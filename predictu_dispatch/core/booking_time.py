"""Reads the time of a booking: with an offset, or in the operator's time zone."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final, NamedTuple

from predictu_dispatch.core.accounting_days import AccountingDays
from predictu_dispatch.core.settings import shown

_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-5][0-9])(?::([0-5][0-9])(?:[.,]([0-9]{1,9}))?)?"
    r"(?: ?([Zz]|UTC|[+-][0-9]{2}(?::?[0-5][0-9])?))?"
)
_YEARS: Final = range(2000, 2200)
"""Earlier and later ones come from an empty value or a wrong conversion."""
_MINUTES_MAX: Final = 65_536
"""Minutes that are remembered: those of 45 days."""


class Moment(NamedTuple):
    """A time in UTC, and its accounting day."""

    at: datetime
    day: date


def read_time(text: str, days: AccountingDays) -> Moment | str:
    """Return the moment that a text names, or why it names none or two."""
    match = _TIME.fullmatch(text)
    if match is None:
        return f"{shown(text)} is no date and time such as 2026-11-21T10:00:00 or 2026-11-21T10:00:00+01:00"
    day, minute, second, fraction, offset = match.groups()
    moment = _minute(days, f"{day} {minute}", offset)
    if isinstance(moment, str) or second is None:
        return moment
    # Digits beyond a microsecond are cut: a rounded time could be in the next day.
    microseconds = int(fraction[:6].ljust(6, "0")) if fraction else 0
    return Moment(moment.at + timedelta(seconds=int(second), microseconds=microseconds), moment.day)


# Offsets change, and days begin, at whole minutes.
@lru_cache(maxsize=_MINUTES_MAX)
def _minute(days: AccountingDays, text: str, offset: str | None) -> Moment | str:
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        return f"{shown(text)} is no date of the calendar"
    if local.year not in _YEARS:
        return f"{shown(text)} is not in the years {_YEARS[0]} to {_YEARS[-1]}"
    return _in_zone(local, days) if offset is None else _at_offset(local, offset, days)


def _in_zone(local: datetime, days: AccountingDays) -> Moment | str:
    first, second = (local.replace(tzinfo=days.zone, fold=fold) for fold in (0, 1))
    moments = [Moment(at, days.day_of(at)) for at in (first.astimezone(UTC), second.astimezone(UTC))]
    if moments[0].at > moments[1].at:
        return f'the clock of time_zone "{days.zone}" skips {local:%Y-%m-%d %H:%M}'
    if moments[0].day != moments[1].day:
        return f'{local:%Y-%m-%d %H:%M} is in two accounting days of time_zone "{days.zone}"; it needs an offset'
    return moments[0]


def _at_offset(local: datetime, offset: str, days: AccountingDays) -> Moment | str:
    zone = UTC if offset in {"Z", "z", "UTC"} else _zone_of(offset)
    at = local.replace(tzinfo=zone).astimezone(UTC)
    in_zone = at.astimezone(days.zone)
    given = local.replace(tzinfo=UTC) - at
    if given and given != in_zone.utcoffset():
        return f'offset {offset} contradicts time_zone "{days.zone}", which is at {in_zone.isoformat()[-6:]} then'
    return Moment(at, days.day_of(at))


def _zone_of(offset: str) -> timezone:
    digits = offset[1:].replace(":", "").ljust(4, "0")
    distance = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    # An hour too many for Python is too many for any zone.
    distance = min(distance, timedelta(hours=23, minutes=59))
    return timezone(-distance if offset[0] == "-" else distance)
