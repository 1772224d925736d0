"""Reads the amount of a booking: whole subunits, or a decimal number."""

from __future__ import annotations

import re
from typing import Final, Literal

from predictu_dispatch.core.settings import shown

_SUBUNITS: Final = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL: Final = {point: re.compile(rf"([+-]?[0-9]{{1,18}})(?:{re.escape(point)}([0-9]{{1,40}}))?") for point in ".,"}
_DIGITS_MAX: Final = 18
_LIMIT: Final = 10**_DIGITS_MAX
_THOUSANDS: Final = 3
"""With as many digits behind it, a point may also separate thousands."""


def read_subunits(text: str) -> int | str:
    """Return the subunits that a whole number names, or why it names none."""
    if _SUBUNITS.fullmatch(text):
        return int(text)
    return f"{shown(text)} is no whole number of at most {_DIGITS_MAX} digits, such as -1250"


def read_decimal(text: str, currency: str, digits: int, point: Literal[".", ","] = ".") -> int | str:
    """Return the subunits that a decimal number names, or why it names none or two.

    Zeros beyond the currency's digits are accepted, but not if there are three digits: in EUR,
    1.250 may mean 1250.
    """
    match = _DECIMAL[point].fullmatch(text)
    if match is None:
        example = _example(digits).replace(".", point)
        why = f"{shown(text)} is no decimal number such as {example}, without separators of thousands"
        # A comma with as many decimals as the currency has separates no thousands, unless it has 3.
        is_comma = (
            point == "." and (other := _DECIMAL[","].fullmatch(text)) and len(other[2] or "") == digits != _THOUSANDS
        )
        return f'{why}; for a decimal comma: [reconcile] amount_format = "decimal_comma"' if is_comma else why
    whole, fraction = match.groups("")
    if len(fraction) > digits and (len(fraction) == _THOUSANDS or fraction[digits:].strip("0")):
        return f"{shown(text)} has {len(fraction)} decimals; {currency} has {digits}"
    subunits = int(whole + fraction[:digits].ljust(digits, "0"))
    if abs(subunits) >= _LIMIT:
        return f"{shown(text)} has more than {_DIGITS_MAX} digits in subunits"
    return subunits


def _example(digits: int) -> str:
    return f"-12.{'5'.ljust(digits, '0')}" if digits else "-12"
