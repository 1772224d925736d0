"""What abandon_callback() does to a callback, to its bet and to those who wait for it."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.harness import (
    OPERATOR,
    WAIT_S,
    Harness,
    claim,
    connected,
    delivered,
    enqueue,
    retried,
)
from tests.support.interventions import ALICE, BOB, abandon, recorded_interventions, refusal, resolve, retry
from tests.support.postgres import Database

BALANCE = {"player_id": "p1", "currency": "EUR"}
LATER = {"due_in_s": 3600.0}
"""So that no claim takes it again."""


async def retried_terminal(harness: Harness, method: str = "BET_WIN") -> uuid.UUID:
    """A terminal whose operator does not answer."""
    await harness.attempt(await harness.place(), delivered)
    terminal = await harness.end(method)
    await harness.attempt(terminal, retried, **LATER)
    return terminal


@pytest.mark.parametrize("waits", [None, "BET_WIN", "BET_ROLLBACK"])
@pytest.mark.parametrize("effect", ["none", "unknown"])
async def test_an_abandoned_placement_ends_its_bet_as_any_exhausted_one(
    harness: Harness, effect: str, waits: str | None
) -> None:
    placement = await harness.place()
    waiting = await harness.end(waits) if waits else None
    await harness.attempt(placement, retried, effect=effect, **LATER)
    done = await abandon(harness.person, placement, by=BOB)
    callback, bet = await harness.callback(placement), await harness.bet()
    assert (callback["state"], callback["reason"], callback["effect"]) == ("exhausted", "abandoned", effect)
    assert (callback["note"], callback["review_since"], done["needs_review"]) == ("they are down", None, False)
    if effect == "none":
        assert (bet["state"], await harness.rollbacks()) == ("void", [])
        assert waiting is None or (await harness.callback(waiting))["reason"] == "bet_void"
        assert (done["bet_state"], done["rollback_request_id"]) == ("void", None)
    else:
        [rollback] = await harness.rollbacks()
        assert (bet["state"], rollback["state"]) == ("closing", "ready")
        assert (rollback["request_id"] == waiting) == (waits == "BET_ROLLBACK")
        if waits == "BET_WIN":
            assert waiting is not None
            assert (await harness.callback(waiting))["review_since"] is not None
        assert (done["bet_state"], done["rollback_request_id"]) == ("closing", rollback["request_id"])
        assert [lease["request_id"] for lease in await claim(harness.daemon)] == [rollback["request_id"]]
    assert await claim(harness.daemon) == []
    assert await recorded_interventions(harness) == [("abandon", placement, "they are down", BOB, "test_operations")]


async def test_an_abandoned_settlement_needs_review_and_can_be_retried_or_resolved(harness: Harness) -> None:
    win = await retried_terminal(harness)
    assert (await abandon(harness.person, win))["needs_review"]
    [listed] = await harness.owner.fetch("select * from predictu_dispatch.needs_review")
    assert (listed["request_id"], listed["reason"]) == (
        win,
        "It was abandoned manually; it is not known whether the operator applied it.",
    )
    assert await harness.expire() == []
    await retry(harness.person, win)
    assert (await harness.callback(win))["reason"] is None
    await harness.attempt(win, retried, **LATER)
    await abandon(harness.person, win, "again")
    await resolve(harness.person, win)
    assert (await harness.bet())["state"] == "closing"
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.needs_review") == 0
    assert [deed[0] for deed in await recorded_interventions(harness)] == ["abandon", "retry", "abandon", "resolve"]
    assert await harness.attempts(win) == [(1, "retry"), (2, "retry")]


@pytest.mark.parametrize("attempts", [0, 1])
@pytest.mark.parametrize("is_confirmed", [True, False])
async def test_an_abandoned_rollback_warns_of_the_debit_in_its_record_too(
    harness: Harness, attempts: int, *, is_confirmed: bool
) -> None:
    """Also one that was never attempted, because no rollback can be cancelled."""
    placement = await harness.place()
    if is_confirmed:
        await harness.attempt(placement, delivered)
    else:
        await harness.attempt(placement, retried, **LATER)
    rollback = await harness.rollback()
    assert rollback is not None
    for _ in range(attempts):
        await harness.attempt(rollback, retried, effect="none", **LATER)
    done = await abandon(harness.person, rollback)
    warning = (
        "the operator confirmed the debit and has not reversed it: the debit stands"
        if is_confirmed
        else "a debit may stand at the operator"
    )
    assert (done["warning"], done["attempts"], done["needs_review"]) == (warning, attempts, True)
    after = await harness.owner.fetchval("select after from predictu_dispatch.intervention")
    assert json.loads(after)["warning"] == warning
    reason = await harness.owner.fetchval("select reason from predictu_dispatch.needs_review")
    assert "a debit may stand" in reason
    await retry(harness.person, rollback)
    await harness.attempt(rollback, delivered)
    assert (await harness.bet())["state"] == "closed"


async def test_the_producer_of_an_abandoned_balance_inquiry_is_notified(harness: Harness, database: Database) -> None:
    balance, notifications = await enqueue(harness.producer, "BALANCE", BALANCE), asyncio.Queue[str]()
    await harness.attempt(balance, retried, **LATER)
    async with connected(database.producer, 1) as [listener]:
        await listener.add_listener("predictu_dispatch_outcome", lambda *args: notifications.put_nowait(args[-1]))
        await abandon(harness.person, balance)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == f"{OPERATOR} {balance}"
    outcome = await harness.producer.fetchrow("select * from predictu_dispatch.outcome($1, $2)", OPERATOR, balance)
    assert outcome is not None
    assert (outcome["state"], outcome["reason"], outcome["effect"]) == ("exhausted", "abandoned", "unknown")


async def test_abandoning_twice_changes_nothing_and_names_the_first_person(harness: Harness) -> None:
    win = await retried_terminal(harness)
    first = await abandon(harness.person, win)
    before = await harness.everything()
    again = await abandon(harness.person, win, "another reason", BOB)
    assert (first["is_repeated"], again["is_repeated"]) == (False, True)
    assert (again["abandoned_by"], again["abandon_reason"]) == (ALICE, "they are down")
    assert (await harness.everything(), len(await recorded_interventions(harness))) == (before, 1)
    await resolve(harness.person, win)
    assert (await abandon(harness.person, win))["is_repeated"]


async def _never_attempted(harness: Harness) -> uuid.UUID:
    await harness.attempt(await harness.place(), delivered)
    return await harness.end("BET_WIN")


async def _waiting(harness: Harness) -> uuid.UUID:
    await harness.place()
    return await harness.end("BET_WIN")


async def _in_flight(harness: Harness) -> uuid.UUID:
    placement = await harness.place()
    await harness.lease(placement)
    return placement


async def _lease_ended(harness: Harness) -> uuid.UUID:
    placement = await _in_flight(harness)
    await harness.owner.execute(
        "update predictu_dispatch.callback set lease_until = now() - interval '1 second' where request_id = $1",
        placement,
    )
    return placement


async def _delivered(harness: Harness) -> uuid.UUID:
    placement = await harness.place()
    await harness.attempt(placement, delivered)
    return placement


@pytest.mark.parametrize(
    ("come_to", "fault", "hint"),
    [
        (_never_attempted, "it was never attempted", "To withdraw it: predictu-dispatch cancel "),
        (_waiting, "waits for the bet's BET_MAKE ", "To withdraw it: predictu-dispatch cancel "),
        (_in_flight, "attempt 1 is in flight", "Repeat this after its lease, which ends at 2"),
        (_lease_ended, "attempt 1 is in flight", "a running daemon records that within seconds"),
        (_delivered, "it is delivered already", "predictu-dispatch show "),
    ],
)
async def test_a_refusal_says_what_to_do_instead(
    harness: Harness, come_to: Callable[[Harness], Awaitable[uuid.UUID]], fault: str, hint: str
) -> None:
    named = await come_to(harness)
    before = await harness.everything()
    error: Any = None
    try:
        await abandon(harness.person, named)
    except Exception as refused:  # noqa: BLE001 - its attributes are compared
        error = refused
    assert (error.sqlstate, hint in error.hint, fault in str(error)) == ("PD005", True, True), (error, error.hint)
    assert (await harness.everything(), await recorded_interventions(harness)) == (before, [])
    assert (await refusal(abandon(harness.person, named)))[0] == "PD005"
