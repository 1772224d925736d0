"""The environment of the producer examples: a daemon, an operator, and a table `trade`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.environment import Environment, open_environment
from tests.support.postgres import Database

README = "sql/README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """An environment whose producer keeps its trades in a table of its own."""

    environment: Environment
    producer_dsn: str

    async def trades(self) -> dict[str, str]:
        """Returns the state of each trade by bet id."""
        return {
            row["bet_id"]: row["state"] for row in await self.environment.harness.owner.fetch("select * from trade")
        }

    async def callbacks(self, bet_id: str) -> list[str]:
        """Returns method and state of each of the bet's callbacks, oldest first."""
        rows = await self.environment.harness.owner.fetch(
            "select method, state from predictu_dispatch.callback where bet_id = $1 order by created_at", bet_id
        )
        return [f"{row['method']} {row['state']}" for row in rows]


@asynccontextmanager
async def open_market(folder: Path, database: Database, *, delivers: bool = True) -> AsyncIterator[Market]:
    """Opens the environment, with one daemon if callbacks are to be delivered."""
    async with open_environment(folder, database) as environment:
        await environment.harness.owner.execute(
            "create table trade (bet_id text primary key, state text not null);"
            "grant select, insert, update on trade to test_producer"
        )
        if delivers:
            await environment.fleet.start("host-1")
        yield Market(environment=environment, producer_dsn=database.producer)
        assert environment.operator.faults == []
