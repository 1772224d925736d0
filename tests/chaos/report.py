"""The totals of many runs, as the table in tests/README.md."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.figures import percentile
from tests.chaos.sealing import SealedAudit
from tests.chaos.verdict import Verdict


@dataclass(kw_only=True)
class Report:
    """The runs so far."""

    verdicts: list[Verdict] = field(default_factory=list)
    audits: list[SealedAudit] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    @property
    def faults(self) -> int:
        return sum(len(verdict.faults) for verdict in self.verdicts)

    def add(self, verdict: Verdict, audit: SealedAudit, injected: Counter[str], repeated: int) -> None:
        self.verdicts.append(verdict)
        self.audits.append(audit)
        self.injected += injected
        self.repeated += repeated

    def lines(self) -> list[str]:
        """The table, and a line with the injected faults."""

        def total(of: Callable[[Verdict], int]) -> int:
            return sum(map(of, self.verdicts))

        callbacks, duplicates = total(lambda one: one.callbacks), total(lambda one: one.duplicates)
        recovery_s = [seconds for one in self.verdicts for seconds in one.recovery_s]
        rows = {
            "seeds": f"{len(self.verdicts)}",
            "faults injected": f"{self.injected.total():,}",
            "bets, callbacks, attempts": f"{total(lambda one: one.bets):,}, {callbacks:,},"
            f" {total(lambda one: one.attempts):,}",
            "interrupted attempts": f"{total(lambda one: one.interrupted):,}",
            "requests received again": f"{duplicates:,} ({duplicates / max(1, callbacks) * 1_000_000:,.0f} a million)",
            "answers after the lease expired": f"{total(lambda one: one.late):,}",
            "statements that producers repeated": f"{self.repeated:,}",
            "from an interrupted attempt to the next, p50 / p99": (
                f"{percentile(recovery_s, 0.5):.1f} / {percentile(recovery_s, 0.99):.1f} s"
            ),
            "entries sealed, checkpoints signed": f"{sum(one.entries for one in self.audits):,},"
            f" {sum(one.checkpoints for one in self.audits):,}",
            "claims that Go accepted, altered ones that it refused": self.audits[0].missing
            or f"{sum(one.claims for one in self.audits):,}, {sum(one.mutants for one in self.audits):,}",
            "failed checks": f"{self.faults}",
        }
        return [
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
            ", ".join(f"{name} {count}" for name, count in self.injected.most_common()),
        ]
