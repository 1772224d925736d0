"""rollback_bet() in every state of a bet."""

import json
import uuid
from collections.abc import Callable

import asyncpg
import pytest

from tests.support.harness import (
    OPERATOR,
    Harness,
    Lease,
    Report,
    claim,
    delivered,
    exhausted,
    rejected,
    retried,
    rollback,
)


def certainly_not_sent(lease: Lease) -> Report:
    return retried(lease, effect="none", evidence="not_sent")


@pytest.mark.parametrize(("is_attempted", "state"), [(False, "cancelled"), (True, "exhausted")])
async def test_a_placement_without_effect_ends_and_nothing_is_sent(
    harness: Harness, state: str, *, is_attempted: bool
) -> None:
    placement = await harness.place()
    if is_attempted:
        await harness.attempt(placement, certainly_not_sent)
    assert await harness.rollback() is None
    assert (await harness.bet())["state"] == "void"
    callback = await harness.callback(placement)
    assert (callback["state"], callback["reason"], callback["effect"]) == (state, "rolled_back", "none")
    assert await claim(harness.daemon) == []
    assert await harness.rollback() is None


async def test_a_debit_with_an_unknown_outcome_is_rolled_back_at_once(harness: Harness) -> None:
    placement = await harness.place()
    await harness.attempt(placement, retried)
    rollback_id = await harness.rollback()
    assert (await harness.bet())["state"] == "closing"
    ended = await harness.callback(placement)
    assert (ended["state"], ended["reason"], ended["effect"]) == ("exhausted", "rolled_back", "unknown")
    callback = await harness.callback(rollback_id)
    assert (callback["state"], callback["lane"], callback["reason"]) == ("ready", "interactive", "requested")
    assert (callback["note"], callback["expires_at"]) == ("the trade failed", None)
    assert json.loads(callback["params"]) == {
        "player_id": "p1",
        "currency": "EUR",
        "amount": 500,
        "bet_id": "b1",
        "rollback_of": str(placement),
    }
    assert [lease["request_id"] for lease in await claim(harness.daemon)] == [rollback_id]
    assert await harness.rollback() == rollback_id


@pytest.mark.parametrize(
    ("came_to", "expected"),
    [
        (delivered, ("closing", "delivered", None, "ready")),
        (retried, ("closing", "exhausted", "rolled_back", "ready")),
        (certainly_not_sent, ("void", "exhausted", "rolled_back", "cancelled")),
        (exhausted, ("closing", "exhausted", "max_attempts", "ready")),
        (rejected, ("void", "rejected", "insufficient_funds", "cancelled")),
    ],
)
async def test_a_rollback_waits_for_a_placement_in_flight_which_is_not_retried(
    harness: Harness, came_to: Callable[..., Report], expected: tuple[str, str, str | None, str]
) -> None:
    placement = await harness.place()
    lease = await harness.lease(placement)
    rollback_id = await harness.rollback()
    assert await harness.state(rollback_id) == "waiting"
    assert (await harness.bet())["state"] == "placing"
    assert await harness.rollback() == rollback_id, "a second call returns the same rollback"
    assert await claim(harness.daemon) == [], "the rollback is not sent before the debit settles"

    await harness.settle(came_to(lease))
    ended, rollback_is = await harness.callback(placement), await harness.state(rollback_id)
    assert ((await harness.bet())["state"], ended["state"], ended["reason"], rollback_is) == expected
    assert await harness.rollback() == rollback_id
    went_on = await claim(harness.daemon)
    assert [lease["request_id"] for lease in went_on] == ([rollback_id] if rollback_is == "ready" else [])


async def test_an_open_bet_is_rolled_back_once(harness: Harness) -> None:
    await harness.attempt(await harness.place(), delivered)
    rollback_id = await harness.rollback()
    assert rollback_id is not None
    assert ((await harness.bet())["state"], await harness.state(rollback_id)) == ("closing", "ready")
    assert await harness.rollback() == rollback_id
    await harness.attempt(rollback_id, retried)
    assert await harness.rollback() == rollback_id
    await harness.attempt(rollback_id, delivered)
    assert (await harness.bet())["state"] == "closed"
    assert await harness.rollback() == rollback_id


async def test_the_rollback_of_an_adopted_bet_names_its_placement_request_id(harness: Harness) -> None:
    placement = uuid.uuid4()
    await harness.producer.execute(
        "select predictu_dispatch.adopt_bet($1, 'b1', 'p1', 'EUR', 500, $2)", OPERATOR, placement
    )
    callback = await harness.callback(await harness.rollback())
    assert json.loads(callback["params"])["rollback_of"] == str(placement)
    [lease] = await claim(harness.daemon)
    assert (lease["request_id"], lease["placement_ended_s_ago"]) == (callback["request_id"], None)


async def test_a_bet_that_another_terminal_ends_is_not_rolled_back(harness: Harness) -> None:
    for number, came_to in enumerate((retried, delivered, rejected, exhausted)):
        bet_id = f"b{number}"
        await harness.attempt(await harness.place(bet_id), delivered)
        win = await harness.end("BET_WIN", bet_id)
        await harness.attempt(win, came_to)
        before = await harness.everything()
        with pytest.raises(asyncpg.PostgresError, match=f"BET_WIN {win}") as refused:
            await harness.rollback(bet_id)
        assert (refused.value.sqlstate, bool(refused.value.hint)) == ("PD005", True)
        assert await harness.everything() == before


async def test_an_unknown_bet_is_not_rolled_back(harness: Harness) -> None:
    await harness.place("b1")
    for operator_id, bet_id in ((OPERATOR, "b9"), ("op_nobody", "b1"), (None, "b1"), (OPERATOR, None)):
        with pytest.raises(asyncpg.PostgresError, match="the bet is unknown") as refused:
            await rollback(harness.producer, bet_id, operator_id)
        assert (refused.value.sqlstate, bool(refused.value.hint)) == ("PD005", True)


async def test_a_bet_of_a_disabled_operator_is_still_rolled_back(harness: Harness) -> None:
    await harness.attempt(await harness.place(), delivered)
    await harness.owner.execute(
        "update predictu_dispatch.operator set enabled = false where operator_id = $1", OPERATOR
    )
    assert await harness.state(await harness.rollback()) == "ready"


async def test_a_long_reason_is_cut_and_keeps_no_debit(harness: Harness) -> None:
    await harness.attempt(await harness.place("b-1"), delivered)
    await harness.producer.execute("select predictu_dispatch.rollback_bet($1, 'b-1', repeat('x', 1000000))", OPERATOR)
    [rollback] = await harness.rollbacks("b-1")
    assert (
        await harness.owner.fetchval(
            "select length(note) from predictu_dispatch.callback where request_id = $1", rollback["request_id"]
        )
        == 1000
    )
