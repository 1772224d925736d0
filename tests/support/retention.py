"""Runs retention and compares what it kept and removed with the histories."""

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from predictu_dispatch.core.retention import RetentionResult
from predictu_dispatch.edge.postgres.retention_store import RetentionStore
from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.flow.retention import Retention
from tests.support.harness import Connection, connected
from tests.support.histories import KEEP_MONTHS, SPAN_MONTHS, History, month_start, requests_of
from tests.support.postgres import Database

CUTOFF = month_start(KEEP_MONTHS)

LONG_AGO = month_start(SPAN_MONTHS) + timedelta(days=3)

RECENTLY = CUTOFF + timedelta(days=1)

AUDIT = "select a::text from predictu_dispatch.attempt a where request_id = any($1::uuid[]) order by 1"

LEFTOVERS = (
    "select relname from pg_class where relnamespace = 'predictu_dispatch'::regnamespace and relkind = 'r'"
    " and (relname ~ '^(kept|retired)_' or (relname ~ '^attempt_' and not relispartition))"
)

ADOPT = "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, $3)"

PURGE = "select predictu_dispatch.purge_finished($1, 1000)"


async def no_pause(_: float) -> None:
    """Replaces retention's pauses."""
    await asyncio.sleep(0)


def retention_over(connection: Connection, *, blocks: int = 1, keep_months: int = KEEP_MONTHS) -> Retention:
    return Retention(RetentionStore(connection, keep_months=keep_months, blocks=blocks), sleep=no_pause)


async def run_retention(database: Database, *, blocks: int = 1) -> RetentionResult:
    """Runs retention once with the rights of its role."""
    async with connected(database.retention, 1) as [connection]:
        return await retention_over(connection, blocks=blocks).run()


async def next_step(connection: Connection, part: str, blocks: int = 1000) -> asyncpg.Record:
    """Makes the next step for the partition."""
    [row] = await connection.fetch(query("purge_audit"), KEEP_MONTHS, part, blocks)
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the database has of some histories."""

    bets: set[str]
    requests: set[uuid.UUID]
    audit: list[str]
    audit_of_others: int


async def read_contents(owner: Connection, kept: list[History]) -> Contents:
    requests = list(requests_of(kept))
    return Contents(
        bets={row[0] for row in await owner.fetch("select bet_id from predictu_dispatch.bet")},
        requests={row[0] for row in await owner.fetch("select request_id from predictu_dispatch.callback")},
        audit=[row[0] for row in await owner.fetch(AUDIT, requests)],
        audit_of_others=await owner.fetchval(
            "select count(*) from predictu_dispatch.attempt where request_id <> all($1) and started_at < $2",
            *(requests, CUTOFF),
        ),
    )


def kept_and_removed(histories: list[History]) -> tuple[list[History], list[History]]:
    """Returns the histories that must stay, and those that must be removed."""
    return [history for history in histories if not history.is_removed(CUTOFF)], [
        history for history in histories if history.is_removed(CUTOFF)
    ]


async def assert_removed_and_kept(owner: Connection, histories: list[History], before: Contents) -> None:
    kept, removed = kept_and_removed(histories)
    after = await read_contents(owner, kept)
    assert after.bets == {history.bet_id for history in kept if history.bet_id}
    assert after.requests == requests_of(kept)
    assert after.audit == before.audit, "a kept callback has every row of its audit, byte by byte"
    assert after.audit_of_others == 0
    known = await owner.fetch("select request_id from predictu_dispatch.request_tombstone where state is not null")
    assert {row[0] for row in known} == requests_of(history for history in removed if history.path != "ping")
    names = {row[0] for row in await owner.fetch("select bet_id from predictu_dispatch.bet_tombstone")}
    assert names == {history.bet_id for history in removed if history.bet_id}
    assert await owner.fetch(LEFTOVERS) == []
