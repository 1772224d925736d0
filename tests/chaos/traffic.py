"""The producers: they enqueue, settle and roll back bets concurrently, through whatever happens to their database.

What was acknowledged to them must exist at the end; what broke off is asked again with the same id, which is safe by
contract. They act on outcomes alone, as the platform does.
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

FUNDS, POOR_FUNDS = 10_000_000, 50
PLAYERS = {f"player-{number}": FUNDS for number in range(1, 13)} | {"player-poor": POOR_FUNDS}
CURRENCY = "EUR"
_AGAIN_S = 0.1
_OUTCOME_POLL_S = 0.2
_OUTCOME_PATIENCE_S = 30.0
_TERMINALS = ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND")
_REFUSALS = ("PD0", "P0002")
"""SQLSTATEs by which a bet's state forbids something."""
_AGAIN = {"57", "53", "08", "40", "55"}
"""Classes of SQLSTATE: shut down, out of connections, connection lost, run it again, locked."""
_ENQUEUE = "select predictu_dispatch.enqueue_callback($1, $2, $3::jsonb, $4)"
_LOST = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
_UNFINISHED = ("waiting", "ready", "in_flight")


@dataclass(kw_only=True)
class Bet:
    """A bet as its producer knows it."""

    operator_id: str
    bet_id: str
    player_id: str
    amount: int
    placement_id: UUID

    def params(self, method: str) -> dict[str, Any]:
        params: dict[str, Any] = {"player_id": self.player_id, "bet_id": self.bet_id}
        if method != "BET_LOSE":
            amount = {"BET_WIN": 2 * self.amount, "BET_SELL": self.amount // 2}.get(method, self.amount)
            params |= {"currency": CURRENCY, "amount": amount}
        if method == "BET_MAKE":
            market = {"market_id": "market-1", "outcome": "yes", "odds": "1.85", "shares": 10, "price": 54}
            params["bet"] = market
        return params


@dataclass(kw_only=True)
class Producers:
    """Bets from several services at once; `acknowledged` are the request ids whose commit they were told of."""

    dsn: str
    operator_ids: tuple[str, ...]
    seed: int
    acknowledged: dict[str, str] = field(default_factory=dict)
    asked_again: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    _pool: "asyncpg.Pool[asyncpg.Record] | None" = None
    _numbers: int = 0

    def __post_init__(self) -> None:
        self._draws = random.Random(self.seed)

    async def connect(self) -> None:
        self._pool = await asyncpg.create_pool(self.dsn, min_size=0, max_size=12, command_timeout=5, timeout=3)

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()

    async def play(self, *, seconds: float, bets_per_s: float) -> None:
        """Bets begin evenly for so long; returns once every story is told as far as it goes."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        async with asyncio.TaskGroup() as tales:
            while loop.time() < end_s:
                tales.create_task(self._draws.choice(self._tales())(self._new_bet()))
                await asyncio.sleep(self._draws.expovariate(bets_per_s))

    async def end(self, bet: Bet) -> None:
        """A bet that is open gets a terminal: nobody else would ever end it."""
        await self._enqueue(bet, self._draws.choice(_TERMINALS))

    def _tales(self) -> list[Callable[[Bet], Coroutine[Any, Any, None]]]:
        return [
            self._placed_and_ended,
            self._placed_and_ended,
            self._ended_early,
            self._taken_back,
            self._taken_back_at_once,
            self._torn,
            self._asked_for,
        ]

    def _new_bet(self) -> Bet:
        self._numbers += 1
        return Bet(
            operator_id=self._draws.choice(self.operator_ids),
            bet_id=f"bet-{self._numbers:06d}",
            player_id=self._draws.choice(list(PLAYERS)),
            amount=self._draws.randrange(100, 5_000),
            placement_id=self._new_id(),
        )

    def _new_id(self) -> UUID:
        return UUID(int=self._draws.getrandbits(128), version=4)

    async def _placed_and_ended(self, bet: Bet) -> None:
        if await self._is_placed(bet):
            await self._enqueue(bet, self._draws.choice(_TERMINALS))

    async def _ended_early(self, bet: Bet) -> None:
        """The result is known before the placement is confirmed."""
        if await self._enqueue(bet, "BET_MAKE", request_id=bet.placement_id):
            await self._enqueue(bet, self._draws.choice(_TERMINALS))

    async def _taken_back(self, bet: Bet) -> None:
        """The trade downstream fails, and two services notice."""
        if await self._is_placed(bet):
            await asyncio.gather(self._roll_back(bet), self._roll_back(bet))

    async def _taken_back_at_once(self, bet: Bet) -> None:
        if await self._enqueue(bet, "BET_MAKE", request_id=bet.placement_id):
            await asyncio.sleep(self._draws.choice((0.0, 0.01, 0.05, 0.5)))
            await self._roll_back(bet)

    async def _torn(self, bet: Bet) -> None:
        """One service wants it ended, another one back: one of them is refused."""
        if await self._enqueue(bet, "BET_MAKE", request_id=bet.placement_id):
            await asyncio.sleep(self._draws.random())
            await asyncio.gather(self._roll_back(bet), self._enqueue(bet, self._draws.choice(_TERMINALS)))

    async def _asked_for(self, bet: Bet) -> None:
        params = {"player_id": bet.player_id, "currency": CURRENCY}
        request_id = self._new_id()
        if await self._told(_ENQUEUE, bet.operator_id, "BALANCE", json.dumps(params), request_id) is not None:
            self.acknowledged[str(request_id)] = "BALANCE"

    async def _is_placed(self, bet: Bet) -> bool:
        """The placement's outcome, waited for as long as a player would and then some."""
        await self._enqueue(bet, "BET_MAKE", request_id=bet.placement_id)
        state = "ready"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OUTCOME_PATIENCE_S):
                while state in _UNFINISHED:
                    await asyncio.sleep(_OUTCOME_POLL_S)
                    outcome = "select state from predictu_dispatch.outcome($1, $2)"
                    state = await self._told(outcome, bet.operator_id, bet.placement_id) or state
        return bool(state == "delivered")

    async def _enqueue(self, bet: Bet, method: str, *, request_id: UUID | None = None) -> bool:
        request_id = request_id or self._new_id()
        params = json.dumps(bet.params(method))
        if await self._told(_ENQUEUE, bet.operator_id, method, params, request_id) is None:
            return False
        self.acknowledged[str(request_id)] = method
        return True

    async def _roll_back(self, bet: Bet) -> None:
        await self._told("select predictu_dispatch.rollback_bet($1, $2, 'chaos')", bet.operator_id, bet.bet_id)

    async def _told(self, statement: str, *values: object) -> Any:
        """What the database said, however often it had to be asked; None where it refused."""
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
                if error.sqlstate[:2] not in _AGAIN:
                    raise
            self.asked_again += 1
            await asyncio.sleep(_AGAIN_S)
