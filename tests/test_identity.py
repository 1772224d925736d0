"""One debit is one bet: no id that an operator knows a debit by ever stands for anything else."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.ledger import OPERATOR, Ledger, delivered, enqueue, open_ledger, placement_params, terminal_params
from tests.support.postgres import Database

ADOPTED = uuid.UUID("00000000-0000-4000-8000-00000000000a")


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with open_ledger(database) as ledger:
        await adopt(ledger, "old", ADOPTED)
        yield ledger


async def adopt(ledger: Ledger, bet_id: str, placement: uuid.UUID) -> None:
    await ledger.producer.execute(
        "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, $3)", OPERATOR, bet_id, placement
    )


async def refused(ledger: Ledger, method: str, params: object) -> str:
    """What is said of a callback that would carry the adopted bet's placement id."""
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await enqueue(ledger.producer, method, params, request_id=ADOPTED)
    assert refusal.value.sqlstate == "PD004"
    return str(refusal.value)


async def test_a_new_bet_with_an_adopted_placements_id_would_be_open_without_a_debit(ledger: Ledger) -> None:
    """The operator would answer DUPLICATE, and a bet would be open that nobody paid for."""
    before = await ledger.everything()
    assert str(ADOPTED) in await refused(ledger, "BET_MAKE", placement_params("new"))
    assert await ledger.everything() == before


@pytest.mark.parametrize("method", ["BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK"])
async def test_a_credit_with_its_bets_placement_id_would_be_delivered_without_being_paid(
    ledger: Ledger, method: str
) -> None:
    await refused(ledger, method, terminal_params(method, await ledger.bet("old")))
    assert (await ledger.bet("old"))["state"] == "open"


async def test_a_balance_with_a_placements_id_is_refused_too(ledger: Ledger) -> None:
    await refused(ledger, "BALANCE", {"player_id": "p1", "currency": "EUR"})


async def test_one_placement_is_adopted_for_one_bet(ledger: Ledger) -> None:
    """Two rollbacks of one debit would give it back twice."""
    with pytest.raises(asyncpg.PostgresError, match="belongs to another bet") as refusal:
        await adopt(ledger, "other", ADOPTED)
    assert refusal.value.sqlstate == "PD004"
    await adopt(ledger, "old", ADOPTED)


async def test_a_placement_of_our_own_is_not_adopted_for_another_bet(ledger: Ledger) -> None:
    placement = await ledger.place("ours")
    await ledger.attempt(placement, delivered)
    with pytest.raises(asyncpg.PostgresError, match="is a callback of this system") as refusal:
        await adopt(ledger, "other", placement)
    assert refusal.value.sqlstate == "PD004"


@pytest.mark.parametrize("placed_here", [True, False])
async def test_a_confirmed_debit_that_the_operator_no_longer_knows_is_for_a_person(
    ledger: Ledger, *, placed_here: bool
) -> None:
    """The contract closes the bet; but the player's stake may be gone, and nobody would ever have looked."""
    bet_id = "new" if placed_here else "old"
    if placed_here:
        await ledger.attempt(await ledger.place(bet_id), delivered)
    rollback_id = await ledger.rollback(bet_id)
    assert rollback_id is not None
    await ledger.attempt(rollback_id, delivered, effect="none", state_reason="nothing_to_reverse")
    assert (await ledger.bet(bet_id))["state"] == "closed"
    [row] = await ledger.owner.fetch("select request_id, reason from predictu_dispatch.needs_review")
    assert row["request_id"] == rollback_id
    assert "once confirmed the debit" in row["reason"]
