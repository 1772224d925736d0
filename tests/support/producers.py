"""What the examples for producers run on: a daemon, an operator, and the table `trade` of the producer's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.postgres import Database
from tests.support.stage import Stage, open_stage

README = "sql/README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A stage whose producers have trades."""

    stage: Stage
    producer_dsn: str

    async def trades(self) -> dict[str, str]:
        """The state of each trade, by its bet."""
        return {row["bet_id"]: row["state"] for row in await self.stage.ledger.owner.fetch("select * from trade")}

    async def callbacks(self, bet_id: str) -> list[str]:
        """What was ever enqueued for the bet, in words."""
        rows = await self.stage.ledger.owner.fetch(
            "select method, state from predictu_dispatch.callback where bet_id = $1 order by created_at", bet_id
        )
        return [f"{row['method']} {row['state']}" for row in rows]


@asynccontextmanager
async def open_market(folder: Path, database: Database, *, delivers: bool = True) -> AsyncIterator[Market]:
    """With one daemon, or, where nothing is to be delivered, without."""
    async with open_stage(folder, database) as stage:
        await stage.ledger.owner.execute(
            "create table trade (bet_id text primary key, state text not null);"
            "grant select, insert, update on trade to test_producer"
        )
        if delivers:
            await stage.fleet.start("host-1")
        yield Market(stage=stage, producer_dsn=database.producer)
        assert stage.operator.faults == []
