"""Real histories to reconcile: daemons, reference operators and faults, and everything ended.

What a copy of the database needs to look like another time of the year is here too.
"""

import asyncio
import json
import random
import re
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from predictu_dispatch.books_check.check import CURRENCY
from predictu_dispatch.demo.producer import Bet
from tests.chaos.chaos import sealed
from tests.chaos.environment import DATABASE, OPERATORS, ChaosEnvironment, Operator, open_environment
from tests.chaos.fault_injector import FaultInjector, plan
from tests.chaos.traffic import Producers
from tests.reconciliation.naive_audit import Row
from tests.reconciliation.naive_matching import Books
from tests.support.daemons import until

RECONCILER = "chaos_reconciler"
KEPT = "kept-"
"""Bets of this name stay open, or have a terminal that is still retried."""
_ADOPTED = "adopted-"
_NO_CONCERN = re.compile(r"\b(clock|logs?|seals)\b")
"""Faults of the sealed logs, and clocks: a stepped one moves our days away from the operators'."""
_DRAIN_S = 120.0
_EACH = 8
"""Bets of each rare kind at each operator."""
_OPEN = (
    "select operator_id, bet_id, player_id, amount, placement_request_id as placement_id from predictu_dispatch.bet"
    " where state = 'open' and bet_id not like 'kept-%'"
)
_UNFINISHED = (
    "select count(*) from predictu_dispatch.callback"
    " where method <> 'PING' and state in ('waiting', 'ready', 'in_flight')"
)
_TRIED = (
    "select count(*) from predictu_dispatch.callback where bet_id like 'kept-%' and method = 'BET_WIN' and attempts > 0"
)


@dataclass(frozen=True, kw_only=True)
class History:
    """A database that nobody is connected to, and the operators' own databases."""

    environment: ChaosEnvironment
    wallets: dict[str, Path]

    async def owner(self, database: str = DATABASE) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(self.environment.postgres.dsn(database))

    def dsn(self, database: str) -> str:
        return self.environment.postgres.dsn(database, RECONCILER)

    @asynccontextmanager
    async def copied(self, name: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A copy of the database under this name, for a superuser; dropped after the block."""
        server = await asyncpg.connect(self.environment.postgres.dsn())
        try:
            await server.execute(f"create database {name} template {DATABASE}")
            owner = await self.owner(name)
            try:
                yield owner
            finally:
                await owner.close()
                await server.execute(f"drop database {name} with (force)")
        finally:
            await server.close()


@asynccontextmanager
async def played_history(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    bets_per_s: float,
    faults: bool,
    log: Callable[[str], None],
    operator_ids: Collection[str] = tuple(OPERATORS),
) -> AsyncIterator[History]:
    """A history with every path of a bet; the database's server runs inside the block."""
    async with open_environment(folder, seed=seed) as environment:
        environment.operators = [one for one in environment.operators if one.operator_id in operator_ids]
        producers = Producers(
            dsn=environment.dsn("chaos_producer", environment.producers_proxy),
            operator_ids=tuple(operator.operator_id for operator in environment.operators),
            seed=seed,
        )
        for _ in range(2):
            await (await environment.start_daemon()).ready()
        await producers.connect()
        owner = await environment.owner()
        try:
            await owner.execute(f"create role {RECONCILER} login; grant predictu_reconciler to {RECONCILER}")
            await owner.execute("grant predictu_importer to chaos_producer")
            kept = await _play(
                environment, producers, seed=seed, seconds=seconds, bets_per_s=bets_per_s, faults=faults, log=log
            )
        finally:
            # Postgres may have been killed since.
            owner.terminate()
        owner = await environment.owner()
        try:
            await _drain(producers, owner)
            await sealed(environment)
            await _leave_pending(environment, producers, owner, kept)
        finally:
            await producers.close()
            await owner.close()
        await environment.stop_daemons()
        for operator in environment.operators:
            await operator.process.stop()
        yield History(
            environment=environment,
            wallets={operator.operator_id: operator.wallet for operator in environment.operators},
        )


async def _play(
    environment: ChaosEnvironment,
    producers: Producers,
    *,
    seed: int,
    seconds: float,
    bets_per_s: float,
    faults: bool,
    log: Callable[[str], None],
) -> list[Bet]:
    """Play bets and faults, then remove the faults; returns the bets that are kept open."""
    injector = FaultInjector(environment=environment, log=log)
    injections = [one for one in plan(seed, seconds) if faults and not _NO_CONCERN.search(one.kind)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(producers.play(seconds=seconds, bets_per_s=bets_per_s))
        rare = tasks.create_task(_place_rare_bets(environment, producers, after_s=seconds / 4))
        if faults:
            tasks.create_task(injector.run(injections))
    if faults:
        await injector.heal()
    return rare.result()


async def _place_rare_bets(environment: ChaosEnvironment, producers: Producers, *, after_s: float) -> list[Bet]:
    """Adopt some bets and place some that are kept open; returns the latter."""
    await asyncio.sleep(after_s)
    rng = random.Random(f"rare bets of {producers.seed}")
    kept = []
    for operator in environment.operators:
        for number in range(_EACH):
            adopted = _bet(operator, f"{_ADOPTED}{number}", rng)
            _book_debit(operator.wallet, adopted)
            await producers._query(
                "select predictu_dispatch.adopt_bet($1, $2, $3, $4, $5, $6)",
                *(adopted.operator_id, adopted.bet_id, adopted.player_id, CURRENCY, adopted.amount),
                adopted.placement_id,
            )
            kept.append(_bet(operator, f"{KEPT}{number}", rng))
            await producers._enqueue(kept[-1], "BET_MAKE", request_id=kept[-1].placement_id)
    return kept


def _bet(operator: Operator, bet_id: str, rng: random.Random) -> Bet:
    return Bet(
        operator_id=operator.operator_id,
        bet_id=bet_id,
        player_id=f"player-{rng.randrange(1, 13)}",
        amount=rng.randrange(100, 5_000),
        placement_id=uuid.UUID(int=rng.getrandbits(128), version=4),
    )


def _book_debit(wallet: Path, bet: Bet) -> None:
    """Book the debit of a bet that was placed before our system existed."""
    booked_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with closing(sqlite3.connect(wallet, timeout=10)) as sql, sql:
        sql.execute(
            "insert into bets (bet_id, debit_request_id, player_id, currency, amount, state)"
            " values (?, ?, ?, ?, ?, 'open')",
            (bet.bet_id, str(bet.placement_id), bet.player_id, CURRENCY, bet.amount),
        )
        sql.execute("update players set balance = balance - ? where player_id = ?", (bet.amount, bet.player_id))
        sql.execute(
            "insert into transactions values (?, ?, 'BET_MAKE', ?, ?, ?, ?, ?)",
            (f"tx-{uuid.uuid4()}", str(bet.placement_id), bet.bet_id, bet.player_id, CURRENCY, -bet.amount, booked_at),
        )


async def _drain(producers: Producers, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    async with asyncio.timeout(_DRAIN_S):
        while True:
            for row in await owner.fetch(_OPEN):
                if row["bet_id"].endswith("1") and row["bet_id"].startswith(_ADOPTED):
                    await producers._roll_back(Bet(**dict(row)))
                else:
                    await producers.end(Bet(**dict(row)))
            if not await owner.fetchval(_UNFINISHED) and not await owner.fetch(_OPEN):
                return
            await asyncio.sleep(0.25)


async def _leave_pending(
    environment: ChaosEnvironment, producers: Producers, owner: "asyncpg.Connection[asyncpg.Record]", kept: list[Bet]
) -> None:
    """End every other kept bet while the operators answer 500, so that it is retried."""
    for operator in environment.operators:
        await operator.set_fault_rates({"error_before_apply": 1.0})
    pending = [bet for bet in kept[::2] if await producers._enqueue(bet, "BET_WIN")]

    async def is_tried() -> bool:
        return bool(await owner.fetchval(_TRIED) == len(pending))

    await until("the kept bets' terminals are retried", is_tried, within_s=_DRAIN_S)


@dataclass(frozen=True, kw_only=True)
class TimeMap:
    """Moves all times: `start` becomes `to`, and what follows takes `factor` times longer."""

    start: datetime
    to: datetime
    factor: float

    def __call__(self, at: datetime) -> datetime:
        return self.to + (at - self.start) * self.factor

    async def apply(self, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Move all times of bets, callbacks and attempts."""
        columns = {
            "callback": ("created_at", "due_at", "finished_at", "review_since"),
            "bet": ("created_at", "updated_at"),
            "attempt_record": ("started_at", "finished_at"),
        }
        for table, names in columns.items():
            await owner.execute(f"alter table predictu_dispatch.{table} disable trigger all")
            moved = ", ".join(f"{name} = $2::timestamptz + ({name} - $1::timestamptz) * $3::float8" for name in names)
            await owner.execute(
                f"update predictu_dispatch.{table} set {moved}",  # noqa: S608 - names of columns
                *(self.start, self.to, self.factor),
            )


async def read_books(owner: "asyncpg.Connection[asyncpg.Record]", operator_id: str) -> Books:
    """Read all rows of one operator."""

    async def rows(table: str) -> list[Row]:
        found: list[Row] = []
        for row in await owner.fetch(
            f"select * from predictu_dispatch.{table} where operator_id = $1",  # noqa: S608 - a name of a table
            operator_id,
        ):
            values: dict[str, Any] = dict(row)
            if "params" in values:
                values["params"] = json.loads(values["params"])
            found.append(values)
        return found

    return Books(callbacks=await rows("callback"), bets=await rows("bet"), attempts=await rows("attempt"))
