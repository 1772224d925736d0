"""All moves of a callback and of a bet, as two tables, and the diagrams drawn from them.

Nothing here runs in the daemon. The database enforces the rules, because producers and daemons
race: triggers refuse every move that CALLBACK_MOVES does not list, and functions move a bet as
BET_RULES says. The tests try every pair of states and every (state, event) pair. `python -m
predictu_dispatch.core.specification` prints the diagrams of predictu_dispatch/DESIGN.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from predictu_dispatch.core.lifecycle import FINAL, BetState, CallbackState

_C = CallbackState

CALLBACK_MOVES: dict[tuple[CallbackState, CallbackState], str] = {
    (_C.WAITING, _C.READY): "its bet's earlier callback is settled",
    (_C.WAITING, _C.CANCELLED): "its bet was not placed, its bet is rolled back, or it was cancelled manually",
    (_C.READY, _C.IN_FLIGHT): "claimed: attempts + 1, lease written",
    (_C.READY, _C.EXHAUSTED): "deadline, rolled_back, circuit_open or paused, between attempts; or abandoned manually",
    (_C.READY, _C.CANCELLED): "rolled_back, or cancelled manually, before any attempt",
    (_C.IN_FLIGHT, _C.DELIVERED): "confirmed, also as a duplicate",
    (_C.IN_FLIGHT, _C.REJECTED): "rejected for a business reason",
    (_C.IN_FLIGHT, _C.READY): "retry at due_at",
    (_C.IN_FLIGHT, _C.EXHAUSTED): "no attempt or no time left",
    (_C.REJECTED, _C.READY): "retried manually (bet's terminal only)",
    (_C.EXHAUSTED, _C.READY): "retried manually (bet's terminal only)",
}
"""Every allowed move. The last two are refused for PING, BALANCE and BET_MAKE."""


class BetEvent(StrEnum):
    """What may happen to a bet; `rollback_bet()` while `placing` is three events."""

    PLACEMENT_DELIVERED = "BET_MAKE delivered"
    PLACEMENT_ENDED_NONE = "BET_MAKE rejected or exhausted, effect none"
    PLACEMENT_ENDED_UNKNOWN = "BET_MAKE rejected or exhausted, effect unknown"
    TERMINAL_ENQUEUED = "terminal enqueued"
    TERMINAL_DELIVERED = "terminal delivered"
    ROLLBACK_UNAPPLIED = "rollback_bet() while BET_MAKE is not in flight, effect none"
    ROLLBACK_UNKNOWN = "rollback_bet() while BET_MAKE waits for a retry, effect unknown"
    ROLLBACK_IN_FLIGHT = "rollback_bet() while BET_MAKE is in flight"
    ROLLBACK_REQUESTED = "rollback_bet()"
    PLACEMENT_CANCELLED = "BET_MAKE cancelled before any attempt"
    TERMINAL_CANCELLED = "terminal cancelled before any attempt"


class TerminalChange(StrEnum):
    """What an event does to a terminal callback of the bet."""

    RELEASED = "a waiting terminal becomes ready"
    CANCELLED = "a waiting terminal is cancelled"
    SENT_TO_REVIEW = "a waiting terminal is cancelled and needs review, a rollback is ready"
    REPLACED = "a waiting terminal is cancelled, a rollback waits"
    REPLACED_READY = "a waiting terminal is cancelled, a rollback is ready"
    ENQUEUED_WAITING = "it waits"
    ENQUEUED_READY = "it is ready"
    ROLLBACK_READY = "a rollback is ready"
    WITHDRAWN = "it is cancelled, another may be enqueued"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BetRule:
    """The bet's next state, and its next state if a terminal was waiting."""

    next: BetState
    terminal: TerminalChange = TerminalChange.NONE
    next_if_waiting: BetState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRefused:
    """The event is refused with this SQLSTATE and changes nothing."""

    sqlstate: str = "PD005"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRepeated:
    """rollback_bet() returns the bet's rollback or NULL; PD005 if another terminal ends it."""


_B = BetState
_E = BetEvent
_T = TerminalChange

BET_RULES: dict[tuple[BetState, BetEvent], BetRule | EventRefused | RollbackRepeated] = {
    (_B.PLACING, _E.PLACEMENT_DELIVERED): BetRule(next=_B.OPEN, next_if_waiting=_B.CLOSING, terminal=_T.RELEASED),
    (_B.PLACING, _E.PLACEMENT_ENDED_NONE): BetRule(next=_B.VOID, terminal=_T.CANCELLED),
    (_B.PLACING, _E.PLACEMENT_ENDED_UNKNOWN): BetRule(next=_B.CLOSING, terminal=_T.SENT_TO_REVIEW),
    (_B.PLACING, _E.TERMINAL_ENQUEUED): BetRule(next=_B.PLACING, terminal=_T.ENQUEUED_WAITING),
    (_B.PLACING, _E.ROLLBACK_UNAPPLIED): BetRule(next=_B.VOID, terminal=_T.CANCELLED),
    (_B.PLACING, _E.ROLLBACK_UNKNOWN): BetRule(next=_B.CLOSING, terminal=_T.REPLACED_READY),
    (_B.PLACING, _E.ROLLBACK_IN_FLIGHT): BetRule(next=_B.PLACING, terminal=_T.REPLACED),
    (_B.OPEN, _E.TERMINAL_ENQUEUED): BetRule(next=_B.CLOSING, terminal=_T.ENQUEUED_READY),
    (_B.OPEN, _E.ROLLBACK_REQUESTED): BetRule(next=_B.CLOSING, terminal=_T.ROLLBACK_READY),
    (_B.CLOSING, _E.TERMINAL_ENQUEUED): EventRefused(),
    (_B.CLOSING, _E.TERMINAL_DELIVERED): BetRule(next=_B.CLOSED),
    (_B.CLOSING, _E.ROLLBACK_REQUESTED): RollbackRepeated(),
    (_B.CLOSED, _E.TERMINAL_ENQUEUED): EventRefused(),
    (_B.CLOSED, _E.ROLLBACK_REQUESTED): RollbackRepeated(),
    (_B.VOID, _E.TERMINAL_ENQUEUED): EventRefused(),
    (_B.VOID, _E.ROLLBACK_REQUESTED): RollbackRepeated(),
    (_B.PLACING, _E.PLACEMENT_CANCELLED): BetRule(next=_B.VOID, terminal=_T.CANCELLED),
    (_B.OPEN, _E.PLACEMENT_CANCELLED): EventRefused(),
    (_B.CLOSING, _E.PLACEMENT_CANCELLED): EventRefused(),
    (_B.CLOSED, _E.PLACEMENT_CANCELLED): EventRefused(),
    (_B.VOID, _E.PLACEMENT_CANCELLED): EventRefused(),
    (_B.PLACING, _E.TERMINAL_CANCELLED): BetRule(next=_B.PLACING, terminal=_T.WITHDRAWN),
    (_B.OPEN, _E.TERMINAL_CANCELLED): EventRefused(),
    (_B.CLOSING, _E.TERMINAL_CANCELLED): BetRule(next=_B.OPEN, terminal=_T.WITHDRAWN),
    (_B.CLOSED, _E.TERMINAL_CANCELLED): EventRefused(),
    (_B.VOID, _E.TERMINAL_CANCELLED): EventRefused(),
}
"""Every (state, event) that can happen: a placement settles once, a terminal only while closing.

A callback that was attempted, and a BET_ROLLBACK, can never be cancelled: that is refused.
"""


def bet_moves() -> set[tuple[BetState, BetState]]:
    """Return every pair of different states between which BET_RULES moves a bet."""
    return {
        (state, new)
        for (state, _), rule in BET_RULES.items()
        if isinstance(rule, BetRule)
        for new in (rule.next, rule.next_if_waiting)
        if new is not None and new is not state
    }


def callback_diagram() -> str:
    """Draw a callback's life as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> waiting", "    [*] --> ready"]
    lines += [f"    {old} --> {new}: {_label(why)}" for (old, new), why in CALLBACK_MOVES.items()]
    lines += [f"    {state} --> [*]" for state in CallbackState if state in FINAL]
    return "\n".join(lines)


def bet_diagram() -> str:
    """Draw a bet's life as a Mermaid state diagram, without refused events."""
    lines = ["stateDiagram-v2", "    [*] --> placing: BET_MAKE enqueued", "    [*] --> open: adopt_bet()"]
    for (state, event), rule in BET_RULES.items():
        if isinstance(rule, BetRule):
            what = f"{event} / {rule.terminal}" if rule.terminal else str(event)
            if rule.next_if_waiting is None:
                lines.append(f"    {state} --> {rule.next}: {_label(what)}")
            else:
                lines.append(f"    {state} --> {rule.next}: {_label(str(event))}, nothing waits")
                lines.append(f"    {state} --> {rule.next_if_waiting}: {_label(what)}")
    lines += [f"    {state} --> [*]" for state in (BetState.CLOSED, BetState.VOID)]
    return "\n".join(lines)


def _label(text: str) -> str:
    """Return a label without semicolon and colon, which Mermaid reads as markup."""
    return text.replace(";", ",").replace(":", ",")


if __name__ == "__main__":
    print(f"```mermaid\n{callback_diagram()}\n```\n\n```mermaid\n{bet_diagram()}\n```")  # noqa: T201 - printing is its use
