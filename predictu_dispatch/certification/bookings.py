"""What is known of each request of a run: sendings, answers and the effect. Pure.

A request_id books at most once. `Effect` is what is known of it: applied if one sending was
confirmed, unknown if one may have been applied, else none. A request with a bad token counts as
every other: if it was confirmed, it is booked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from predictu_dispatch.certification.entries import Entry, OutcomeEntry, RequestEntry
from predictu_dispatch.certification.observation import Outcome
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.steps import TokenFault
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.methods import TERMINALS, Method
from predictu_dispatch.core.verdict import OPERATOR_RETRY

_GOOD_TOKENS: Final = frozenset({TokenFault.NONE, TokenFault.NEXT_KEY, TokenFault.USED_JTI})
DEFINITE: Final = frozenset({Outcome.CONFIRMED, Outcome.NOTHING_TO_REVERSE, Outcome.REFUSED, Outcome.UNDECLARED})
"""The outcomes after which a request is not repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One sending of a request; `outcome` is None if the process ended before it was known."""

    request: Prepared
    outcome: OutcomeEntry | None
    sent_at: int
    """The entry's place in the journal."""
    known_at: int
    """The outcome's place; `sent_at` without an outcome."""

    @property
    def effect(self) -> Effect:
        outcome = self.outcome
        if outcome is None:
            return Effect.UNKNOWN
        match outcome.outcome:
            case Outcome.CONFIRMED:
                return Effect.APPLIED
            case Outcome.NOTHING_TO_REVERSE | Outcome.REFUSED | Outcome.NOT_SENT:
                return Effect.NONE
            case Outcome.UNAUTHORIZED if self.request.token not in _GOOD_TOKENS:
                return Effect.NONE
            case Outcome.TRY_AGAIN if outcome.reason == OPERATOR_RETRY and self.request.method in TERMINALS:
                # The operator declared that this status books nothing.
                return Effect.NONE
            case _:
                return Effect.UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Booking:
    """One request_id with all its sendings, in the journal's order."""

    sendings: tuple[Sending, ...]

    @cached_property
    def request(self) -> Prepared:
        """The request that may be booked; it is repeated byte for byte."""
        for wanted in (Effect.APPLIED, Effect.UNKNOWN):
            for sending in self.sendings:
                if sending.effect is wanted:
                    return sending.request
        return self.sendings[0].request

    @cached_property
    def effect(self) -> Effect:
        effects = {sending.effect for sending in self.sendings}
        if Effect.APPLIED in effects:
            return Effect.APPLIED
        # As in production, a debit that may have been applied is rolled back even if a repetition
        # was refused. An ending call is definite then: a repetition gets the first answer.
        is_settled = self.is_answered and self.request.method is not Method.BET_MAKE
        return Effect.UNKNOWN if Effect.UNKNOWN in effects and not is_settled else Effect.NONE

    @cached_property
    def is_answered(self) -> bool:
        """Whether a definite answer came to a sending after all those of unknown effect."""
        unknown = [each for each in self.sendings if each.effect is Effect.UNKNOWN and not _is_definite(each)]
        unknown_until = max((each.known_at for each in unknown), default=-1)
        return any(_is_definite(each) and each.sent_at > unknown_until for each in self.sendings)

    @property
    def booked_at(self) -> int:
        """The place in the journal of the first sending that may have been booked."""
        return next(each.sent_at for each in self.sendings if each.effect is not Effect.NONE)

    @property
    def confirmed_at(self) -> int:
        """The place in the journal of the last confirmation; -1 without one."""
        return max((each.known_at for each in self.sendings if each.effect is Effect.APPLIED), default=-1)

    @property
    def is_signed(self) -> bool:
        """Whether it was ever sent with a good token."""
        return any(sending.request.token in _GOOD_TOKENS for sending in self.sendings)

    @property
    def was_sent(self) -> bool:
        return any(each.outcome is None or each.outcome.outcome is not Outcome.NOT_SENT for each in self.sendings)

    @property
    def is_nothing_to_reverse(self) -> bool:
        return self.effect is Effect.NONE and self.last is not None and self.last.outcome is Outcome.NOTHING_TO_REVERSE

    @property
    def may_be_booked(self) -> bool:
        """Whether it may have changed anything at the operator, a tombstone included."""
        return self.effect is not Effect.NONE or self.is_nothing_to_reverse

    @property
    def is_refused(self) -> bool:
        """Whether the newest definite answer is a refusal, and none was a confirmation."""
        if self.effect is Effect.APPLIED or not self.is_answered:
            return False
        newest = next(each.outcome for each in reversed(self.sendings) if _is_definite(each))
        return newest is not None and newest.outcome is Outcome.REFUSED

    @property
    def is_undeclared(self) -> bool:
        """Whether the newest answer has an undeclared status, and none was a confirmation."""
        is_applied = self.effect is Effect.APPLIED
        return not is_applied and self.last is not None and self.last.outcome is Outcome.UNDECLARED

    @property
    def last(self) -> OutcomeEntry | None:
        return self.sendings[-1].outcome

    @property
    def amount(self) -> int:
        return self.request.amount or 0


def _is_definite(sending: Sending) -> bool:
    return sending.outcome is not None and sending.outcome.outcome in DEFINITE


def bookings_of(entries: Iterable[Entry]) -> list[Booking]:
    """Return every request that names a bet, with all its sendings, in the journal's order."""
    sent: dict[str, list[Sending]] = defaultdict(list)
    listed = list(entries)
    known = {entry.n: (at, entry) for at, entry in enumerate(listed) if isinstance(entry, OutcomeEntry)}
    for at, entry in enumerate(listed):
        if isinstance(entry, RequestEntry) and entry.prepared.bet_id:
            known_at, outcome = known.get(entry.n, (at, None))
            sent[entry.prepared.request_id].append(
                Sending(request=entry.prepared, outcome=outcome, sent_at=at, known_at=known_at)
            )
    return [Booking(sendings=tuple(sendings)) for sendings in sent.values()]
