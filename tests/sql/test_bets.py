"""The SQL functions move a bet as core/specification.py says, for every (state, event).

Listed events have the listed result, with and without a waiting terminal; all others change
nothing.
"""

import itertools
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import pytest

from predictu_dispatch.core.lifecycle import BetState
from predictu_dispatch.core.specification import BET_RULES, BetEvent, BetRule, EventRefused, TerminalChange
from tests.support.harness import Harness, Report, delivered, exhausted, reaped, rejected, retried

SOME_TIME = datetime(2026, 1, 2, tzinfo=UTC)
Way = Callable[[Harness, uuid.UUID], Awaitable[object]]
"""Moves a placement from never attempted to another state."""


async def never_attempted(_ledger: Harness, _placement: uuid.UUID) -> None:
    """Leave the placement ready."""


async def leased(harness: Harness, placement: uuid.UUID) -> None:
    await harness.lease(placement)


def attempted(came_to: Callable[..., Report], *, after: Way = never_attempted, **fields: str) -> Way:
    async def way(harness: Harness, placement: uuid.UUID) -> None:
        await after(harness, placement)
        await harness.attempt(placement, came_to, **fields)

    return way


def expired(after: Way) -> Way:
    async def way(harness: Harness, placement: uuid.UUID) -> None:
        await after(harness, placement)
        await harness.let_deadline_pass(placement)
        await harness.expire()

    return way


def rolled_back(after: Way) -> Way:
    async def way(harness: Harness, placement: uuid.UUID) -> None:
        await after(harness, placement)
        await harness.rollback((await harness.callback(placement))["bet_id"])

    return way


without_effect = attempted(retried, effect="none", evidence="not_sent")
with_unknown_effect = attempted(retried)

WAYS: dict[BetEvent, list[Way]] = {
    BetEvent.PLACEMENT_DELIVERED: [attempted(delivered), attempted(delivered, after=with_unknown_effect)],
    BetEvent.PLACEMENT_ENDED_NONE: [
        attempted(rejected),
        attempted(rejected, after=without_effect),
        attempted(exhausted, effect="none"),
        expired(never_attempted),
        expired(without_effect),
    ],
    BetEvent.PLACEMENT_ENDED_UNKNOWN: [
        attempted(exhausted),
        attempted(rejected, after=with_unknown_effect),
        attempted(exhausted, after=attempted(reaped)),
        expired(with_unknown_effect),
    ],
    BetEvent.ROLLBACK_UNAPPLIED: [rolled_back(never_attempted), rolled_back(without_effect)],
    BetEvent.ROLLBACK_UNKNOWN: [rolled_back(with_unknown_effect), rolled_back(attempted(reaped))],
    BetEvent.ROLLBACK_IN_FLIGHT: [rolled_back(leased)],
}
"""The action behind each event of a placing bet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """The result of an event: states of the bet, of the waiting terminal, and of rollbacks."""

    bet: str
    terminal: str | None
    needs_review: bool
    rollbacks: tuple[str, ...]


def expected_of(rule: BetRule, waits: str | None) -> After:
    """The expected result of the rule.

    A rollback that already waits replaces any other terminal.
    """
    if waits is None:
        rollback = {
            TerminalChange.SENT_TO_REVIEW: ("ready",),
            TerminalChange.REPLACED_READY: ("ready",),
            TerminalChange.REPLACED: ("waiting",),
        }
        return After(bet=rule.next, terminal=None, needs_review=False, rollbacks=rollback.get(rule.terminal, ()))
    own, others = {
        TerminalChange.RELEASED: ("ready", ()),
        TerminalChange.CANCELLED: ("cancelled", ()),
        TerminalChange.SENT_TO_REVIEW: ("ready", ("ready",)),
        TerminalChange.REPLACED_READY: ("ready", ("ready",)),
        TerminalChange.REPLACED: ("waiting", ("waiting",)),
    }[rule.terminal]
    bet = rule.next_if_waiting or rule.next
    if waits == "BET_ROLLBACK":
        return After(bet=bet, terminal=own, needs_review=False, rollbacks=() if own == "cancelled" else (own,))
    terminal = "cancelled" if others else own
    return After(
        bet=bet, terminal=terminal, needs_review=rule.terminal is TerminalChange.SENT_TO_REVIEW, rollbacks=others
    )


async def seen(harness: Harness, bet_id: str, terminal: uuid.UUID | None) -> After:
    callback = await harness.callback(terminal) if terminal else None
    return After(
        bet=(await harness.bet(bet_id))["state"],
        terminal=callback["state"] if callback else None,
        needs_review=callback is not None and callback["review_since"] is not None,
        rollbacks=tuple(rollback["state"] for rollback in await harness.rollbacks(bet_id)),
    )


@pytest.mark.parametrize("event", WAYS)
async def test_a_placing_bet_follows_its_placement(harness: Harness, event: BetEvent) -> None:
    rule = BET_RULES[BetState.PLACING, event]
    assert isinstance(rule, BetRule)
    for number, (way, waits) in enumerate(
        itertools.product(WAYS[event], (None, "BET_WIN", "BET_LOSE", "BET_ROLLBACK"))
    ):
        bet_id = f"b{number}"
        placement = await harness.place(bet_id)
        terminal = await harness.end(waits, bet_id) if waits else None
        await way(harness, placement)
        assert await seen(harness, bet_id, terminal) == expected_of(rule, waits), (number, waits)


async def reach(harness: Harness, state: BetState, bet_id: str) -> tuple[uuid.UUID, uuid.UUID | None]:
    """Create a bet in this state; returns its placement and its terminal."""
    placement, win = await harness.place(bet_id), None
    if state is BetState.VOID:
        await harness.attempt(placement, rejected)
    elif state is not BetState.PLACING:
        await harness.attempt(placement, delivered)
    if state in (BetState.CLOSING, BetState.CLOSED):
        win = await harness.end("BET_WIN", bet_id)
    if state is BetState.CLOSED:
        assert win is not None
        await harness.attempt(win, delivered)
    assert (await harness.bet(bet_id))["state"] == state
    return placement, win


@pytest.mark.parametrize("state", BetState)
async def test_enqueueing_a_terminal_depends_on_the_bets_state(harness: Harness, state: BetState) -> None:
    await reach(harness, state, "b1")
    rule = BET_RULES[state, BetEvent.TERMINAL_ENQUEUED]
    if isinstance(rule, BetRule):
        terminal = await harness.end("BET_SELL")
        assert (await harness.bet())["state"] == rule.next
        assert (
            await harness.state(terminal)
            == {TerminalChange.ENQUEUED_WAITING: "waiting", TerminalChange.ENQUEUED_READY: "ready"}[rule.terminal]
        )
        # It is now the bet's only terminal.
        rule = EventRefused()
    assert isinstance(rule, EventRefused)
    before = await harness.everything()
    for method in ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK"):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await harness.end(method)
        assert refused.value.sqlstate == rule.sqlstate
    assert await harness.everything() == before


async def test_a_delivered_terminal_closes_its_bet(harness: Harness) -> None:
    assert BET_RULES[BetState.CLOSING, BetEvent.TERMINAL_DELIVERED] == BetRule(next=BetState.CLOSED)
    for number, method in enumerate(("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK")):
        bet_id = f"b{number}"
        await reach(harness, BetState.OPEN, bet_id)
        terminal = await harness.end(method, bet_id)
        await harness.attempt(terminal, retried)
        assert (await harness.bet(bet_id))["state"] == "closing"
        await harness.attempt(terminal, delivered)
        assert (await harness.bet(bet_id))["state"] == "closed"


async def test_unlisted_events_change_nothing(harness: Harness) -> None:
    """A placement settles once, a terminal only while in flight; others are late or refused."""
    unlisted = set(itertools.product(BetState, BetEvent)) - set(BET_RULES)
    assert unlisted == (
        {(state, event) for state in BetState for event in WAYS if state is not BetState.PLACING}
        | {(state, BetEvent.TERMINAL_DELIVERED) for state in BetState if state is not BetState.CLOSING}
        # During placing the event has three names, by the placement's progress.
        | {(BetState.PLACING, BetEvent.ROLLBACK_REQUESTED)}
    )
    for number, state in enumerate(BetState):
        bet_id = f"b{number}"
        placement, terminal = await reach(harness, state, bet_id)
        if state is BetState.PLACING:
            terminal = await harness.end("BET_WIN", bet_id)
        else:
            assert await harness.state(placement) not in ("ready", "in_flight"), (
                "otherwise rollback_bet() could find it"
            )
        before = await harness.everything()
        for callback in [dict(await harness.callback(named)) for named in (placement, terminal) if named]:
            for attempts_ahead, came_to in itertools.product((0, 1), (delivered, rejected, exhausted, retried)):
                attempt = callback["attempts"] + attempts_ahead or 1
                forged = came_to(callback | {"attempt": attempt, "leased_at": SOME_TIME})
                cause = "late" if attempt <= callback["attempts"] else "unknown_attempt"
                assert [change["cause"] for change in await harness.settle(forged)] == [cause]
        assert await harness.everything() == before, state
