"""One question of the proof with its answer, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What must hold; `rows` were compared, `figures` says what they came to, `faults` names what disagrees.

    Nothing compared is nothing proved: without rows a check does not hold, so 0 = 0 cannot pass silently.
    """

    name: str
    rows: int
    figures: str
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """True where something was compared and all of it agrees."""
        return self.rows > 0 and not self.faults


def units(subunits: int) -> str:
    """Subunits as a person reads money: 123456 is `1,234.56`. Source: ISO 4217, two digits for the demo's currency."""
    whole, cents = divmod(abs(subunits), 100)
    return f"{'-' if subunits < 0 else ''}{whole:,}.{cents:02d}"
