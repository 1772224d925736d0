"""What scenarios expect of several answers together: repetitions, exclusions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from predictu_dispatch.certification.expectations import answer_text, confirmed, listed, sent_as
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
class StillConfirmed:
    """The first of the named requests is confirmed, and so are the others, which repeat it.

    If the first one is not, which may be a limit of the operator, that is only worth a warning.
    """

    of: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.of[0]} is confirmed, and its repetition too."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        first, *repetitions = sent_as(seen, self.of)
        if first.outcome is Outcome.CONFIRMED:
            yield from confirmed(*(sent.name for sent in repetitions)).findings(seen)
        else:
            yield Finding(
                verdict=ScenarioVerdict.WARNING,
                expected=self.text,
                observed=f"{first.name}: {answer_text(first)}, so it is not known how its repetition is answered.",
                about=(first.name,),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SameAnswer:
    """Every confirmation of one request_id has the same transaction_id and the same balance."""

    of: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{listed(self.of)}: a repetition is answered with the transaction_id and balance of the first time."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        confirmed = [sent for sent in sent_as(seen, self.of) if sent.outcome is Outcome.CONFIRMED]
        first_by_id: dict[str, Sent] = {}
        for sent in confirmed:
            first = first_by_id.setdefault(sent.request_id, sent)
            if None not in (first.transaction_id, sent.transaction_id) and first.transaction_id != sent.transaction_id:
                yield self._failed(first, sent, str(first.transaction_id), str(sent.transaction_id))
            if first.balance is not None and sent.balance is not None and first.balance != sent.balance:
                balances = (f"the balance {seen.money(each.balance or 0)}" for each in (first, sent))
                yield self._failed(first, sent, *balances)
        yield from self._missing("transaction_id", [sent.name for sent in confirmed if sent.transaction_id is None])
        yield from self._missing("balance", [sent.name for sent in confirmed if sent.balance is None])

    def _failed(self, first: Sent, sent: Sent, firsts: str, its: str) -> Finding:
        return Finding(
            verdict=ScenarioVerdict.FAILED,
            expected=self.text,
            observed=f"{first.name} has {firsts}, {sent.name} has {its}.",
            about=(first.name, sent.name),
        )

    def _missing(self, field: str, names: Sequence[str]) -> Iterator[Finding]:
        if names:
            yield Finding(
                verdict=ScenarioVerdict.WARNING,
                expected=self.text,
                observed=f"{listed(names)} {'has' if len(names) == 1 else 'have'} no valid {field}.",
                about=tuple(names),
            )
