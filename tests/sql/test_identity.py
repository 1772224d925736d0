"""The id of a debit is never used for another request."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.harness import OPERATOR, Harness, delivered, enqueue, open_harness, placement_params, terminal_params
from tests.support.postgres import Database

ADOPTED = uuid.UUID("00000000-0000-4000-8000-00000000000a")


@pytest.fixture
async def harness(database: Database) -> AsyncIterator[Harness]:
    async with open_harness(database) as harness:
        await adopt(harness, "old", ADOPTED)
        yield harness


async def adopt(harness: Harness, bet_id: str, placement: uuid.UUID) -> None:
    await harness.producer.execute(
        "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, $3)", OPERATOR, bet_id, placement
    )


async def refused(harness: Harness, method: str, params: object) -> str:
    """The error for a callback with the placement id of the adopted bet."""
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await enqueue(harness.producer, method, params, request_id=ADOPTED)
    assert refusal.value.sqlstate == "PD004"
    return str(refusal.value)


async def test_a_new_bet_with_an_adopted_placements_id_is_refused(harness: Harness) -> None:
    """The operator would answer DUPLICATE, and the bet would be open without a debit."""
    before = await harness.everything()
    assert str(ADOPTED) in await refused(harness, "BET_MAKE", placement_params("new"))
    assert await harness.everything() == before


async def test_a_credit_or_balance_with_a_placements_id_is_refused(harness: Harness) -> None:
    for method in ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK"):
        await refused(harness, method, terminal_params(method, await harness.bet("old")))
    await refused(harness, "BALANCE", {"player_id": "p1", "currency": "EUR"})
    assert (await harness.bet("old"))["state"] == "open"


async def test_one_placement_is_adopted_for_one_bet(harness: Harness) -> None:
    """Two rollbacks of one debit would refund it twice."""
    with pytest.raises(asyncpg.PostgresError, match="belongs to another bet") as refusal:
        await adopt(harness, "other", ADOPTED)
    assert refusal.value.sqlstate == "PD004"
    await adopt(harness, "old", ADOPTED)


async def test_a_placement_enqueued_here_cannot_be_adopted_for_another_bet(harness: Harness) -> None:
    placement = await harness.place("ours")
    await harness.attempt(placement, delivered)
    with pytest.raises(asyncpg.PostgresError, match="is a callback of this system") as refusal:
        await adopt(harness, "other", placement)
    assert refusal.value.sqlstate == "PD004"


@pytest.mark.parametrize("placed_here", [True, False])
async def test_a_confirmed_debit_that_the_operator_no_longer_knows_needs_review(
    harness: Harness, *, placed_here: bool
) -> None:
    """The bet is closed, but the player's stake may be lost."""
    bet_id = "new" if placed_here else "old"
    if placed_here:
        await harness.attempt(await harness.place(bet_id), delivered)
    rollback_id = await harness.rollback(bet_id)
    assert rollback_id is not None
    await harness.attempt(rollback_id, delivered, effect="none", state_reason="nothing_to_reverse")
    assert (await harness.bet(bet_id))["state"] == "closed"
    [row] = await harness.owner.fetch("select request_id, reason from predictu_dispatch.needs_review")
    assert row["request_id"] == rollback_id
    assert "confirmed the debit but had nothing to reverse" in row["reason"]
