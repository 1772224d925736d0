"""The result of a run: what the report, the command and the certificate are made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from predictu_dispatch.certification.observation import Observed, Outcome
from predictu_dispatch.certification.scenario import Finding, Scenario, ScenarioVerdict

SUITE_VERSION: Final = 1
"""Raised if a scenario is added, removed or judges differently."""
UNREACHED: Final = (
    "No connection to the operator could be made, so this shows nothing about the wallet. Every bet of that time is"
    " refused, and every win paid late."
)
UNREACHED_FIX: Final = "Start your operator, or correct the URL, its TLS certificate, or its limit of connections."


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """The verdict on one scenario. `observed` is None if nothing was sent."""

    scenario: Scenario
    verdict: ScenarioVerdict
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    """Why it was skipped; "" otherwise."""
    observed: Observed | None = None
    started_at: datetime | None = None
    duration_s: float = 0.0

    @property
    def cost(self) -> str:
        """Return what the fault costs; "" if something else kept the scenario from showing it.

        An obstacle and a REVIEW say themselves what to do. If no connection could be made, nothing
        else was shown.
        """
        if self.verdict is ScenarioVerdict.REVIEW or any(finding.is_obstacle for finding in self.findings):
            return ""
        seen = self.observed
        if seen is not None:
            # One of a batch that found no connection hides nothing that the others show.
            batches = [batch for batch in seen.batches.values() if batch]
            if any(one.outcome is Outcome.NOT_SENT for one in (*seen.sent.values(), *seen.balance_reads)) or any(
                all(one.outcome is Outcome.NOT_SENT for one in batch) for batch in batches
            ):
                return UNREACHED
        return self.scenario.why

    @property
    def fix(self) -> str:
        """Return what to do beyond what the findings advise; "" if nothing."""
        if self.cost == UNREACHED:
            return UNREACHED_FIX
        is_shown = bool(self.findings) and self.cost == self.scenario.why
        return self.scenario.fix if is_shown and all(each.advice != self.scenario.fix for each in self.findings) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerMoney:
    """A test player's money, in subunits; None: could not be read."""

    player_id: str
    before: int | None
    """Before the run's first debit."""
    after: int | None
    """After everything was reversed."""

    @property
    def net(self) -> int | None:
        """Return the net effect of the run on the player."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversal:
    """What was done after the scenarios, or by --clean, so that every balance is as before."""

    rolled_back: int
    """Bets that were rolled back."""
    compensated: int
    """Bets that were placed and ended to undo confirmed wins and losses."""
    unresolved: tuple[str, ...]
    """One sentence for each bet whose reversal the operator did not confirm."""
    players: tuple[PlayerMoney, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Everything about one run."""

    run: str
    operator_id: str
    url: str
    kid: str
    algorithm: str
    amount_format: str
    currency: str
    digits: int
    players: tuple[str, ...]
    started_at: datetime
    ended_at: datetime
    results: tuple[ScenarioResult, ...]
    reversal: Reversal
    requests_sent: int
    is_whole_suite: bool
    """False if --only chose scenarios: then there is no certificate."""
    stopped: str = ""
    """Why the run ended before its last scenario; "" otherwise."""

    def count(self, verdict: ScenarioVerdict) -> int:
        """Return how many scenarios have this verdict."""
        return sum(result.verdict is verdict for result in self.results)

    @property
    def played(self) -> int:
        """Return how many scenarios were not skipped."""
        return len(self.results) - self.count(ScenarioVerdict.SKIPPED)


def digest_of(scenarios: Sequence[Scenario]) -> str:
    """Return the SHA-256 of all scenarios as canonical JSON, lower-case hex."""
    described = [
        {
            **{key: value for key, value in asdict(scenario).items() if key not in ("steps", "expectations", "needs")},
            "needs": sorted(scenario.needs),
            "steps": [{"step": type(step).__name__, **asdict(step)} for step in scenario.steps],
            "expectations": [
                {"expectation": type(each).__name__, "text": each.text, **asdict(each)}
                for each in scenario.expectations
            ],
        }
        for scenario in scenarios
    ]
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
