"""The minor digits of currencies, for a run without a database."""

from __future__ import annotations

import re
from typing import Final

DIGITS_MAX: Final = 18
_DIGITS: Final = {
    code: digits
    for digits, codes in (
        (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
        (3, "BHD IQD JOD KWD LYD OMR TND"),
        (4, "CLF UYW"),
    )
    for code in codes.split()
}
"""ISO 4217, list one, without the currencies of two digits."""
_ISO_CODE: Final = re.compile(r"[A-Z]{3}")


def minor_digits(currency: str) -> int | None:
    """Return the minor digits; None if the code is not of ISO 4217's form, such as USDT."""
    return _DIGITS.get(currency, 2) if _ISO_CODE.fullmatch(currency) else None
