"""Builds the indexes of sql/indexes after the migrations, while daemons deliver.

And those of the audit's months by which the sealer finds rows: `create index concurrently` takes no
partitioned table.

`create index concurrently` cannot run in a transaction, and a run that is killed leaves an invalid
index. So each run compares the files with the catalog, drops what is invalid and builds what is
missing. The session of a killed run may still be building: the table's lock is waited for first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import Final

import asyncpg
from asyncpg import Connection

from predictu_dispatch.edge.postgres.connections import Hosts
from predictu_dispatch.edge.postgres.session import own_transaction
from predictu_dispatch.edge.postgres.sql_files import Index, indexes

_RETRY_S: Final = 0.2
_STATE: Final = """
    select i.indisvalid, format('predictu_dispatch.%I', t.relname) as indexed
      from pg_catalog.pg_index i join pg_catalog.pg_class t on t.oid = i.indrelid
     where i.indexrelid = pg_catalog.to_regclass('predictu_dispatch.' || $1)
"""
_PARTITIONS_WITHOUT: Final = """
    select c.relname
      from pg_catalog.pg_inherits p join pg_catalog.pg_class c on c.oid = p.inhrelid
     where p.inhparent = pg_catalog.to_regclass('predictu_dispatch.attempt_record')
       and not exists (select from pg_catalog.pg_index i join pg_catalog.pg_inherits a on a.inhrelid = i.indexrelid
                        where i.indrelid = c.oid
                          and a.inhparent = pg_catalog.to_regclass('predictu_dispatch.attempt_written'))
     order by c.relname desc
"""
_WRITTEN: Final = """
    create index concurrently if not exists {part}_written_in_idx on predictu_dispatch.{part} using brin (written_in)
        with (pages_per_range = 32, autosummarize = on)
"""
_ATTACH_TIMEOUT: Final = "200ms"
"""Inserts wait behind an attempt to attach."""
_ATTACH_TRIES: Final = 50


class IndexNotBuiltError(Exception):
    """An index could not be built; the message says which, and why."""


class _State(Enum):
    MISSING = "missing"
    INVALID = "invalid"
    VALID = "valid"


async def build_indexes(hosts: Hosts, on_build: Callable[[list[str]], None]) -> list[str]:
    """Build the indexes that are missing or invalid; returns their names.

    Concurrent runs wait for each other, however long a build takes. `on_build` is called with the
    names before the first build, unless there is no bet yet.
    """
    connection = await hosts.connect(statement_cache_size=0)
    try:
        if not await _wanted(connection):
            return []
        locking = await hosts.connect(statement_cache_size=0)
        try:
            async with _lock(locking, "predictu_dispatch.schema_function"):
                wanted = await _wanted(connection)
                if wanted and await connection.fetchval("select exists (select from predictu_dispatch.bet)"):
                    on_build([index.name for index in wanted])
                for index in wanted:
                    await _build(connection, index)
        finally:
            await locking.close(timeout=5)
        return [index.name for index in wanted]
    finally:
        await connection.close(timeout=5)


@contextlib.asynccontextmanager
async def _lock(connection: Connection, table: str) -> AsyncIterator[None]:
    """A transaction with the lock that a build has on its table, and that delays no writer.

    It tries again and again: a build waits for transactions with a snapshot, and one that waits for
    a lock has one, so the two would wait for each other. While it is idle it has none.
    """
    while True:
        async with own_transaction(connection):
            if await _has_lock(connection, table):
                yield
                return
        await asyncio.sleep(_RETRY_S)


async def _has_lock(connection: Connection, table: str) -> bool:
    try:
        async with connection.transaction():
            await connection.execute(f"lock table {table} in share update exclusive mode nowait")
    except asyncpg.LockNotAvailableError:
        return False
    return True


async def _wanted(connection: Connection) -> list[Index]:
    wanted = [index for index in indexes() if (await _state(connection, index))[0] is not _State.VALID]
    parts = [row["relname"] for row in await connection.fetch(_PARTITIONS_WITHOUT)]
    return wanted + [
        Index(name=f"{part}_written_in_idx", sql=_WRITTEN.format(part=part), parent="attempt_written") for part in parts
    ]


async def _state(connection: Connection, index: Index) -> tuple[_State, str]:
    """An index's state, and its table if it exists."""
    row = await connection.fetchrow(_STATE, index.name)
    if row is None:
        return _State.MISSING, ""
    return (_State.VALID if row["indisvalid"] else _State.INVALID), row["indexed"]


async def _build(connection: Connection, index: Index) -> None:
    try:
        state, table = await _state(connection, index)
        if state is _State.INVALID:
            async with _lock(connection, table):
                pass
            state, _ = await _state(connection, index)
        if state is _State.INVALID:
            await connection.execute(f"drop index concurrently if exists predictu_dispatch.{index.name}")
        if state is not _State.VALID:
            await connection.execute(index.sql)
        if index.parent:
            await _attach(connection, index)
    except asyncpg.PostgresError as error:
        raise IndexNotBuiltError(f"{index.name}: {error}") from error


async def _attach(connection: Connection, index: Index) -> None:
    statement = f"alter index predictu_dispatch.{index.parent} attach partition predictu_dispatch.{index.name}"
    for tries in range(1, _ATTACH_TRIES + 1):
        try:
            async with own_transaction(connection):
                await connection.execute(f"set local lock_timeout = '{_ATTACH_TIMEOUT}'")
                await connection.execute(statement)
        except asyncpg.LockNotAvailableError:
            if tries == _ATTACH_TRIES:
                raise
            await asyncio.sleep(_RETRY_S)
        else:
            return
