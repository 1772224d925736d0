"""The producers: they place, end and roll back bets while faults are injected.

What was acknowledged to them must exist at the end. A statement whose connection broke is repeated
with the same id, which is safe by contract.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from predictu_dispatch.books_check.check import CURRENCY
from predictu_dispatch.demo.producer import Bet

FUNDS, POOR_FUNDS = 10_000_000, 50
PLAYERS = {f"player-{number}": FUNDS for number in range(1, 13)} | {"player-poor": POOR_FUNDS}
_REPEAT_AFTER_S = 0.1
_OUTCOME_POLL_S = 0.2
_OUTCOME_TIMEOUT_S = 30.0
_TERMINALS = ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND")
_REFUSALS = ("PD0", "P0002")
"""SQLSTATEs by which a bet's state forbids something."""
_REPEATABLE = {"57", "53", "54", "08", "40", "55"}
"""Classes: shutdown, no connections, full queue, connection lost, serialization, locked."""
_ENQUEUE = "select predictu_dispatch.enqueue_callback($1, $2, $3::jsonb, $4)"
_LOST = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
_UNFINISHED = ("waiting", "ready", "in_flight")


@dataclass(kw_only=True)
class Producers:
    """Several services; `acknowledged` has the committed request ids with their methods."""

    dsn: str
    operator_ids: tuple[str, ...]
    seed: int
    acknowledged: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    _pool: "asyncpg.Pool[asyncpg.Record] | None" = None
    _numbers: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    async def connect(self) -> None:
        self._pool = await asyncpg.create_pool(self.dsn, min_size=0, max_size=12, command_timeout=5, timeout=3)

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()

    async def play(self, *, seconds: float, bets_per_s: float) -> None:
        """Start bets for this duration, and return when all scenarios have ended."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        async with asyncio.TaskGroup() as tasks:
            while loop.time() < end_s:
                tasks.create_task(self._rng.choice(self._scenarios())(self._new_bet()))
                await asyncio.sleep(self._rng.expovariate(bets_per_s))

    async def end(self, bet: Bet) -> None:
        """Enqueue a terminal for an open bet."""
        await self._enqueue(bet, self._rng.choice(_TERMINALS))

    def _scenarios(self) -> list[Callable[[Bet], Coroutine[Any, Any, None]]]:
        return [
            self._placed_and_ended,
            self._placed_and_ended,
            self._terminal_at_once,
            self._rolled_back,
            self._rolled_back_at_once,
            self._contradictory_requests,
            self._balance,
        ]

    def _new_bet(self) -> Bet:
        self._numbers += 1
        return Bet(
            operator_id=self._rng.choice(self.operator_ids),
            bet_id=f"bet-{self._numbers:06d}",
            player_id=self._rng.choice(list(PLAYERS)),
            amount=self._rng.randrange(100, 5_000),
            placement_id=self._new_id(),
        )

    def _new_id(self) -> UUID:
        return UUID(int=self._rng.getrandbits(128), version=4)

    async def _placed_and_ended(self, bet: Bet) -> None:
        if await self._is_placed(bet):
            await self._enqueue(bet, self._rng.choice(_TERMINALS))

    async def _terminal_at_once(self, bet: Bet) -> None:
        """The terminal waits for the placement."""
        if await self._enqueue(bet, "BET_MAKE", request_id=bet.placement_id):
            await self._enqueue(bet, self._rng.choice(_TERMINALS))

    async def _rolled_back(self, bet: Bet) -> None:
        """The trade fails downstream, and two services call rollback_bet()."""
        if await self._is_placed(bet):
            await asyncio.gather(self._roll_back(bet), self._roll_back(bet))

    async def _rolled_back_at_once(self, bet: Bet) -> None:
        if await self._enqueue(bet, "BET_MAKE", request_id=bet.placement_id):
            await asyncio.sleep(self._rng.choice((0.0, 0.01, 0.05, 0.5)))
            await self._roll_back(bet)

    async def _contradictory_requests(self, bet: Bet) -> None:
        """One service ends the bet while another rolls it back: one of them is refused."""
        if await self._enqueue(bet, "BET_MAKE", request_id=bet.placement_id):
            await asyncio.sleep(self._rng.random())
            await asyncio.gather(self._roll_back(bet), self._enqueue(bet, self._rng.choice(_TERMINALS)))

    async def _balance(self, bet: Bet) -> None:
        params = {"player_id": bet.player_id, "currency": CURRENCY}
        request_id = self._new_id()
        if await self._query(_ENQUEUE, bet.operator_id, "BALANCE", json.dumps(params), request_id) is not None:
            self.acknowledged[str(request_id)] = "BALANCE"

    async def _is_placed(self, bet: Bet) -> bool:
        await self._enqueue(bet, "BET_MAKE", request_id=bet.placement_id)
        state = "ready"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OUTCOME_TIMEOUT_S):
                while state in _UNFINISHED:
                    await asyncio.sleep(_OUTCOME_POLL_S)
                    outcome = "select state from predictu_dispatch.outcome($1, $2)"
                    state = await self._query(outcome, bet.operator_id, bet.placement_id) or state
        return bool(state == "delivered")

    async def _enqueue(self, bet: Bet, method: str, *, request_id: UUID | None = None) -> bool:
        request_id = request_id or self._new_id()
        if await self._query(_ENQUEUE, bet.operator_id, method, bet.params(method), request_id) is None:
            return False
        self.acknowledged[str(request_id)] = method
        return True

    async def _roll_back(self, bet: Bet) -> None:
        await self._query("select predictu_dispatch.rollback_bet($1, $2, 'chaos')", bet.operator_id, bet.bet_id)

    async def _query(self, statement: str, *values: object) -> Any:
        """The statement's result, repeated until the database answers; None if it refused."""
        assert self._pool is not None
        while True:
            try:
                return await self._pool.fetchval(statement, *values)
            except _LOST:
                pass
            except asyncpg.PostgresError as error:
                if error.sqlstate.startswith(_REFUSALS):
                    self.refused[error.sqlstate] += 1
                    return None
                if error.sqlstate[:2] not in _REPEATABLE:
                    raise
            self.repeated += 1
            await asyncio.sleep(_REPEAT_AFTER_S)
