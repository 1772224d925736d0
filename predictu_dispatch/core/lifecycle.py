"""A callback's life and a bet's life, as tables.

Theory of operation. Producers and daemons race, so nothing here is enforced here: the database is the authority. Its
triggers refuse every move of a callback that CALLBACK_MOVES does not list (0002_guards.sql), and its functions do to a
bet what BET_RULES says (0003, 0004, and 0008 for what people do). This module says it once, in one place, for readers
and for tests: `tests/core/test_lifecycle.py` tries every pair of states against the triggers, every (state, event) pair
of a bet against the functions, and the drawings in `predictu_dispatch/DESIGN.md` are made from these tables.

What is decided here and nowhere else is `outcome_of`: what becomes of a callback after one judged attempt. The database
may still overrule it in one case, because only it can know: a placement that rollback_bet() met in flight is not tried
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, assert_never

from predictu_dispatch.core.backoff import delay_s
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.methods import RULES, Retries
from predictu_dispatch.core.verdict import Verdict

if TYPE_CHECKING:
    from predictu_dispatch.core.callback import Callback
    from predictu_dispatch.core.operator_settings import LaneSettings
    from predictu_dispatch.core.verdict import Judgement


class CallbackState(StrEnum):
    """DESIGN.md 4; the names are a contract."""

    WAITING = "waiting"
    READY = "ready"
    IN_FLIGHT = "in_flight"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


class BetState(StrEnum):
    """DESIGN.md 5; the names are a contract."""

    PLACING = "placing"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    VOID = "void"


_C = CallbackState

CALLBACK_MOVES: dict[tuple[CallbackState, CallbackState], str] = {
    (_C.WAITING, _C.READY): "its bet's earlier callback is settled",
    (_C.WAITING, _C.CANCELLED): "its bet was not placed, or is rolled back, or a person took it back",
    (_C.READY, _C.IN_FLIGHT): "claimed: attempts + 1, lease written",
    (_C.READY, _C.EXHAUSTED): "deadline, rolled_back, circuit_open or paused, between attempts",
    (_C.READY, _C.CANCELLED): "rolled_back, or taken back by a person, before any attempt",
    (_C.IN_FLIGHT, _C.DELIVERED): "confirmed, also as a duplicate",
    (_C.IN_FLIGHT, _C.REJECTED): "refused for a business reason",
    (_C.IN_FLIGHT, _C.READY): "retry at due_at",
    (_C.IN_FLIGHT, _C.EXHAUSTED): "attempts or time ran out",
    (_C.REJECTED, _C.READY): "re-driven by a person (bet's terminal only)",
    (_C.EXHAUSTED, _C.READY): "re-driven by a person (bet's terminal only)",
}
"""Every move there is; the database refuses all others, and the last two for PING, BALANCE and BET_MAKE."""

FINAL = frozenset({_C.DELIVERED, _C.REJECTED, _C.EXHAUSTED, _C.CANCELLED})


class BetEvent(StrEnum):
    """What may happen to a bet.

    `rollback_asked` has three kinds while placing, after what the placement has come to.
    """

    PLACEMENT_DELIVERED = "BET_MAKE delivered"
    PLACEMENT_ENDED_NONE = "BET_MAKE rejected or exhausted, effect none"
    PLACEMENT_ENDED_UNKNOWN = "BET_MAKE rejected or exhausted, effect unknown"
    TERMINAL_ENQUEUED = "terminal enqueued"
    TERMINAL_DELIVERED = "terminal delivered"
    ROLLBACK_UNAPPLIED = "rollback_bet() while BET_MAKE is not in flight, effect none"
    ROLLBACK_UNKNOWN = "rollback_bet() while BET_MAKE waits for a retry, effect unknown"
    ROLLBACK_IN_FLIGHT = "rollback_bet() while BET_MAKE is in flight"
    ROLLBACK_ASKED = "rollback_bet()"
    PLACEMENT_TAKEN_BACK = "BET_MAKE taken back before any attempt"
    TERMINAL_TAKEN_BACK = "terminal taken back before any attempt"


class Waiting(StrEnum):
    """What an event does to a terminal callback of the bet."""

    RELEASED = "a waiting terminal becomes ready"
    CANCELLED = "a waiting terminal is cancelled"
    FLAGGED = "a waiting terminal is cancelled and flagged, a rollback is ready"
    REPLACED = "a waiting terminal is cancelled, a rollback waits"
    REPLACED_READY = "a waiting terminal is cancelled, a rollback is ready"
    ENQUEUED_WAITING = "it waits"
    ENQUEUED_READY = "it is ready"
    ROLLBACK_READY = "a rollback is ready"
    TAKEN_BACK = "it is cancelled, another may be enqueued"
    UNTOUCHED = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BetRule:
    """One row of DESIGN.md 5: where the bet goes, and where it goes instead if a terminal was waiting."""

    next: BetState
    waiting: Waiting = Waiting.UNTOUCHED
    next_if_waiting: BetState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The event is refused with this SQLSTATE and changes nothing."""

    sqlstate: str = "PD005"


@dataclass(frozen=True, slots=True, kw_only=True)
class SameAgain:
    """rollback_bet() returns the rollback the bet has, or NULL; PD005 where another terminal ends the bet."""


_B = BetState
_E = BetEvent

BET_RULES: dict[tuple[BetState, BetEvent], BetRule | Refused | SameAgain] = {
    (_B.PLACING, _E.PLACEMENT_DELIVERED): BetRule(next=_B.OPEN, next_if_waiting=_B.CLOSING, waiting=Waiting.RELEASED),
    (_B.PLACING, _E.PLACEMENT_ENDED_NONE): BetRule(next=_B.VOID, waiting=Waiting.CANCELLED),
    (_B.PLACING, _E.PLACEMENT_ENDED_UNKNOWN): BetRule(next=_B.CLOSING, waiting=Waiting.FLAGGED),
    (_B.PLACING, _E.TERMINAL_ENQUEUED): BetRule(next=_B.PLACING, waiting=Waiting.ENQUEUED_WAITING),
    (_B.PLACING, _E.ROLLBACK_UNAPPLIED): BetRule(next=_B.VOID, waiting=Waiting.CANCELLED),
    (_B.PLACING, _E.ROLLBACK_UNKNOWN): BetRule(next=_B.CLOSING, waiting=Waiting.REPLACED_READY),
    (_B.PLACING, _E.ROLLBACK_IN_FLIGHT): BetRule(next=_B.PLACING, waiting=Waiting.REPLACED),
    (_B.OPEN, _E.TERMINAL_ENQUEUED): BetRule(next=_B.CLOSING, waiting=Waiting.ENQUEUED_READY),
    (_B.OPEN, _E.ROLLBACK_ASKED): BetRule(next=_B.CLOSING, waiting=Waiting.ROLLBACK_READY),
    (_B.CLOSING, _E.TERMINAL_ENQUEUED): Refused(),
    (_B.CLOSING, _E.TERMINAL_DELIVERED): BetRule(next=_B.CLOSED),
    (_B.CLOSING, _E.ROLLBACK_ASKED): SameAgain(),
    (_B.CLOSED, _E.TERMINAL_ENQUEUED): Refused(),
    (_B.CLOSED, _E.ROLLBACK_ASKED): SameAgain(),
    (_B.VOID, _E.TERMINAL_ENQUEUED): Refused(),
    (_B.VOID, _E.ROLLBACK_ASKED): SameAgain(),
    (_B.PLACING, _E.PLACEMENT_TAKEN_BACK): BetRule(next=_B.VOID, waiting=Waiting.CANCELLED),
    (_B.OPEN, _E.PLACEMENT_TAKEN_BACK): Refused(),
    (_B.CLOSING, _E.PLACEMENT_TAKEN_BACK): Refused(),
    (_B.CLOSED, _E.PLACEMENT_TAKEN_BACK): Refused(),
    (_B.VOID, _E.PLACEMENT_TAKEN_BACK): Refused(),
    (_B.PLACING, _E.TERMINAL_TAKEN_BACK): BetRule(next=_B.PLACING, waiting=Waiting.TAKEN_BACK),
    (_B.OPEN, _E.TERMINAL_TAKEN_BACK): Refused(),
    (_B.CLOSING, _E.TERMINAL_TAKEN_BACK): BetRule(next=_B.OPEN, waiting=Waiting.TAKEN_BACK),
    (_B.CLOSED, _E.TERMINAL_TAKEN_BACK): Refused(),
    (_B.VOID, _E.TERMINAL_TAKEN_BACK): Refused(),
}
"""Every (state, event) that can happen. The others cannot: a placement settles once, a terminal only while closing.

What was attempted, and a BET_ROLLBACK, is never taken back: that is refused too, and changes nothing.
"""


class Outcome(NamedTuple):
    """What becomes of a callback after one attempt; `due_in_s` is set for READY alone, counted from the settling."""

    verdict: Verdict
    state: CallbackState
    reason: str | None
    effect: Effect
    due_in_s: float | None = None


def outcome_of(
    callback: Callback, judgement: Judgement, policy: LaneSettings, *, recheck_s: float, elapsed_s: float, jitter: float
) -> Outcome:
    """What becomes of `callback` after an attempt judged so. `elapsed_s` since its lease began.

    `jitter` a draw from -1 to 1.
    """
    effect = _later_effect(callback.effect, judgement.effect)
    match judgement.verdict:
        case Verdict.DELIVERED:
            if judgement.reason == "nothing_to_reverse" and _debit_may_still_land(callback, recheck_s, elapsed_s):
                # Asked once more after the pause, whatever the budget says: only time can tell, and it is asked once.
                return _retry(callback, judgement.reason, effect, delay=recheck_s, elapsed_s=elapsed_s)
            return Outcome(verdict=Verdict.DELIVERED, state=_C.DELIVERED, reason=judgement.reason, effect=effect)
        case Verdict.REJECTED:
            return Outcome(verdict=Verdict.REJECTED, state=_C.REJECTED, reason=judgement.reason, effect=effect)
        case Verdict.RETRY:
            tries = callback.attempt - callback.budget_from
            attempts_max = 1 if RULES[callback.method].retries is Retries.PROBE else policy.max_attempts
            # An attempt that our own stopping kept from being sent is not one of those that the policy counts.
            was_sent = not (judgement.reason == "interrupted" and judgement.effect is None)
            if tries >= attempts_max and was_sent:
                return Outcome(verdict=Verdict.RETRY, state=_C.EXHAUSTED, reason="max_attempts", effect=effect)
            delay = delay_s(policy, tries=tries, jitter=jitter, retry_after_s=judgement.retry_after_s)
            return _retry(callback, judgement.reason, effect, delay=delay, elapsed_s=elapsed_s)
        case Verdict.LATE:
            message = "only the database can say that a report is late"
            raise ValueError(message)
        case never:
            assert_never(never)


def _retry(callback: Callback, reason: str | None, effect: Effect, *, delay: float, elapsed_s: float) -> Outcome:
    """Due again, or exhausted at once where the deadline comes first: whoever waits is told now, not then."""
    if callback.expires_in_s is not None and elapsed_s + delay >= callback.expires_in_s:
        return Outcome(verdict=Verdict.RETRY, state=_C.EXHAUSTED, reason="deadline", effect=effect)
    return Outcome(verdict=Verdict.RETRY, state=_C.READY, reason=reason, effect=effect, due_in_s=delay)


_EFFECTS = tuple(Effect)


def _later_effect(before: Effect, learnt: Effect | None) -> Effect:
    """The one that is further on the way from none to unknown to applied; None teaches nothing."""
    if learnt is None or before is Effect.NONE:
        return learnt or before
    return max(before, learnt, key=_EFFECTS.index)


def _debit_may_still_land(callback: Callback, recheck_s: float, elapsed_s: float) -> bool:
    """True while the placement's last attempt ended less than `recheck_s` ago.

    An adopted bet's placement was never ours.
    """
    ended_s_ago = callback.placement_ended_s_ago
    return ended_s_ago is not None and ended_s_ago + elapsed_s < recheck_s
