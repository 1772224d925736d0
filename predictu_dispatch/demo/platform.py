"""The platform: Predictu's own services as the daemon's producers. It may do what `predictu_producer` may, no more.

It enqueues in transactions of its own and waits for outcomes by LISTEN, with polling for what a notification missed.
"""

from __future__ import annotations

import asyncio
import contextlib
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

from predictu_dispatch.demo.cast import CURRENCY, STAKE_MAX, STAKE_MIN
from predictu_dispatch.demo.child import DemoError

OUTCOME_CHANNEL: Final = "predictu_dispatch_outcome"
FINAL_STATES: Final = frozenset({"delivered", "rejected", "exhausted", "cancelled"})

_POOL_SIZE: Final = 8
_POLL_S: Final = 0.25
"""Credits are polled, since they notify nobody; a placement's notification comes long before."""
_GLANCE_S: Final = 0.01
"""Between two looks for a state that passes quickly, such as in_flight."""
_COMMAND_TIMEOUT_S: Final = 20.0
"""Far above any statement of ours; how long an outcome may take is bounded by the whole demo's time."""

_ENQUEUE: Final = (
    "select predictu_dispatch.enqueue_callback($1, $2, $3::jsonb, $4, clock_timestamp() + $5 * interval '1 second')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bet:
    """A bet as the platform knows it."""

    operator_id: str
    bet_id: str
    player_id: str
    amount: int
    placement_id: UUID
    context: dict[str, object]

    def params(self, method: str, *, amount: int | None = None) -> str:
        """What a callback of this bet says, as JSON; `amount` is a payout's, otherwise it is the debit's."""
        params: dict[str, object] = {"player_id": self.player_id, "bet_id": self.bet_id}
        if method != "BET_LOSE":
            params |= {"currency": CURRENCY, "amount": self.amount if amount is None else amount}
        if method == "BET_MAKE":
            params["bet"] = self.context
        return json.dumps(params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A callback's outcome at one moment."""

    state: str
    reason: str | None
    effect: str


class Transaction:
    """One transaction of the platform's: what is enqueued in it becomes true together, or not at all."""

    def __init__(self, connection: PoolConnectionProxy[asyncpg.Record], platform: Platform) -> None:
        self._connection = connection
        self._platform = platform

    async def place(self, bet: Bet, *, expires_in_s: float | None = None) -> None:
        """BET_MAKE is enqueued."""
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
        """A callback of the bet is enqueued; returns its request_id."""
        request_id = request_id or self._platform.new_id()
        params = bet.params(method, amount=amount)
        await self._connection.fetchval(_ENQUEUE, bet.operator_id, method, params, request_id, expires_in_s)
        return request_id

    async def balance(self, operator_id: str, player_id: str) -> UUID:
        """BALANCE is enqueued; returns its request_id."""
        request_id = self._platform.new_id()
        params = json.dumps({"player_id": player_id, "currency": CURRENCY})
        await self._connection.fetchval(_ENQUEUE, operator_id, "BALANCE", params, request_id, None)
        return request_id

    async def rollback(self, bet: Bet) -> UUID | None:
        """The trade failed; returns the rollback's request_id, None where nothing has to go over the wire."""
        rollback_id: UUID | None = await self._connection.fetchval(
            "select predictu_dispatch.rollback_bet($1, $2, 'the trade failed downstream')", bet.operator_id, bet.bet_id
        )
        return rollback_id

    async def adopt(self, bet: Bet) -> None:
        """A bet that somebody else placed can be settled here."""
        await self._connection.execute(
            "select predictu_dispatch.adopt_bet($1, $2, $3, $4, $5, $6)",
            *(bet.operator_id, bet.bet_id, bet.player_id, CURRENCY, bet.amount, bet.placement_id),
        )

    @asynccontextmanager
    async def refused(self, path: str) -> AsyncIterator[None]:
        """What is asked for inside must be refused with PD005, which is counted as this path; all stays as it was."""
        try:
            async with self._connection.transaction():
                yield
        except asyncpg.PostgresError as error:
            if error.sqlstate != "PD005":
                raise
            self._platform.witnessed[path] += 1
        else:
            raise DemoError(f"the database did not refuse what must be refused: {path}")


@dataclass(slots=True, kw_only=True)
class Platform:
    """The producers' connections, the ear on the channel, and `witnessed`: paths that leave no trace in any table."""

    pool: asyncpg.Pool[asyncpg.Record]
    draws: random.Random
    witnessed: Counter[str] = field(default_factory=Counter)
    _waiting: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)
    _numbers: int = 0

    @classmethod
    @asynccontextmanager
    async def connected(cls, dsn: str, *, seed: int) -> AsyncIterator[Self]:
        """A platform whose stakes and ids follow from the seed and the order of asking, which timing may change."""
        async with (
            asyncpg.create_pool(dsn, min_size=2, max_size=_POOL_SIZE, command_timeout=_COMMAND_TIMEOUT_S) as pool,
            pool.acquire() as ear,
        ):
            platform = cls(pool=pool, draws=random.Random(seed))  # noqa: S311 # Reproducible bets, no secret.
            await ear.add_listener(OUTCOME_CHANNEL, platform._hear)
            try:
                yield platform
            finally:
                await ear.remove_listener(OUTCOME_CHANNEL, platform._hear)

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        operator_id, _, request_id = str(payload).partition(" ")
        if (event := self._waiting.get((operator_id, request_id))) is not None:
            event.set()

    def new_id(self) -> UUID:
        """A request_id that follows from the seed and the order of asking."""
        return UUID(int=self.draws.getrandbits(128), version=4)

    def new_bet(self, operator_id: str, player_id: str) -> Bet:
        """A bet nobody has placed yet; its numbers are whole or texts, because money never passes through a float."""
        self._numbers += 1
        amount = self.draws.randrange(STAKE_MIN, STAKE_MAX)
        price = self.draws.randrange(5, 95)
        context: dict[str, object] = {
            "market_id": f"market-{self.draws.randrange(1, 40)}",
            "outcome": self.draws.choice(("yes", "no")),
            "odds": f"{100 * 100 // price // 100}.{100 * 100 // price % 100:02d}",
            "shares": 100 * amount // price,
            "price": price,
        }
        return Bet(
            operator_id=operator_id,
            bet_id=f"bet-{self._numbers:05d}",
            player_id=player_id,
            amount=amount,
            placement_id=self.new_id(),
            context=context,
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction of the platform's."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield Transaction(connection, self)

    async def outcome(self, operator_id: str, request_id: UUID) -> Seen:
        """What is known of a callback at this moment."""
        row = await self.pool.fetchrow(
            "select state, reason, effect from predictu_dispatch.outcome($1, $2)", operator_id, request_id
        )
        if row is None:
            raise DemoError(f"callback {request_id} of {operator_id} was enqueued and is not there")
        return Seen(state=row["state"], reason=row["reason"], effect=row["effect"])

    async def settled(self, operator_id: str, request_id: UUID) -> Seen:
        """The final outcome of a callback, within milliseconds of its being known where it is an interactive one."""
        key = (operator_id, str(request_id))
        heard = self._waiting[key] = asyncio.Event()
        try:
            while (seen := await self.outcome(operator_id, request_id)).state not in FINAL_STATES:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(heard.wait(), _POLL_S)
        finally:
            del self._waiting[key]
        return seen

    async def glimpsed(
        self,
        operator_id: str,
        request_id: UUID,
        state: str,
        *,
        effect: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Now is the moment in which the callback is in this state, with this effect, for this reason; or final."""
        while True:
            seen = await self.outcome(operator_id, request_id)
            fits = seen.state == state and effect in {None, seen.effect} and reason in {None, seen.reason}
            if fits or seen.state in FINAL_STATES:
                return
            await asyncio.sleep(_GLANCE_S)
