"""The producer: Predictu's own services, with the rights of `predictu_producer` only."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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

    def params(self, method: str, *, amount: int | None = None) -> str:
        """The params of a callback as JSON; `amount` is that of a payout, otherwise the stake."""
        params: dict[str, object] = {"player_id": self.player_id, "bet_id": self.bet_id}
        if method != "BET_LOSE":
            params |= {"currency": CURRENCY, "amount": self.amount if amount is None else amount}
        if method == "BET_MAKE":
            params["bet"] = {
                "market_id": "m1",
                "outcome": "yes",
                "odds": "2.00",
                "shares": self.amount // 50,
                "price": 50,
            }
        return json.dumps(params)


class Transaction:
    """One transaction of the producer."""

    def __init__(self, connection: PoolConnectionProxy[asyncpg.Record], producer: Producer) -> None:
        self._connection = connection
        self._producer = producer

    async def place(self, bet: Bet, *, expires_in_s: float | None = None) -> None:
        """Enqueue BET_MAKE."""
        await self.enqueue(bet, "BET_MAKE", request_id=bet.placement_id, expires_in_s=expires_in_s)

    async def enqueue(
        self,
        bet: Bet,
        method: str,
        *,
        amount: int | None = None,
        request_id: UUID | None = None,
        expires_in_s: float | None = None,
    ) -> UUID:
        """Enqueue a callback of the bet; returns its request_id."""
        request_id = request_id or self._producer.new_id()
        params = bet.params(method, amount=amount)
        await self._connection.fetchval(_ENQUEUE, bet.operator_id, method, params, request_id, expires_in_s)
        return request_id

    async def balance(self, operator_id: str, player_id: str) -> UUID:
        """Enqueue BALANCE; returns its request_id."""
        request_id = self._producer.new_id()
        params = json.dumps({"player_id": player_id, "currency": CURRENCY})
        await self._connection.fetchval(_ENQUEUE, operator_id, "BALANCE", params, request_id, None)
        return request_id

    async def rollback(self, bet: Bet) -> UUID | None:
        """Call rollback_bet(); returns the rollback's request_id, None if nothing is sent."""
        rollback_id: UUID | None = await self._connection.fetchval(
            "select predictu_dispatch.rollback_bet($1, $2, 'the trade failed downstream')", bet.operator_id, bet.bet_id
        )
        return rollback_id

    async def adopt(self, bet: Bet) -> None:
        """Register a bet that another system placed."""
        await self._connection.execute(
            "select predictu_dispatch.adopt_bet($1, $2, $3, $4, $5, $6)",
            *(bet.operator_id, bet.bet_id, bet.player_id, CURRENCY, bet.amount, bet.placement_id),
        )

    @asynccontextmanager
    async def refused(self, path: str) -> AsyncIterator[None]:
        """Expect the block to be refused with PD005, and count it as this path."""
        try:
            async with self._connection.transaction():
                yield
        except asyncpg.PostgresError as error:
            if error.sqlstate != "PD005":
                raise
            self._producer.observed[path] += 1
        else:
            raise DemoError(f"the database accepted what it must refuse: {path}")


@dataclass(slots=True, kw_only=True)
class Producer:
    """The producer's connections; `observed` counts the paths that leave no trace in a table."""

    pool: asyncpg.Pool[asyncpg.Record]
    random: random.Random
    observed: Counter[str] = field(default_factory=Counter)
    _bets: int = 0

    @classmethod
    @asynccontextmanager
    async def connected(cls, dsn: str, *, seed: int) -> AsyncIterator[Self]:
        """A producer; stakes and ids follow from the seed and the order of calls."""
        async with asyncpg.create_pool(
            dsn, min_size=2, max_size=_POOL_SIZE, command_timeout=_COMMAND_TIMEOUT_S
        ) as pool:
            yield cls(pool=pool, random=random.Random(seed))  # noqa: S311 -- reproducible bets, no secret.

    def new_id(self) -> UUID:
        """A request_id."""
        return UUID(int=self.random.getrandbits(128), version=4)

    def new_bet(self, operator_id: str, player_id: str | None = None) -> Bet:
        """A bet that is not placed yet; of some rich player if none is given."""
        self._bets += 1
        return Bet(
            operator_id=operator_id,
            bet_id=f"bet-{self._bets:05d}",
            player_id=player_id or self.random.choice(RICH),
            amount=self.random.randrange(STAKE_MIN, STAKE_MAX),
            placement_id=self.new_id(),
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield Transaction(connection, self)

    async def wait_final(self, operator_id: str, request_id: UUID) -> str:
        """Wait until a callback is final; returns its state."""
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
            row = await self.pool.fetchrow(
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
