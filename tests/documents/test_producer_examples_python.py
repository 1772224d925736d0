"""Runs the Python example of sql/README.md unchanged, against a daemon and an operator."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from predictu_dispatch_client import BadParamsError, Outcomes, Placement

from tests.support.code_blocks import code_under
from tests.support.market import README, Market

WAIT_S = 20.0
PLAYER = "p-1"
STAKE = 1250


class Producer:
    """A producer written as the README says."""

    def __init__(self, pool: Any) -> None:
        names: dict[str, Any] = {"__name__": "buy"}
        [block] = code_under(README, "Python (asyncpg)", "python")
        exec(compile(block, README, "exec"), names)  # noqa: S102 # These lines are ours.
        self.readme = SimpleNamespace(**names)
        self.pool = pool
        self.outcomes = Outcomes(pool)

    async def buy(self, bet_id: str, *fill: Any, amount: int = STAKE) -> str | None:
        placement: Placement = {
            "player_id": PLAYER,
            "currency": "EUR",
            "amount": amount,
            "bet_id": bet_id,
            "bet": {"market_id": "m-7", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 0.54},
        }
        why_not: str | None = await self.readme.buy(self.pool, self.outcomes, uuid.uuid4(), placement, *fill)
        return why_not


@pytest.fixture
async def producer(market: Market) -> AsyncIterator[Producer]:
    pool = await asyncpg.create_pool(market.producer_dsn, min_size=0, max_size=4, command_timeout=WAIT_S)
    try:
        yield Producer(pool)
    finally:
        pool.terminate()


async def test_the_python_buys_or_rolls_back_and_never_both(producer: Producer, market: Market) -> None:
    async def no_liquidity(_pool: Any, _bet_id: str) -> None:
        raise RuntimeError("no liquidity")

    async def filled_unheard(pool: Any, bet_id: str) -> None:
        """The trade is committed and its answer lost.

        A rollback now would leave the player shares for free.
        """
        await producer.readme.fill(pool, bet_id)
        raise OSError("connection lost")

    async def rolled_back_meanwhile(pool: Any, bet_id: str) -> None:
        """Another process took the row for one that has been placing for too long."""
        await producer.readme.roll_back(pool, bet_id, "too old")
        await producer.readme.fill(pool, bet_id)

    assert await producer.buy("bought") is None
    assert await producer.buy("unheard", filled_unheard) is None
    assert market.environment.operator.balance[PLAYER] == -2 * STAKE
    assert await producer.buy("no-liquidity", no_liquidity) == "no liquidity"
    assert await producer.buy("too-old", rolled_back_meanwhile) == "it was rolled back meanwhile"
    await market.environment.until_all_final()
    assert market.environment.operator.balance[PLAYER] == -2 * STAKE
    market.environment.operator.refuse("INSUFFICIENT_FUNDS")
    why_not = "the operator rejected it: INSUFFICIENT_FUNDS; nothing was debited"
    assert await producer.buy("refused") == why_not
    assert await market.trades() == {
        "bought": "filled",
        "unheard": "filled",
        "no-liquidity": "failed",
        "too-old": "failed",
        "refused": "failed",
    }
    assert await market.callbacks("bought") == await market.callbacks("unheard") == ["BET_MAKE delivered"]
    for bet_id in ("no-liquidity", "too-old"):
        assert await market.callbacks(bet_id) == ["BET_MAKE delivered", "BET_ROLLBACK delivered"]
    assert await market.callbacks("refused") == ["BET_MAKE rejected"]


async def test_the_python_enqueues_nothing_if_its_transaction_fails(producer: Producer, market: Market) -> None:
    with pytest.raises(BadParamsError, match="amount"):
        await producer.buy("b-1", amount=-1)
    assert (await market.trades(), await market.callbacks("b-1")) == ({}, [])
