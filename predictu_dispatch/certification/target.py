"""What a run is played against: the sandbox of one operator, with its keys and test players."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Final

from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.core.verdict import Statuses

REQUESTS_MAX: Final = 10_000
"""The default of the most requests of one run, cleaning not counted."""
REQUESTS_PER_S: Final = 200.0
"""The default of the highest rate of a run, in requests a second."""
_MINOR_DIGITS: Final = {
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The sandbox. `settings` are the operator's own, with the sandbox's URL as `callback_url`."""

    settings: OperatorSettings
    key: SigningKey
    next_key: SigningKey | None
    players: tuple[str, ...]
    """One or two test players. Nobody else may use them during a run."""
    currency: str
    digits: int
    """The currency's minor digits."""
    ssl_context: ssl.SSLContext | None = None
    """None: the system's authorities."""
    ledger_url: str = ""
    requests_max: int = REQUESTS_MAX
    requests_per_s: float = REQUESTS_PER_S

    @property
    def statuses(self) -> Statuses:
        return Statuses.of(self.settings.statuses)


def minor_digits(currency: str) -> int | None:
    """Return the minor digits; None if the code is not of ISO 4217's form, such as USDT."""
    return _MINOR_DIGITS.get(currency, 2) if _ISO_CODE.fullmatch(currency) else None
