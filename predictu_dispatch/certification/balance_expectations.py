"""What scenarios expect of the money: balances before and after, and the operator's ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from predictu_dispatch.certification.expectations import listed, sent_as
from predictu_dispatch.certification.observation import LedgerRow, Observed, Outcome, Sent
from predictu_dispatch.certification.scenario import Finding, ScenarioVerdict
from predictu_dispatch.certification.steps import AFTER, BEFORE, RESUMED
from predictu_dispatch.core.methods import TERMINALS, Method

_UNKNOWN_EFFECT: Final = frozenset({Outcome.NO_ANSWER, Outcome.TRY_AGAIN, Outcome.UNDECLARED})
"""The outcomes after which a request may be booked or not."""
_MOMENTS: Final = {BEFORE: "the start", RESUMED: "the end of the pause", AFTER: "the end"}


def _moment(reading: str) -> str:
    return _MOMENTS.get(reading, f'the reading "{reading}"')


def _period(since: str, until: str) -> str:
    """Return `from the start to the reading "debited"`."""
    return f"from {_moment(since)} to {_moment(until)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The player's balance changes by exactly `by` subunits between two readings."""

    by: int
    since: str = BEFORE
    until: str = AFTER
    player: int = 0

    @property
    def text(self) -> str:
        return self._text(f"{self.by:+d} subunits")

    def _text(self, by: str) -> str:
        change = f"changes by {by}" if self.by else "does not change"
        return f"The balance of player {self.player + 1} {change} {_period(self.since, self.until)}."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        expected = self._text(seen.money(self.by))
        yield from _change_findings(self, seen, expected, lowest=self.by, highest=self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedAsAnswered:
    """The player's balance changes by what was confirmed, each request_id counted once.

    A request that was answered with neither a success nor a refusal may be booked or not.
    """

    of: tuple[str, ...]
    since: str = BEFORE
    until: str = AFTER
    player: int = 0

    @property
    def text(self) -> str:
        return (
            f"The balance of player {self.player + 1} changes {_period(self.since, self.until)} by what was confirmed"
            f" of {listed(self.of)}, each once."
        )

    def findings(self, seen: Observed) -> Iterator[Finding]:
        player_id = seen.player_ids[self.player]
        by_id: dict[str, list[Sent]] = {}
        for sent in sent_as(seen, self.of):
            if sent.player_id == player_id:
                by_id.setdefault(sent.request_id, []).append(sent)
        effects = [(effect_of(sends[0]), {sent.outcome for sent in sends}) for sends in by_id.values()]
        sure = sum(effect for effect, outcomes in effects if Outcome.CONFIRMED in outcomes)
        unsure = [
            effect for effect, outcomes in effects if Outcome.CONFIRMED not in outcomes and outcomes & _UNKNOWN_EFFECT
        ]
        lowest = sure + sum(effect for effect in unsure if effect < 0)
        highest = sure + sum(effect for effect in unsure if effect > 0)
        bounds = seen.money(lowest) if lowest == highest else f"{seen.money(lowest)} to {seen.money(highest)}"
        yield from _change_findings(self, seen, f"{self.text[:-1]}: {bounds}.", lowest=lowest, highest=highest)


def _change_findings(
    expectation: Moved | MovedAsAnswered, seen: Observed, expected: str, *, lowest: int, highest: int
) -> Iterator[Finding]:
    since, until, player = expectation.since, expectation.until, expectation.player
    first, last = (seen.balances.get(name, {}).get(player) for name in (since, until))
    if first is None or last is None:
        name = since if first is None else until
        yield Finding(
            verdict=ScenarioVerdict.FAILED,
            expected=expected,
            observed=f"The balance of player {player + 1} could not be read ({name}).",
        )
    elif not lowest <= last - first <= highest:
        yield Finding(
            verdict=ScenarioVerdict.FAILED,
            expected=expected,
            observed=f"The balance of {seen.player_ids[player]} changes by {seen.money(last - first)}, from"
            f" {seen.money(first)} to {seen.money(last)}.",
        )


def effect_of(sent: Sent) -> int:
    """Return the effect of a booked request on the player, in subunits."""
    amount = sent.amount or 0
    if sent.method is Method.BET_MAKE:
        return -amount
    return amount if sent.method in TERMINALS and sent.method is not Method.BET_LOSE else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceInAnswer:
    """The balance of player 1 in the answer is the one that BALANCE says in this reading."""

    of: str
    reading: str = AFTER

    @property
    def text(self) -> str:
        return f"The answer to {self.of} has the balance that BALANCE says at {_moment(self.reading)}."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        for sent in sent_as(seen, (self.of,)):
            read = seen.balances.get(self.reading, {}).get(0)
            if sent.outcome is not Outcome.CONFIRMED or read is None:
                # Other expectations report it.
                continue
            if sent.balance is None:
                yield Finding(
                    verdict=ScenarioVerdict.WARNING,
                    expected=self.text,
                    observed=f"{(sent.judgement.anomaly or 'balance is missing').capitalize()}.",
                    about=(sent.name,),
                )
            elif sent.balance != read:
                yield Finding(
                    verdict=ScenarioVerdict.FAILED,
                    expected=self.text,
                    observed=f"The answer has {seen.money(sent.balance)}, BALANCE says {seen.money(read)}.",
                    about=(sent.name,),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedOnceInLedger:
    """The operator's ledger has every confirmed booking of the run once, with its amount."""

    @property
    def text(self) -> str:
        return "The ledger has every confirmed request of this run exactly once, with its effect on the player."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        if seen.ledger is None or seen.ledger.fault:
            fault = "not read" if seen.ledger is None else seen.ledger.fault
            yield self._failed(f"The ledger could not be read: {fault}.")
            return
        rows_by_id: dict[str, list[LedgerRow]] = {}
        for row in seen.ledger.rows:
            rows_by_id.setdefault(row.request_id, []).append(row)
        confirmed = {sent.request_id: sent for sent in reversed(seen.confirmed_in_run)}
        for sent in reversed(confirmed.values()):
            fault = _ledger_fault(
                seen, sent, rows_by_id.get(sent.request_id, []), is_surely_booked=_is_surely_booked(seen, sent)
            )
            if fault:
                yield self._failed(f"{sent.method} {sent.request_id} of bet {sent.bet_id} {fault}.")

    def _failed(self, observed: str) -> Finding:
        return Finding(verdict=ScenarioVerdict.FAILED, expected=self.text, observed=observed)


def _ledger_fault(seen: Observed, sent: Sent, rows: list[LedgerRow], *, is_surely_booked: bool) -> str:
    """Return what is wrong with the rows of one confirmed request; "" if nothing is."""
    effect = effect_of(sent)
    if len(rows) > 1:
        return f"is there {len(rows)} times"
    if not rows:
        return f"is missing ({seen.money(effect)})" if effect and is_surely_booked else ""
    row = rows[0]
    if row.player_id != sent.player_id:
        return "is booked for another player"
    if row.amount != effect and (is_surely_booked or row.amount):
        return f"is booked with {seen.money(row.amount)}, not with {seen.money(effect)}"
    return ""


def _is_surely_booked(seen: Observed, sent: Sent) -> bool:
    """Return False for a rollback that may have had nothing to reverse."""
    if sent.method is not Method.BET_ROLLBACK:
        return True
    of_bet = [each for each in seen.confirmed_in_run if each.bet_id == sent.bet_id]
    ends = {each.request_id for each in of_bet if each.method in TERMINALS}
    return len(ends) == 1 and any(
        each.method is Method.BET_MAKE and each.started_at < sent.started_at for each in of_bet
    )
