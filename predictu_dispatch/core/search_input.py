"""Times and amounts as people write them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

_RELATIVE: Final = re.compile(r"(\d{1,6})\s*(s|m|min|h|d|w)")
_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_TIMES: Final = "give a time (2026-11-28T10:00:00Z), a date (2026-11-28), or an age (30m, 2h, 3d)"

_AMOUNT: Final = re.compile(
    r"(?:(?P<before>[A-Za-z]{2,10})\s*)?(?P<number>\d[\d., ']*)(?:\s*(?P<after>[A-Za-z]{2,10}))?"
)
_GROUPED: Final = re.compile(r"\d{1,3}(?:[., ']\d{3})+")
_SUBUNITS: Final = "SUBUNITS"
_AMOUNTS: Final = "write 6.41, 6,41 EUR, or 641 subunits; the currency as a code"
_SUBUNITS_MAX: Final = 2**63 - 1


def parse_time(text: str, now: datetime, *, is_end: bool = False) -> datetime:
    """A time, a date (its beginning in UTC, or with `is_end` its end), or an age; or ValueError."""
    text = text.strip()
    try:
        if relative := _RELATIVE.fullmatch(text):
            return now - int(relative[1]) * _UNITS[relative[2]]
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            midnight = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return midnight + timedelta(days=1) if is_end else midnight
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(_TIMES) from None


class Amount(NamedTuple):
    """An amount to search for: what the number may mean, and the currency if one was given."""

    readings: tuple[Decimal, ...]
    currency: str | None
    is_subunits: bool

    def in_subunits(self, currency: str, digits: int | None) -> tuple[int, ...]:
        """The amounts in subunits that it may mean in a currency; empty if in none."""
        if self.currency not in (None, currency):
            return ()
        if self.is_subunits:
            return tuple(int(reading) for reading in self.readings)
        scaled = (reading.scaleb(digits) for reading in self.readings) if digits is not None else ()
        return tuple(sorted({int(one) for one in scaled if one == int(one) and one <= _SUBUNITS_MAX}))


def parse_amount(text: str) -> Amount:
    """An amount with a comma or a dot, and perhaps a currency; raises ValueError.

    A single separator before three digits may be either sign: 1,234 is searched as 1234 and as
    1.234; a currency with two digits allows the first only.
    """
    match = _AMOUNT.fullmatch(text.strip().replace("\N{NO-BREAK SPACE}", " "))
    unit = ((match["before"] or match["after"] or "") if match else "").upper()
    if match is None or (match["before"] and match["after"]):
        raise ValueError(_AMOUNTS)
    number = match["number"].strip()
    is_subunits = unit == _SUBUNITS
    readings = {Decimal(re.sub(r"\D", "", number))} if _GROUPED.fullmatch(number) or number.isdigit() else set()
    whole, _, fraction = number.replace(",", ".").rpartition(".")
    if fraction.isdigit() and whole and (whole.isdigit() or _GROUPED.fullmatch(whole)):
        decimal_signs = number.count(number[len(whole)])
        if decimal_signs == 1:
            readings.add(Decimal(f"{re.sub(r'[^0-9]', '', whole)}.{fraction}"))
    if is_subunits:
        readings = {Decimal(number)} if number.isdigit() else set()
    if not readings or max(readings) > _SUBUNITS_MAX:
        raise ValueError(_AMOUNTS)
    return Amount(tuple(sorted(readings)), None if is_subunits or not unit else unit, is_subunits)
