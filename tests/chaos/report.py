"""The totals of many runs, as the table in tests/README.md."""

from collections import Counter
from dataclasses import dataclass, field

from tests.bench.figures import percentile
from tests.chaos.verdict import Verdict


@dataclass(kw_only=True)
class Report:
    """The runs so far."""

    runs: int = 0
    faults: int = 0
    bets: int = 0
    callbacks: int = 0
    attempts: int = 0
    duplicates: int = 0
    late: int = 0
    interrupted: int = 0
    repeated: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)

    def add(self, verdict: Verdict, injected: Counter[str], repeated: int) -> None:
        self.runs += 1
        self.faults += len(verdict.faults)
        self.bets += verdict.bets
        self.callbacks += verdict.callbacks
        self.attempts += verdict.attempts
        self.duplicates += verdict.duplicates
        self.late += verdict.late
        self.interrupted += verdict.interrupted
        self.repeated += repeated
        self.injected += injected
        self.recovery_s += verdict.recovery_s

    def lines(self) -> list[str]:
        """The table, and a line with the injected faults."""
        million = 1_000_000 / max(1, self.callbacks)
        rows = {
            "seeds": f"{self.runs}",
            "faults injected": f"{self.injected.total():,}",
            "bets, callbacks, attempts": f"{self.bets:,}, {self.callbacks:,}, {self.attempts:,}",
            "interrupted attempts": f"{self.interrupted:,}",
            "requests received again": f"{self.duplicates:,} ({self.duplicates * million:,.0f} a million)",
            "answers after the lease expired": f"{self.late:,}",
            "statements that producers repeated": f"{self.repeated:,}",
            "from an interrupted attempt to the next, p50 / p99": (
                f"{percentile(self.recovery_s, 0.5):.1f} / {percentile(self.recovery_s, 0.99):.1f} s"
            ),
            "failed checks": f"{self.faults}",
        }
        return [
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
            ", ".join(f"{name} {count}" for name, count in self.injected.most_common()),
        ]
