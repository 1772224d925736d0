"""The producer: Predictu's own services, with the rights of `predictu_producer` only."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from predictu_dispatch.books_check.check import CURRENCY
from predictu_dispatch.demo.fixtures import RICH, STAKE_MAX, STAKE_MIN
from predictu_dispatch.demo.process import DemoError

_FINAL_STATES: Final = frozenset({"delivered", "rejected", "exhausted", "cancelled"})
_POOL_SIZE: Final = 8
_FINAL_POLL_S: Final = 0.1
"""A real producer listens on predictu_dispatch_outcome; for a demo polling is enough."""
_STATE_POLL_S: Final = 0.01
"""For states of short duration, such as in_flight."""
_COMMAND_TIMEOUT_S: Final = 20.0

_ENQUEUE: Final = (
    "select predictu_dispatch.enqueue_callback($1, $2, $3::jsonb, $4, clock_timestamp() + $5 * interval '1 second')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bet:
    """A bet as the producer knows it."""

    operator_id: str
    bet_id: str
    player_id: str
    amount: int
    placement_id: UUID

    def params(self, method: str) -> str:
        """The params of a callback as JSON; a win pays twice the stake, a sale half of it."""
        params: dict[str, object] = {"player_id": self.player_id, "bet_id": self.bet_id}
        if method != "BET_LOSE":
            amount = {"BET_WIN": 2 * self.amount, "BET_SELL": self.amount // 2}.get(method, self.amount)
            params |= {"currency": CURRENCY, "amount": amount}
        if method == "BET_MAKE":
            market = {"market_id": "market-1", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 54}
            params["bet"] = market
        return json.dumps(params)


class Requests:
    """The producer's calls, by a connection, or by a pool with each in a transaction of its own."""

    def __init__(self, executor: asyncpg.Pool[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]) -> None:
        self._executor = executor

    async def enqueue(
        self, bet: Bet, method: str, *, request_id: UUID | None = None, expires_in_s: float | None = None
    ) -> UUID:
        if method == "BET_MAKE":
            request_id = bet.placement_id
        return await self._enqueue(bet.operator_id, method, bet.params(method), request_id, expires_in_s)

    async def balance(self, operator_id: str, player_id: str) -> UUID:
        params = json.dumps({"player_id": player_id, "currency": CURRENCY})
        return await self._enqueue(operator_id, "BALANCE", params, None, None)

    async def _enqueue(self, *arguments: object) -> UUID:
        request_id: UUID = await self._executor.fetchval(_ENQUEUE, *arguments)
        return request_id

    async def rollback(self, bet: Bet) -> UUID | None:
        rollback_id: UUID | None = await self._executor.fetchval(
            "select predictu_dispatch.rollback_bet($1, $2, 'the trade failed downstream')", bet.operator_id, bet.bet_id
        )
        return rollback_id

    async def adopt(self, bet: Bet) -> None:
        await self._executor.execute(
            "select predictu_dispatch.adopt_bet($1, $2, $3, $4, $5, $6)",
            *(bet.operator_id, bet.bet_id, bet.player_id, CURRENCY, bet.amount, bet.placement_id),
        )


class Transaction(Requests):
    """One transaction of the producer."""

    def __init__(self, connection: PoolConnectionProxy[asyncpg.Record], observed: Counter[str]) -> None:
        super().__init__(connection)
        self._connection = connection
        self._observed = observed

    @asynccontextmanager
    async def refused(self, path: str) -> AsyncIterator[None]:
        """Expect the block to be refused with PD005, and count it as this path."""
        try:
            async with self._connection.transaction():
                yield
        except asyncpg.PostgresError as error:
            if error.sqlstate != "PD005":
                raise
            self._observed[path] += 1
        else:
            raise DemoError(f"the database accepted what it must refuse: {path}")


class Producer(Requests):
    """The producer's connections; `observed` counts the paths that leave no trace in a table."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, seed: int) -> None:
        super().__init__(pool)
        self._pool = pool
        self._random = random.Random(seed)  # noqa: S311 -- reproducible bets, no secret.
        self._bets = 0
        self.observed: Counter[str] = Counter()

    @classmethod
    @asynccontextmanager
    async def connected(cls, dsn: str, *, seed: int) -> AsyncIterator[Self]:
        """A producer; players and stakes follow from the seed and the order of calls."""
        async with asyncpg.create_pool(
            dsn, min_size=2, max_size=_POOL_SIZE, command_timeout=_COMMAND_TIMEOUT_S
        ) as pool:
            yield cls(pool, seed=seed)

    def new_bet(self, operator_id: str, player_id: str | None = None) -> Bet:
        """A bet that is not placed yet; of some rich player if none is given."""
        self._bets += 1
        return Bet(
            operator_id=operator_id,
            bet_id=f"bet-{self._bets:05d}",
            player_id=player_id or self._random.choice(RICH),
            amount=self._random.randrange(STAKE_MIN, STAKE_MAX),
            placement_id=UUID(int=self._random.getrandbits(128), version=4),
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._pool.acquire() as connection, connection.transaction():
            yield Transaction(connection, self.observed)

    async def wait_final(self, operator_id: str, request_id: UUID) -> str:
        return await self.wait_state(operator_id, request_id, "", poll_s=_FINAL_POLL_S)

    async def wait_state(
        self,
        operator_id: str,
        request_id: UUID,
        state: str,
        *,
        effect: str | None = None,
        reason: str | None = None,
        poll_s: float = _STATE_POLL_S,
    ) -> str:
        """Wait for this state, effect and reason, or a final state; returns the state."""
        while True:
            row = await self._pool.fetchrow(
                "select state, effect, reason from predictu_dispatch.outcome($1, $2)", operator_id, request_id
            )
            if row is None:
                raise DemoError(f"callback {request_id} of {operator_id} was enqueued and does not exist")
            found: str = row["state"]
            if found in _FINAL_STATES:
                return found
            if found == state and effect in {None, row["effect"]} and reason in {None, row["reason"]}:
                return found
            await asyncio.sleep(poll_s)
