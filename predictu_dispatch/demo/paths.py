"""The paths of DESIGN.md 5 and 11 that a bet can take, each recognised in what the database holds afterwards.

A path that never occurred is a failure of the demo, because then the proof would say nothing about it. What leaves no
trace in any table, such as a refusal, the platform has witnessed itself; those come last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from predictu_dispatch.demo.books import AttemptRow, BetRow, CallbackRow, PredictuBooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One bet with all that belongs to it; `ending` is the terminal that counts, `cancelled` those that do not."""

    bet: BetRow
    placement: CallbackRow | None
    ending: CallbackRow | None
    cancelled: tuple[CallbackRow, ...]
    attempts: tuple[AttemptRow, ...]

    def placed(self, state: str, effect: str | None = None) -> bool:
        """True where the placement ended so."""
        return self.placement is not None and self.placement.state == state and effect in {None, self.placement.effect}

    def failed(self, effect: str) -> bool:
        """True where the operator's answers ended the placement, unconfirmed, and no rollback_bet() did."""
        return (self.placed("rejected", effect) or self.placed("exhausted", effect)) and not self.taken_back

    @property
    def taken_back(self) -> bool:
        """True where rollback_bet() ended the placement."""
        return self.placement is not None and self.placement.reason == "rolled_back"

    @property
    def met_in_flight(self) -> bool:
        """True where rollback_bet() found the placement in flight."""
        return self.placement is not None and self.placement.retry_stopped

    @property
    def ended_early(self) -> bool:
        """True where the terminal was enqueued while the placement was still under way."""
        placement, ending = self.placement, self.ending
        if placement is None or ending is None or placement.finished_at is None:
            return False
        return ending.created_at < placement.finished_at

    def ended_by(self, method: str) -> bool:
        """True where this terminal was delivered."""
        return self.ending is not None and self.ending.method == method and self.ending.state == "delivered"


_FOUND: Final[Mapping[str, Callable[[Story], bool]]] = {
    "BET_MAKE delivered: open": lambda s: s.placed("delivered") and not s.ended_early,
    "BET_MAKE delivered, a terminal was waiting: it goes": lambda s: (
        s.placed("delivered") and s.ended_early and not s.met_in_flight
    ),
    "BET_MAKE rejected, effect none: void": lambda s: s.placed("rejected", "none") and not s.cancelled,
    "BET_MAKE rejected, effect none: a waiting terminal is cancelled": lambda s: (
        s.placed("rejected", "none") and bool(s.cancelled)
    ),
    "BET_MAKE exhausted, effect none: void": lambda s: s.failed("none") and s.placed("exhausted") and not s.cancelled,
    "BET_MAKE exhausted, effect none: a waiting terminal is cancelled": lambda s: (
        s.failed("none") and s.placed("exhausted") and bool(s.cancelled)
    ),
    "BET_MAKE expired before any attempt: void": lambda s: (
        s.failed("none") and s.placement is not None and s.placement.attempts == 0
    ),
    "BET_MAKE rejected after an unknown effect: rolled back": lambda s: s.failed("unknown") and s.placed("rejected"),
    "BET_MAKE exhausted, effect unknown: rolled back": lambda s: s.failed("unknown") and s.placed("exhausted"),
    "BET_MAKE exhausted, effect unknown: a waiting terminal is cancelled and flagged": lambda s: (
        s.failed("unknown") and any(terminal.in_review for terminal in s.cancelled)
    ),
    "rollback_bet() before any attempt: void, nothing sent": lambda s: s.placed("cancelled") and not s.cancelled,
    "rollback_bet() before any attempt: a waiting terminal is cancelled": lambda s: (
        s.placed("cancelled") and bool(s.cancelled)
    ),
    "rollback_bet() between attempts, effect none: void": lambda s: s.taken_back and s.placed("exhausted", "none"),
    "rollback_bet() between attempts, effect unknown: rolled back": lambda s: (
        s.taken_back and s.placed("exhausted", "unknown") and not s.met_in_flight
    ),
    "rollback_bet() in flight, then delivered: rolled back": lambda s: s.met_in_flight and s.placed("delivered"),
    "rollback_bet() in flight, then no answer: rolled back": lambda s: s.met_in_flight and s.placed("exhausted"),
    "rollback_bet() in flight: a waiting terminal is cancelled": lambda s: s.met_in_flight and bool(s.cancelled),
    "rollback_bet() on an open bet: rolled back": lambda s: (
        s.ended_by("BET_ROLLBACK") and s.placed("delivered") and not s.met_in_flight
    ),
    "adopted, then ended": lambda s: s.placement is None and s.bet.state == "closed",
    "ended by BET_WIN": lambda s: s.ended_by("BET_WIN"),
    "ended by BET_LOSE": lambda s: s.ended_by("BET_LOSE"),
    "ended by BET_SELL": lambda s: s.ended_by("BET_SELL"),
    "ended by BET_REFUND": lambda s: s.ended_by("BET_REFUND"),
    "ended by BET_ROLLBACK, the debit given back": lambda s: (
        s.ended_by("BET_ROLLBACK") and s.ending is not None and s.ending.reason != "nothing_to_reverse"
    ),
    "ended by BET_ROLLBACK, nothing to reverse": lambda s: (
        s.ended_by("BET_ROLLBACK") and s.ending is not None and s.ending.reason == "nothing_to_reverse"
    ),
    "nothing to reverse, asked once more after the pause": lambda s: (
        sum(attempt.reason == "nothing_to_reverse" for attempt in s.attempts) > 1
    ),
    "confirmed as a duplicate on a later attempt": lambda s: any(
        attempt.verdict == "delivered" and attempt.attempt > 1 and attempt.is_duplicate for attempt in s.attempts
    ),
    "in flight when the daemon was killed: returned by the reaper": lambda s: any(
        attempt.reason == "interrupted" for attempt in s.attempts
    ),
    "a credit in flight when the daemon was killed: paid once": lambda s: (
        s.ended_by("BET_WIN") and any(a.reason == "interrupted" and a.method == "BET_WIN" for a in s.attempts)
    ),
}

WITNESSED: Final = (
    "terminal for a closing bet: refused",
    "terminal for a closed bet: refused",
    "terminal for a void bet: refused",
    "terminal for an unknown bet: refused",
    "rollback_bet() after another terminal: refused",
    "rollback_bet() for an unknown bet: refused",
    "the same request again: returned quietly",
    "rollback_bet() again: the same rollback",
    "rollback_bet() on a void bet: NULL",
)


def walked(books: PredictuBooks, witnessed: Mapping[str, int]) -> dict[str, int]:
    """Every path with the number of bets that took it, 0 where none did."""
    counts: Counter[str] = Counter()
    for story in stories(books):
        counts.update(path for path, is_taken in _FOUND.items() if is_taken(story))
    return {path: counts[path] for path in _FOUND} | {path: witnessed.get(path, 0) for path in WITNESSED}


def stories(books: PredictuBooks) -> list[Story]:
    """Every bet with its callbacks and their attempts."""
    return [_story(bet, books) for bet in books.bets]


def _story(bet: BetRow, books: PredictuBooks) -> Story:
    callbacks = books.callbacks_of(bet)
    return Story(
        bet=bet,
        placement=next((c for c in callbacks if c.method == "BET_MAKE"), None),
        ending=next((c for c in callbacks if c.method != "BET_MAKE" and c.state != "cancelled"), None),
        cancelled=tuple(c for c in callbacks if c.method != "BET_MAKE" and c.state == "cancelled"),
        attempts=tuple(attempt for callback in callbacks for attempt in books.attempts_of(callback)),
    )
