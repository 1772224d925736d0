"""What the examples for producers run on: a daemon, an operator, and the table `trade` of the producer's own."""

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
    """A environment whose producers have trades."""

    environment: Environment
    producer_dsn: str

    async def trades(self) -> dict[str, str]:
        """The state of each trade, by its bet."""
        return {
            row["bet_id"]: row["state"] for row in await self.environment.harness.owner.fetch("select * from trade")
        }

    async def callbacks(self, bet_id: str) -> list[str]:
        """What was ever enqueued for the bet, in words."""
        rows = await self.environment.harness.owner.fetch(
            "select method, state from predictu_dispatch.callback where bet_id = $1 order by created_at", bet_id
        )
        return [f"{row['method']} {row['state']}" for row in rows]


@asynccontextmanager
async def open_market(folder: Path, database: Database, *, delivers: bool = True) -> AsyncIterator[Market]:
    """With one daemon, or, where nothing is to be delivered, without."""
    async with open_environment(folder, database) as environment:
        await environment.harness.owner.execute(
            "create table trade (bet_id text primary key, state text not null);"
            "grant select, insert, update on trade to test_producer"
        )
        if delivers:
            await environment.fleet.start("host-1")
        yield Market(environment=environment, producer_dsn=database.producer)
        assert environment.operator.faults == []
