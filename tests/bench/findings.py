"""Results of `make bench`: values per round, limits, verdicts and tables. Pure."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

OTHERS_CORES_MAX = 0.2
"""CPU usage of other processes above which a p99 of milliseconds is not reliable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure: a value per round, NaN for a broken round, and at most one limit."""

    name: str
    values: tuple[float, ...]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    @property
    def median(self) -> float:
        """The median; NaN if any round was broken."""
        return math.nan if any(map(math.isnan, self.values)) or not self.values else median(self.values)

    @property
    def low(self) -> float:
        return min(self._whole, default=math.nan)

    @property
    def high(self) -> float:
        return max(self._whole, default=math.nan)

    @property
    def _whole(self) -> list[float]:
        return [value for value in self.values if not math.isnan(value)]

    @property
    def required(self) -> str:
        """The limit as text; empty if there is none."""
        limits = {"at least": self.at_least, "at most": self.at_most, "below": self.below}
        return next((f"{word} {shown(limit)}" for word, limit in limits.items() if limit is not None), "")

    @property
    def is_kept(self) -> bool:
        """True if the limit is kept. False if a round is broken or nothing was measured."""
        return (
            not math.isnan(self.median)
            and (self.at_least is None or self.median >= self.at_least)
            and (self.at_most is None or self.median <= self.at_most)
            and (self.below is None or self.median < self.below)
        )

    @property
    def verdict(self) -> str:
        if not self.required:
            return ""
        if math.isnan(self.median):
            return "**not measured**"
        return "kept" if self.is_kept else f"**missed**, {self.missed_by}"

    @property
    def missed_by(self) -> str:
        limit = next(limit for limit in (self.at_least, self.at_most, self.below) if limit is not None)
        return f"by {abs(self.median - limit) / limit:.0%}" if limit else f"by {shown(abs(self.median))}"

    @property
    def spread(self) -> str:
        return f"{shown(self.low)} to {shown(self.high)}" if len(self.values) > 1 else ""

    def line(self) -> str:
        limit = f"; {self.required}: {self.verdict.replace('*', '')}" if self.required else ""
        spread = f" ({self.spread})" if self.spread else ""
        return f"{self.name}: {shown(self.median)}{_after_a_space(self.unit)}{spread}{limit}"

    def row(self) -> str:
        """The row of the table in README.md."""
        cells = (
            self.name,
            f"{shown(self.median)}{_after_a_space(self.unit)}",
            self.spread,
            self.required,
            self.verdict,
        )
        return f"| {' | '.join(cells)} |"


RATES_HEAD = (
    "| | /s | from, to | worker, CPU s per 1,000 | store, CPU s per 1,000 | WAL, bytes each | memory, MB |\n"
    "|---|---|---|---|---|---|---|"
)
"""Header of the table of rates and costs; see rounds.py."""
TABLE_HEAD = "| | median | from, to | required | |\n|---|---|---|---|---|"


@dataclass(kw_only=True)
class Findings:
    """Results of one part. `bars` is its data for the picture."""

    part: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    # Rows below RATES_HEAD.
    rates: list[str] = field(default_factory=list)
    # Sizes used, missing peers, broken rounds.
    notes: list[str] = field(default_factory=list)
    bars: dict[str, Any] = field(default_factory=dict)

    @property
    def is_kept(self) -> bool:
        return all(figure.is_kept for figure in self.figures)

    def lines(self) -> Iterator[str]:
        if self.rates:
            yield from (*RATES_HEAD.splitlines(), *self.rates, "")
        yield from (figure.line() for figure in self.figures)
        yield from self.notes

    def section(self) -> str:
        tables = [(RATES_HEAD, self.rates), (TABLE_HEAD, [figure.row() for figure in self.figures])]
        written = ["\n".join((head, *rows)) for head, rows in tables if rows]
        # Each note is a paragraph.
        return "\n\n".join((f"{self.title[:1].upper()}{self.title[1:]}.", *written, *self.notes)) + "\n"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """The ratio of each round; NaN if either side was broken."""
    return tuple(one / other if other else math.nan for one, other in zip(ours, theirs, strict=True))


def shown(value: float) -> str:
    """Three significant digits; whole numbers from 100."""
    if math.isnan(value) or math.isinf(value):
        return "none" if math.isnan(value) else "never"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def disturbed(others_cores: Iterable[float]) -> list[str]:
    """A note if other processes used the CPU, or nothing."""
    most = max(others_cores, default=0.0)
    return [f"DISTURBED: others used up to {most:.2f} cores; measure again when quiet."] * (most > OTHERS_CORES_MAX)


def _after_a_space(unit: str) -> str:
    return f" {unit}" if unit else ""
