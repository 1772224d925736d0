"""Runs the Python examples of sql/README.md unchanged, against a daemon and an operator."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from tests.support.code_blocks import code_under
from tests.support.harness import OPERATOR, placement_params
from tests.support.market import README, Market
from tests.support.postgres_proxy import Trick, proxied

WAIT_S = 20.0


def module() -> SimpleNamespace:
    """The README's Python blocks, concatenated and imported as a module."""
    names: dict[str, Any] = {}
    for block in code_under(README, "Python (asyncpg)", "python"):
        exec(compile(block, README, "exec"), names)  # noqa: S102 # These lines are ours.
    return SimpleNamespace(**names)


class Producer:
    """A producer written as the README says."""

    def __init__(self, pool: Any, market: Market) -> None:
        self.readme = module()
        self.pool = pool
        self.outcomes = self.readme.Outcomes(pool)
        self.market = market

    async def place(self, bet_id: str, request_id: uuid.UUID, **more: Any) -> None:
        await self.readme.place(self.pool, OPERATOR, request_id, placement_params(bet_id) | more)

    async def buy(self, bet_id: str, fill: Callable[[str], Awaitable[None]] | None = None) -> bool:
        bought: bool = await self.readme.buy(
            self.pool, self.outcomes, OPERATOR, uuid.uuid4(), placement_params(bet_id), fill or self.fill
        )
        return bought

    async def fill(self, bet_id: str) -> None:
        """Calls the example as the README says."""
        async with self.pool.acquire() as connection, connection.transaction():
            done = await connection.execute(
                "update trade set state = 'filled' where bet_id = $1 and state = 'placing'", bet_id
            )
            if done != "UPDATE 1":
                raise RuntimeError("cancelled meanwhile")


@asynccontextmanager
async def producing(market: Market, dsn: str | None = None) -> AsyncIterator[Producer]:
    """A listening producer with a pool of its own; `dsn` replaces the tests' DSN."""
    pool = await asyncpg.create_pool(dsn or market.producer_dsn, min_size=0, max_size=4, command_timeout=WAIT_S)
    listener = await asyncpg.connect(market.producer_dsn)
    try:
        producer = Producer(pool, market)
        await producer.outcomes.listen(listener)
        yield producer
    finally:
        await listener.close()
        pool.terminate()


@pytest.fixture
async def producer(market: Market) -> AsyncIterator[Producer]:
    async with producing(market) as producer:
        yield producer


async def test_the_python_buys_or_rolls_back_and_never_both(producer: Producer, market: Market) -> None:
    async def no_liquidity(_: str) -> None:
        raise RuntimeError("no liquidity")

    async def filled_unheard(bet_id: str) -> None:
        """The trade is committed and its answer lost.

        A rollback now would leave the player shares for free.
        """
        await producer.fill(bet_id)
        raise OSError("connection lost")

    assert await producer.buy("bought") is True
    assert await producer.buy("unheard", filled_unheard) is True
    assert market.environment.operator.balance["p1"] == -1000
    assert await producer.buy("no-liquidity", no_liquidity) is False
    await market.environment.until_all_final()
    assert market.environment.operator.balance["p1"] == -1000
    market.environment.operator.refuse("INSUFFICIENT_FUNDS")
    assert await producer.buy("refused") is False
    assert await market.trades() == {
        "bought": "filled",
        "unheard": "filled",
        "no-liquidity": "failed",
        "refused": "failed",
    }
    assert await market.callbacks("bought") == await market.callbacks("unheard") == ["BET_MAKE delivered"]
    assert await market.callbacks("no-liquidity") == ["BET_MAKE delivered", "BET_ROLLBACK delivered"]
    assert await market.callbacks("refused") == ["BET_MAKE rejected"]


async def test_the_python_enqueues_nothing_if_its_transaction_fails(producer: Producer, market: Market) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await producer.place("b-1", uuid.uuid4(), amount=-1)
    fault = refused.value
    assert (fault.sqlstate, bool(fault.hint)) == ("PD003", True)
    assert "amount" in str(fault)
    assert (await market.trades(), await market.callbacks("b-1")) == ({}, [])


async def test_the_python_places_once_if_the_commits_answer_is_lost(market: Market) -> None:
    async with proxied(market.producer_dsn) as proxy, producing(market, proxy.dsn()) as producer:
        proxy.on_next("COMMIT", Trick.KEEP_ANSWER)
        request_id = uuid.uuid4()
        placing = asyncio.create_task(
            producer.readme.place_with_retries(producer.pool, OPERATOR, request_id, placement_params("b-1"))
        )
        await asyncio.wait_for(proxy.caught.wait(), WAIT_S)
        await market.environment.until_all_final()
        proxy.cut()
        await placing
        assert proxy.runs("enqueue_callback") == 2
    assert await market.callbacks("b-1") == ["BET_MAKE delivered"]


async def test_the_python_gets_an_outcome_with_and_without_a_notification(producer: Producer) -> None:
    request_id, unknown = uuid.uuid4(), uuid.uuid4()
    with pytest.raises(LookupError):
        await producer.outcomes.wait(OPERATOR, unknown, timeout_s=WAIT_S)
    operator = producer.market.environment.operator
    operator.hold()
    await producer.place("b-1", request_id)
    with pytest.raises(TimeoutError):
        await producer.outcomes.wait(OPERATOR, request_id, timeout_s=0.05)
    waiting = asyncio.create_task(producer.outcomes.wait(OPERATOR, request_id, timeout_s=WAIT_S))
    await producer.market.environment.until_in_flight(1)
    operator.release()
    assert (await waiting)["state"] == "delivered"
    assert producer.outcomes.notified == {}

    # A second producer without a listening connection.
    deaf = producer.readme.Outcomes(producer.pool)
    operator.hold()
    await producer.place("b-2", unknown)
    waiting = asyncio.create_task(deaf.wait(OPERATOR, unknown, timeout_s=WAIT_S))
    await producer.market.environment.until_in_flight(1)
    operator.release()
    assert (await waiting)["state"] == "delivered"


async def test_the_python_gets_a_notification_before_it_polls(producer: Producer) -> None:
    """With an endless polling interval only a notification can end the wait."""
    operator = producer.market.environment.operator
    operator.hold()
    request_id = uuid.uuid4()
    await producer.place("b-1", request_id)
    asked = 0
    fetchrow = producer.pool.fetchrow

    async def counted(*query: Any) -> Any:
        nonlocal asked
        asked += 1
        found = await fetchrow(*query)
        if asked == 1:
            operator.release()
        return found

    await producer.market.environment.until_in_flight(1)
    producer.outcomes.pool = SimpleNamespace(fetchrow=counted)
    names = producer.outcomes.wait.__func__.__globals__
    names["asyncio"] = SimpleNamespace(
        timeout=asyncio.timeout, Event=asyncio.Event, wait_for=lambda waiting, _: asyncio.wait_for(waiting, None)
    )
    assert (await producer.outcomes.wait(OPERATOR, request_id, timeout_s=WAIT_S))["state"] == "delivered"
    assert asked == 2
