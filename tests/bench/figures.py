"""Percentiles, ratios and verdicts of the measurements. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from tests.bench.findings import disturbed
from tests.bench.scenarios import Scenario

ALONE, TROUBLED = "alone", "troubled"
WHO = ("daemon", "postgres", "tools", "others")
HEADER = (
    "pair  side         n    p50    p95    p99     max  enqueue_p99  late_p99  lost"
    f" {' '.join(f'{who:>4}' for who in WHO)}     due    left"
)


def percentile(sample: Iterable[float], share: float) -> float:
    """Nearest-rank percentile of the sample; NaN if it is empty."""
    ordered = sorted(sample)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One side in one segment; a request that never arrived has infinite latency."""

    pair: int
    side: str
    latencies_ms: tuple[float, ...]
    enqueue_ms: tuple[float, ...]
    late_ms: tuple[float, ...]
    # Mean cores in use by role (see cpu_clock.py); empty without /proc.
    cores: Mapping[str, float]
    due_at_start: int
    due_at_end: int

    @property
    def p99_ms(self) -> float:
        return percentile(self.latencies_ms, 0.99)

    @property
    def lost(self) -> int:
        return sum(math.isinf(latency) for latency in self.latencies_ms)

    def line(self) -> str:
        p50, p95, p99, p100 = (percentile(self.latencies_ms, share) for share in (0.5, 0.95, 0.99, 1.0))
        return (
            f"{self.pair:4}  {self.side:8} {len(self.latencies_ms):5} {p50:6.2f} {p95:6.2f} {p99:6.2f} {p100:7.2f}"
            f" {percentile(self.enqueue_ms, 0.99):12.2f} {percentile(self.late_ms, 0.99):9.2f} {self.lost:5}"
            f" {self._cores()} {self.due_at_start:7} {self.due_at_end:7}"
        )

    def _cores(self) -> str:
        return " ".join(f"{self.cores.get(who, math.nan):{max(4, len(who))}.2f}" for who in WHO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A scenario's segments in pairs: first alone, then troubled."""

    scenario: Scenario
    segments: Sequence[Segment]

    def pooled(self, side: str, share: float) -> float:
        """Percentile over all segments of one side."""
        return percentile((ms for s in self.segments if s.side == side for ms in s.latencies_ms), share)

    @property
    def ratios(self) -> list[float]:
        """Ratio of the p99 troubled / alone of each pair."""
        alone, troubled = ([s.p99_ms for s in self.segments if s.side == side] for side in (ALONE, TROUBLED))
        return [one / other for one, other in zip(troubled, alone, strict=True)]

    @property
    def ratio(self) -> float:
        """Ratio of the pooled p99; the limit applies to it."""
        return self.pooled(TROUBLED, 0.99) / self.pooled(ALONE, 0.99)

    @property
    def is_valid(self) -> bool:
        """True if the backlog lasted until the end of every troubled segment."""
        is_due = any(operator.settlements_due for operator in self.scenario.troubled)
        return all(segment.due_at_end > 0 for segment in self.segments if is_due and segment.side == TROUBLED)

    @property
    def is_kept(self) -> bool:
        limit = self.scenario.ratio_max
        return self.is_valid and (limit is None or self.ratio <= limit)

    @property
    def verdict(self) -> str:
        if not self.is_valid:
            return "broken: the backlog was delivered before the segment ended"
        limit = self.scenario.ratio_max
        return "no limit, for comparison" if limit is None else f"limit {limit}: {'kept' if self.is_kept else 'broken'}"

    def lines(self) -> list[str]:
        pairs = " ".join(f"{ratio:.2f}" for ratio in self.ratios)
        pooled = [
            f"{side} {' / '.join(f'{self.pooled(side, share):.2f}' for share in (0.5, 0.95, 0.99))}"
            for side in (ALONE, TROUBLED)
        ]
        others = fmean(segment.cores.get("others", 0.0) for segment in self.segments)
        low, middle, high = min(self.ratios), median(self.ratios), max(self.ratios)
        return [
            f"p99 troubled / alone by pair: {pairs}; median {middle:.2f}, {low:.2f} to {high:.2f}",
            f"pooled p50 / p95 / p99 in ms: {'; '.join(pooled)}; ratio of the p99 {self.ratio:.2f}; {self.verdict}",
            *disturbed([others]),
        ]

    def row(self) -> str:
        """The row of the table in README.md."""
        cells = (
            f"`{self.scenario.name}`",
            *(f"{self.pooled(side, share):.1f}" for share in (0.5, 0.99) for side in (ALONE, TROUBLED)),
            f"{self.ratio:.2f}",
            f"{median(self.ratios):.2f} ({min(self.ratios):.2f} to {max(self.ratios):.2f})",
            self.verdict,
        )
        return f"| {' | '.join(cells)} |"


TABLE_HEAD = (
    "| scenario | p50 alone, ms | p50 troubled | p99 alone, ms | p99 troubled | ratio of p99 | median of pairs | |\n"
    "|---|---|---|---|---|---|---|---|"
)
