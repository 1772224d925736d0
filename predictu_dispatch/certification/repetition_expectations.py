"""What scenarios expect of several answers together: repetitions, exclusions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from predictu_dispatch.certification.expectations import listed, sent_as
from predictu_dispatch.certification.observation import Observed, Outcome, Sent
from predictu_dispatch.certification.scenario import Finding, ScenarioVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMostOneConfirmed:
    """Of the named requests, which exclude each other, one is confirmed."""

    of: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"Of {listed(self.of)} exactly one is confirmed."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        names = tuple(sent.name for sent in sent_as(seen, self.of) if sent.outcome is Outcome.CONFIRMED)
        if len(names) > 1:
            yield Finding(
                verdict=ScenarioVerdict.FAILED,
                expected=self.text,
                observed=f"{listed(names)} are confirmed.",
                about=names,
            )
        elif not names:
            yield Finding(
                verdict=ScenarioVerdict.WARNING,
                expected=self.text,
                observed="None is confirmed, so it is not known what two at once would do.",
                about=self.of,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SameAnswer:
    """Every confirmation of one request_id has the same transaction_id and the same balance."""

    of: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{listed(self.of)}: a repetition is answered with the transaction_id and balance of the first time."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        first_by_id: dict[str, Sent] = {}
        for sent in sent_as(seen, self.of):
            if sent.outcome is not Outcome.CONFIRMED:
                continue
            first = first_by_id.setdefault(sent.request_id, sent)
            if sent.transaction_id is None:
                yield self._finding(ScenarioVerdict.WARNING, f"{sent.name} has no transaction_id", first, sent)
            elif first.transaction_id not in (None, sent.transaction_id):
                ids = f"{first.name} has {first.transaction_id}, {sent.name} has {sent.transaction_id}"
                yield self._finding(ScenarioVerdict.FAILED, ids, first, sent)
            if sent.balance is None:
                yield self._finding(ScenarioVerdict.WARNING, f"{sent.name} has no balance", first, sent)
            elif first.balance not in (None, sent.balance):
                balances = f"{first.name} has the balance {seen.money(first.balance or 0)}"
                observed = f"{balances}, {sent.name} has {seen.money(sent.balance)}"
                yield self._finding(ScenarioVerdict.FAILED, observed, first, sent)

    def _finding(self, verdict: ScenarioVerdict, observed: str, first: Sent, sent: Sent) -> Finding:
        about = (sent.name,) if first is sent else (first.name, sent.name)
        return Finding(verdict=verdict, expected=self.text, observed=f"{observed}.", about=about)
