"""Money: whole subunits (cents) inside, and on the wire either subunits or exact decimals. Never a float anywhere."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

SUBUNITS_MAX = 10**18 - 1
"""No amount and no balance is above this. Eighteen digits is what the protocol carries, and below SQLite's 64-bit
integers, past which SQLite would turn sums into floats."""

_DIGITS_OTHER_THAN_TWO = (
    dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "UYI",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    )
    | dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)
    | dict.fromkeys(("CLF", "UYW"), 4)
)
"""The exceptions of ISO 4217, list one; every other currency has two minor digits."""

_DIGITS_MAX = 18
"""A decimal with an exponent beyond this is refused before anything is computed: 1e999999999 would fill the memory."""


class AmountFormat(StrEnum):
    """How amounts and balances stand on the wire, as agreed with Predictu once."""

    SUBUNITS = "subunits"
    DECIMAL = "decimal"


def minor_digits(currency: str) -> int:
    """How many digits of a currency's unit are its subunits: 2 for EUR, 0 for JPY, 3 for BHD. Source: ISO 4217."""
    return _DIGITS_OTHER_THAN_TWO.get(currency, 2)


def to_subunits(amount: int | Decimal, currency: str, amount_format: AmountFormat) -> int:
    """The wire's number as whole subunits, exactly. Raises ValueError, with the reason, where it is no such number."""
    if amount_format is AmountFormat.SUBUNITS:
        if not isinstance(amount, int):
            raise ValueError(f"{amount} is not a whole number of subunits")
        subunits, remainder = amount, 0
    else:
        exact = Decimal(amount)
        exponent = exact.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -_DIGITS_MAX or exact.adjusted() > _DIGITS_MAX:
            raise ValueError(f"{amount} has too many digits")
        numerator, denominator = exact.as_integer_ratio()
        subunits, remainder = divmod(numerator * 10 ** minor_digits(currency), denominator)
    if remainder:
        raise ValueError(f"{amount} has more than the {minor_digits(currency)} minor digits of {currency}")
    if not 0 <= subunits <= SUBUNITS_MAX:
        raise ValueError(f"{amount} is not between 0 and {SUBUNITS_MAX} subunits")
    return subunits


def to_wire(subunits: int, currency: str, amount_format: AmountFormat) -> str:
    """The JSON number for an amount: 95000 stays `95000` in subunits, and is `950.00` in decimal EUR."""
    if amount_format is AmountFormat.SUBUNITS:
        return str(subunits)
    return format(Decimal(subunits).scaleb(-minor_digits(currency)), "f")
