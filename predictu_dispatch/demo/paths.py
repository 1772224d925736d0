"""The paths of a bet's life, each recognised in the ledger after the demo.

A path that did not occur fails the demo, because then the check of the books says nothing about it.
The producer counts paths that leave no trace in a table, such as a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from predictu_dispatch.books_check.check import Check
from predictu_dispatch.books_check.ledgers import BetHistory, PredictuLedger


class _Facts(NamedTuple):
    """The facts of one bet; `placement` is its final state and effect, or `adopted`."""

    placement: str
    attempted: bool
    by_rollback: bool  # rollback_bet() ended the placement
    in_flight: bool  # rollback_bet() found the placement in flight
    waited: bool  # the terminal was enqueued before the placement was final
    cancelled: bool  # a waiting terminal was cancelled
    needs_review: bool
    ended_by: str  # the method of the delivered terminal
    nothing_to_reverse: bool  # the rollback's final reason
    rechecked: bool
    duplicate: bool
    interrupted: frozenset[str]  # methods


def _facts(history: BetHistory) -> _Facts:
    bet, placement, terminal, cancelled, attempts = history
    final_at = placement.finished_at if placement else None
    return _Facts(
        placement=f"{placement.state} {placement.effect}" if placement else f"adopted {bet.state}",
        attempted=placement is not None and placement.attempts > 0,
        by_rollback=placement is not None and placement.reason == "rolled_back",
        in_flight=placement is not None and placement.retry_stopped,
        waited=terminal is not None and final_at is not None and terminal.created_at < final_at,
        cancelled=bool(cancelled),
        needs_review=any(one.in_review for one in cancelled),
        ended_by=terminal.method if terminal is not None and terminal.state == "delivered" else "",
        nothing_to_reverse=terminal is not None and terminal.reason == "nothing_to_reverse",
        rechecked=sum(attempt.reason == "nothing_to_reverse" for attempt in attempts) > 1,
        duplicate=any(one.verdict == "delivered" and one.attempt > 1 and one.is_duplicate for one in attempts),
        interrupted=frozenset(attempt.method for attempt in attempts if attempt.reason == "interrupted"),
    )


_PATHS: Final[Mapping[str, Callable[[_Facts], bool]]] = {
    "BET_MAKE delivered: open": lambda f: f.placement == "delivered applied" and not f.waited,
    "BET_MAKE delivered: a waiting terminal is sent": lambda f: (
        f.placement == "delivered applied" and f.waited and not f.in_flight
    ),
    "BET_MAKE rejected, effect none: void": lambda f: f.placement == "rejected none" and not f.cancelled,
    "BET_MAKE rejected, effect none: a waiting terminal is cancelled": lambda f: (
        f.placement == "rejected none" and f.cancelled
    ),
    "BET_MAKE exhausted, effect none: void": lambda f: (
        f.placement == "exhausted none" and not f.by_rollback and not f.cancelled
    ),
    "BET_MAKE exhausted, effect none: a waiting terminal is cancelled": lambda f: (
        f.placement == "exhausted none" and not f.by_rollback and f.cancelled
    ),
    "BET_MAKE expired before any attempt: void": lambda f: (
        f.placement == "exhausted none" and not f.by_rollback and not f.attempted
    ),
    "BET_MAKE rejected, effect unknown: rolled back": lambda f: f.placement == "rejected unknown",
    "BET_MAKE exhausted, effect unknown: rolled back": lambda f: (
        f.placement == "exhausted unknown" and not f.by_rollback
    ),
    "BET_MAKE exhausted, effect unknown: a waiting terminal is cancelled and needs review": lambda f: (
        f.placement == "exhausted unknown" and not f.by_rollback and f.needs_review
    ),
    "rollback_bet() before any attempt: void, nothing sent": lambda f: (
        f.placement == "cancelled none" and not f.cancelled
    ),
    "rollback_bet() before any attempt: a waiting terminal is cancelled": lambda f: (
        f.placement == "cancelled none" and f.cancelled
    ),
    "rollback_bet() between attempts, effect none: void": lambda f: f.placement == "exhausted none" and f.by_rollback,
    "rollback_bet() between attempts, effect unknown: rolled back": lambda f: (
        f.placement == "exhausted unknown" and f.by_rollback and not f.in_flight
    ),
    "rollback_bet() in flight, then delivered: rolled back": lambda f: (
        f.placement == "delivered applied" and f.in_flight
    ),
    "rollback_bet() in flight, then no answer: rolled back": lambda f: (
        f.placement == "exhausted unknown" and f.in_flight
    ),
    "rollback_bet() in flight: a waiting terminal is cancelled": lambda f: f.in_flight and f.cancelled,
    "rollback_bet() on an open bet: rolled back": lambda f: (
        f.placement == "delivered applied" and f.ended_by == "BET_ROLLBACK" and not f.in_flight
    ),
    "adopted, then ended": lambda f: f.placement == "adopted closed",
    "ended by BET_WIN": lambda f: f.ended_by == "BET_WIN",
    "ended by BET_LOSE": lambda f: f.ended_by == "BET_LOSE",
    "ended by BET_SELL": lambda f: f.ended_by == "BET_SELL",
    "ended by BET_REFUND": lambda f: f.ended_by == "BET_REFUND",
    "ended by BET_ROLLBACK: the debit is reversed": lambda f: f.ended_by == "BET_ROLLBACK" and not f.nothing_to_reverse,
    "ended by BET_ROLLBACK: nothing to reverse": lambda f: f.ended_by == "BET_ROLLBACK" and f.nothing_to_reverse,
    "nothing to reverse: sent once more after the pause": lambda f: f.rechecked,
    "confirmed as a duplicate on a later attempt": lambda f: f.duplicate,
    "in flight when the daemon was killed: reaped": lambda f: bool(f.interrupted),
    "a credit in flight when the daemon was killed: paid once": lambda f: "BET_WIN" in f.interrupted,
}

OBSERVED: Final = (
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


def count_paths(predictu: PredictuLedger, observed: Mapping[str, int]) -> dict[str, int]:
    """How many bets took each path; `observed` has the counts of the producer."""
    bets = [_facts(history) for history in predictu.histories()]
    counted = {path: sum(map(is_taken, bets)) for path, is_taken in _PATHS.items()}
    return counted | {path: observed.get(path, 0) for path in OBSERVED}


def paths_check(paths: Mapping[str, int]) -> Check:
    """Every path occurred."""
    return Check(
        name="every path of a bet was taken",
        rows=sum(paths.values()),
        figures=f"{sum(count > 0 for count in paths.values())} of {len(paths)} paths",
        faults=tuple(f"did not occur: {path}" for path, count in paths.items() if count == 0),
    )
