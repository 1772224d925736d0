"""retry, cancel, abandon and resolve in the database: allowed, or refused if they could cost money.

What an abandoned callback does to its bet is in test_abandon.py, concurrency in
test_intervention_races.py, pauses and records in test_intervention_records.py.
"""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from predictu_dispatch.core.lifecycle import FINAL, BetState, CallbackState
from predictu_dispatch.core.methods import RULES, Method
from predictu_dispatch.core.specification import BET_RULES, BetEvent, BetRule, TerminalChange
from tests.support.harness import (
    OPERATOR,
    WAIT_S,
    Connection,
    Harness,
    Report,
    claim,
    connected,
    delivered,
    enqueue,
    exhausted,
    rejected,
    retried,
)
from tests.support.interventions import (
    ALICE,
    BOB,
    abandon,
    cancel,
    recorded_interventions,
    refusal,
    resolve,
    retry,
    terminal_in_review,
)
from tests.support.postgres import Database

TERMINALS = ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK")
BALANCE = {"player_id": "p1", "currency": "EUR"}

# What may be done to what


async def every_callback(owner: Connection) -> list[dict[str, Any]]:
    """Each method in each state that the guard allows, attempted or not, in review or not."""
    callbacks: list[dict[str, Any]] = []
    for method, state, attempts, review in itertools.product(Method, CallbackState, (0, 1), (False, True)):
        if (
            (state == "waiting" and (attempts or method in ("PING", "BALANCE", "BET_MAKE")))
            or (state in ("in_flight", "delivered", "rejected") and not attempts)
            or (state == "cancelled" and attempts)
            or (review and state not in ("rejected", "exhausted", "cancelled"))
        ):
            continue
        request_id, bet_id = uuid.uuid4(), None if method in ("PING", "BALANCE") else f"b{len(callbacks)}"
        if bet_id:
            bet = "placing" if method == "BET_MAKE" or state == "waiting" else "closing"
            placement = request_id if method == "BET_MAKE" else uuid.uuid4()
            await owner.execute(
                "insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount,"
                " placement_request_id, terminal_request_id) values ($1, $2, $3, 'p1', 'EUR', 500, $4, $5)",
                *(OPERATOR, bet_id, bet, placement, None if method == "BET_MAKE" else request_id),
            )
        await owner.execute(
            "insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, effect,"
            " attempts, params, lease_until, finished_at, review_since)"
            " select $1, $2, $3, $4, $5, $6, $7, $8, '{}', case when $9 then 'infinity'::timestamptz end,"
            " case when $10 then now() end, case when $11 then now() end",
            *(OPERATOR, request_id, method, bet_id, RULES[method].lane, state),
            *("applied" if state == "delivered" else "none", attempts),
            *(state == "in_flight", state in FINAL, review),
        )
        callbacks.append(
            {"request_id": request_id, "method": method, "state": state, "attempts": attempts, "review": review}
        )
    return callbacks


def may_be_retried(callback: dict[str, Any]) -> bool:
    return callback["method"] in TERMINALS and callback["state"] in ("rejected", "exhausted") and callback["review"]


def may_be_cancelled(callback: dict[str, Any]) -> bool:
    never_attempted = callback["state"] in ("waiting", "ready") and callback["attempts"] == 0
    return never_attempted and callback["method"] != "BET_ROLLBACK"


def may_be_abandoned(callback: dict[str, Any]) -> bool:
    is_retried = callback["attempts"] > 0 or callback["method"] == "BET_ROLLBACK"
    return bool(callback["state"] == "ready" and is_retried)


def may_be_resolved(callback: dict[str, Any]) -> bool:
    return bool(callback["review"])


@pytest.mark.parametrize(
    ("action", "is_allowed"),
    [(retry, may_be_retried), (cancel, may_be_cancelled), (abandon, may_be_abandoned), (resolve, may_be_resolved)],
)
async def test_allowed_interventions_succeed_and_refused_ones_change_nothing(
    harness: Harness, action: Callable[..., Awaitable[Any]], is_allowed: Callable[[dict[str, Any]], bool]
) -> None:
    """No debit is ever retried, and no attempted callback is ever cancelled."""
    async with harness.owner.transaction():
        # As a replica, to create any combination; the intervention runs with all triggers.
        await harness.owner.execute("set local session_replication_role = replica")
        callbacks = await every_callback(harness.owner)
    for callback in callbacks:
        if is_allowed(callback):
            await action(harness.person, callback["request_id"])
            continue
        before = await harness.everything()
        sqlstate, message = await refusal(action(harness.person, callback["request_id"]))
        assert sqlstate == "PD005", callback
        assert f"{callback['method']} {callback['request_id']} of operator {OPERATOR} is refused: " in message
        assert await harness.everything() == before
    assert [deed[1] for deed in await recorded_interventions(harness)] == [
        one["request_id"] for one in callbacks if is_allowed(one)
    ]


# Retry


@pytest.mark.parametrize("came_to", [rejected, exhausted])
@pytest.mark.parametrize("method", TERMINALS)
async def test_a_retried_terminal_is_due_again_with_the_same_bytes_and_a_fresh_budget(
    harness: Harness, method: str, came_to: Callable[..., Report]
) -> None:
    await harness.attempt(await harness.place(), delivered)
    terminal = await harness.end(method)
    await harness.attempt(terminal, retried)
    first = await harness.lease(terminal)
    await harness.settle(came_to(first))
    await retry(harness.person, terminal)
    again = await harness.lease(terminal)
    for same in ("request_id", "method", "params", "amount_format", "created_at"):
        assert again[same] == first[same], same
    assert (again["attempt"], again["budget_from"]) == (3, 2)
    await harness.settle(delivered(again))
    assert ((await harness.bet())["state"], await harness.attempts(terminal)) == (
        "closed",
        [(1, "retry"), (2, "rejected" if came_to is rejected else "retry"), (3, "delivered")],
    )
    assert await recorded_interventions(harness) == [("retry", terminal, None, ALICE, "test_operations")]


async def test_a_retry_wakes_the_daemons(harness: Harness, database: Database) -> None:
    terminal, notifications = await terminal_in_review(harness), asyncio.Queue[str]()
    async with connected(database.dispatcher, 1) as [listener]:
        await listener.add_listener("predictu_dispatch_due", lambda *args: notifications.put_nowait(args[-1]))
        await retry(harness.person, terminal)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR


async def test_every_retry_sets_the_same_duration_until_the_deadline(harness: Harness) -> None:
    """Counted from the retry.

    Otherwise an expired callback would expire again before it is sent.
    """
    await harness.attempt(await harness.place(), delivered)
    win = await harness.end("BET_WIN")
    await harness.owner.execute(
        "update predictu_dispatch.callback set expires_at = created_at + interval '50 milliseconds'"
        " where request_id = $1",
        win,
    )
    for round_number in (1, 2, 3):
        async with asyncio.timeout(WAIT_S):
            while await harness.state(win) != "exhausted":
                await harness.expire()
        retried_row = await retry(harness.person, win)
        assert (retried_row["state"], retried_row["attempts"], retried_row["finished_at"]) == ("ready", 0, None)
        duration = retried_row["expires_at"] - retried_row["due_at"]
        assert duration.total_seconds() == pytest.approx(0.05), round_number


async def test_a_resolved_callback_is_never_retried_and_the_refusal_names_the_person(harness: Harness) -> None:
    win = await terminal_in_review(harness)
    await retry(harness.person, win)
    await harness.attempt(win, rejected)
    await resolve(harness.person, win, "paid by hand, ticket 7", BOB)
    resolved_at = await harness.owner.fetchval(
        "select to_char(done_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS') from predictu_dispatch.intervention"
        " where action = 'resolve'"
    )
    for action in (retry, resolve):
        sqlstate, message = await refusal(action(harness.person, win))
        assert sqlstate == "PD005"
        assert f"{BOB} resolved it at {resolved_at}Z: paid by hand, ticket 7" in message
    assert await claim(harness.daemon) == []
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.needs_review") == 0


# Cancel


async def withdrawn_bet(harness: Harness, state: BetState, waits: str | None) -> tuple[uuid.UUID, uuid.UUID | None]:
    """Create a bet in this state.

    Returns its placement and its terminal, never attempted if possible.
    """
    placement, terminal = await harness.place(), None
    if waits:
        terminal = await harness.end(waits)
    if state is BetState.VOID:
        await harness.attempt(placement, rejected)
    elif state is not BetState.PLACING:
        await harness.attempt(placement, delivered)
    if terminal and state is BetState.CLOSED:
        await harness.attempt(terminal, delivered)
    if terminal and state is BetState.OPEN:
        await cancel(harness.person, terminal)
    assert (await harness.bet())["state"] == state
    return placement, terminal


@pytest.mark.parametrize("state", BetState)
async def test_a_cancel_moves_the_bet_as_its_table_says(harness: Harness, state: BetState) -> None:
    walked = []
    for event, waits in itertools.product(
        (BetEvent.PLACEMENT_CANCELLED, BetEvent.TERMINAL_CANCELLED), (None, "BET_WIN", "BET_ROLLBACK")
    ):
        rule = BET_RULES[state, event]
        impossible = (
            waits is None and (state in (BetState.CLOSING, BetState.CLOSED) or event is BetEvent.TERMINAL_CANCELLED)
        ) or (waits == "BET_ROLLBACK" and (state is BetState.OPEN or event is BetEvent.TERMINAL_CANCELLED))
        if impossible:
            continue
        walked.append((event, waits))
        placement, terminal = await withdrawn_bet(harness, state, waits)
        named = placement if event is BetEvent.PLACEMENT_CANCELLED else terminal
        before = await harness.everything()
        if isinstance(rule, BetRule):
            await cancel(harness.person, named)
            callback = await harness.callback(named)
            assert (callback["state"], callback["reason"], callback["note"]) == (
                *("cancelled", "withdrawn", "market is void"),
            )
            assert (await harness.bet())["state"] == rule.next
            if rule.terminal is TerminalChange.CANCELLED and terminal:
                assert (await harness.callback(terminal))["reason"] == "bet_void"
            if rule.terminal is TerminalChange.WITHDRAWN:
                assert await harness.state(await harness.end("BET_SELL")) == (
                    "waiting" if rule.next == state else "ready"
                )
        else:
            assert (await refusal(cancel(harness.person, named)))[0] == "PD005"
            assert await harness.everything() == before
        await harness.owner.execute("truncate predictu_dispatch.callback, predictu_dispatch.bet")
    assert {event for event, _ in walked} == {BetEvent.PLACEMENT_CANCELLED, BetEvent.TERMINAL_CANCELLED}


async def test_a_cancelled_callback_is_notified(harness: Harness, database: Database) -> None:
    balance, notifications = await enqueue(harness.producer, "BALANCE", BALANCE), asyncio.Queue[str]()
    async with connected(database.producer, 1) as [listener]:
        await listener.add_listener("predictu_dispatch_outcome", lambda *args: notifications.put_nowait(args[-1]))
        await cancel(harness.person, balance)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == f"{OPERATOR} {balance}"
    outcome = await harness.producer.fetchrow("select * from predictu_dispatch.outcome($1, $2)", OPERATOR, balance)
    assert outcome is not None
    assert (outcome["state"], outcome["reason"], outcome["effect"]) == ("cancelled", "withdrawn", "none")
    assert await claim(harness.daemon) == []
