"""What many runs came to, as the table that tests/README.md keeps."""

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
    asked_again: int = 0
    done: Counter[str] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)

    def add(self, verdict: Verdict, done: Counter[str], asked_again: int) -> None:
        """One run more."""
        self.runs += 1
        self.faults += len(verdict.faults)
        self.bets += verdict.bets
        self.callbacks += verdict.callbacks
        self.attempts += verdict.attempts
        self.duplicates += verdict.duplicates
        self.late += verdict.late
        self.interrupted += verdict.interrupted
        self.asked_again += asked_again
        self.done += done
        self.recovery_s += verdict.recovery_s

    def lines(self) -> list[str]:
        """The table, and below it what was done."""
        million = 1_000_000 / max(1, self.callbacks)
        rows = {
            "seeds": f"{self.runs}",
            "faults injected": f"{self.done.total():,}",
            "bets, callbacks, attempts": f"{self.bets:,}, {self.callbacks:,}, {self.attempts:,}",
            "attempts lost with their daemon": f"{self.interrupted:,}",
            "requests that an operator saw again": f"{self.duplicates:,} ({self.duplicates * million:,.0f} a million)",
            "answers that came after their lease": f"{self.late:,}",
            "statements that producers asked again": f"{self.asked_again:,}",
            "from a lost attempt to the next, p50 / p99": (
                f"{percentile(self.recovery_s, 0.5):.1f} / {percentile(self.recovery_s, 0.99):.1f} s"
            ),
            "invariants broken": f"{self.faults}",
        }
        return [
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
            ", ".join(f"{name} {count}" for name, count in self.done.most_common()),
        ]
