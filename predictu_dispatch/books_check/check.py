"""What one check compares and finds, in EUR, the only currency of the demo and the chaos tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

CURRENCY: Final = "EUR"


class Check(NamedTuple):
    """What must hold, how many rows were compared, the figures, and the disagreements.

    A check that compared nothing does not hold.
    """

    name: str
    rows: int
    figures: str
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return self.rows > 0 and not self.faults


def amount_text(subunits: int) -> str:
    """An amount for a person: 123456 is `1,234.56`."""
    whole, cents = divmod(abs(subunits), 100)
    return f"{'-' if subunits < 0 else ''}{whole:,}.{cents:02d}"


def money_text(subunits: int | None) -> str:
    """Such as `1,234.56 EUR`; `nothing` if there is no amount."""
    return "nothing" if subunits is None else f"{amount_text(subunits)} {CURRENCY}"


def by_state(states: Iterable[str]) -> str:
    """Such as `270 closed, 30 void`."""
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items()))
