"""Money: whole subunits inside, subunits or exact decimals on the wire, never floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

SUBUNITS_MAX = 10**18 - 1
"""The protocol's largest amount and balance. SQLite turns sums beyond 64 bits into floats."""
_WITHOUT_DIGITS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_WITH_THREE_DIGITS = "BHD IQD JOD KWD LYD OMR TND"
_WITH_FOUR_DIGITS = "CLF UYW"
_DIGITS_OTHER_THAN_TWO = (
    dict.fromkeys(_WITHOUT_DIGITS.split(), 0)
    | dict.fromkeys(_WITH_THREE_DIGITS.split(), 3)
    | dict.fromkeys(_WITH_FOUR_DIGITS.split(), 4)
)
"""The exceptions of ISO 4217, list one; every other currency has two digits."""

DIGITS_MAX = 18
"""Larger exponents are refused before any computation: 1e999999999 would fill the memory."""


class AmountFormat(StrEnum):
    """How amounts and balances are written on the wire, as agreed with Predictu."""

    SUBUNITS = "subunits"
    DECIMAL = "decimal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Converts between subunits and the wire. `further_digits`: currencies that ISO 4217 lacks."""

    amount_format: AmountFormat = AmountFormat.SUBUNITS
    further_digits: Mapping[str, int] = field(default_factory=dict)

    def minor_digits(self, currency: str) -> int:
        """Returns the minor digits of a currency: 2 for EUR, 0 for JPY, 3 for BHD."""
        return self.further_digits.get(currency, _DIGITS_OTHER_THAN_TWO.get(currency, 2))

    def to_subunits(self, amount: int | Decimal, currency: str) -> int:
        """Returns the wire's number as exact subunits. Raises ValueError if it has none."""
        if self.amount_format is AmountFormat.SUBUNITS:
            if not isinstance(amount, int):
                raise ValueError(f"{amount} is not a whole number of subunits")
            subunits, remainder = amount, 0
        else:
            exact = Decimal(amount)
            exponent = exact.as_tuple().exponent
            if not isinstance(exponent, int) or exponent < -DIGITS_MAX or exact.adjusted() > DIGITS_MAX:
                raise ValueError(f"{amount} has too many digits")
            numerator, denominator = exact.as_integer_ratio()
            subunits, remainder = divmod(numerator * 10 ** self.minor_digits(currency), denominator)
        if remainder:
            raise ValueError(f"{amount} has more than the {self.minor_digits(currency)} minor digits of {currency}")
        if not 0 <= subunits <= SUBUNITS_MAX:
            raise ValueError(f"{amount} is not between 0 and {SUBUNITS_MAX} subunits")
        return subunits

    def to_wire(self, subunits: int, currency: str) -> str:
        """Returns an amount as a JSON number: `95000` in subunits is `950.00` in decimal EUR."""
        if self.amount_format is AmountFormat.SUBUNITS:
            return str(subunits)
        return format(Decimal(subunits).scaleb(-self.minor_digits(currency)), "f")

    def shown(self, subunits: int, currency: str) -> str:
        """Returns an amount for a person: `1000.00 EUR`."""
        return f"{Decimal(subunits).scaleb(-self.minor_digits(currency)):f} {currency}"
