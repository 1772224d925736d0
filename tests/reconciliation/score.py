"""Counts what was planted and what was found, class by class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from predictu_dispatch.core.difference_classes import DifferenceClass


@dataclass(kw_only=True)
class Tally:
    """Counts of one class, over all seeds."""

    natural: int = 0
    """In the unplanted history, as the generator knows it, and found by both."""
    planted: int = 0
    sql: int = 0
    naive: int = 0
    hits: int = 0
    """Planted and found by both, with the right money."""


@dataclass(kw_only=True)
class Score:
    """What was planted and found, and every fault of the proof."""

    classes: dict[str, Tally] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    items: int = 0

    def lines(self) -> list[str]:
        rows = [f"{'class':26}{'history':>8}{'planted':>8}{'SQL':>8}{'naive':>8}{'precision':>11}{'recall':>8}"]
        for name in (one.value for one in DifferenceClass if one.value in self.classes):
            tally = self.classes[name]
            found = max(tally.sql, tally.naive)
            precision = tally.hits / found if found else 1.0
            recall = tally.hits / tally.planted if tally.planted else 1.0
            rows.append(
                f"{name:26}{tally.natural:8,}{tally.planted:8,}{tally.sql:8,}{tally.naive:8,}{precision:11.3f}{recall:8.3f}"
            )
        return rows
