"""Retention's connection and statements; it has its own login, so it does not use the pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from asyncpg import Connection

from predictu_dispatch.core.database import Refused
from predictu_dispatch.core.retention import AuditPart, PurgeCursor, PurgedCallbacks
from predictu_dispatch.edge.postgres.connections import Hosts
from predictu_dispatch.edge.postgres.errors import translated
from predictu_dispatch.edge.postgres.migrations import require_schema
from predictu_dispatch.edge.postgres.session import with_settings
from predictu_dispatch.edge.postgres.sql_files import query

_BLOCKS: Final = 32
"""A quarter of a megabyte: some hundred callbacks, at most a tenth of a second."""
_RUNS: Final = 5
"""Each has up to 10,000 items of each class."""
_COMMAND_TIMEOUT_S: Final = 120.0
"""Longer than any step; the longest drops a month of many gigabytes."""
_NOT_IN_THIS_RUN: Final = ("55000", "PD003")
"""The default partition is too large to attach beside it, the part has rows that are in no log yet;
it has a row that is not old."""


class RetentionStore:
    """The history of one database that is older than `keep_months` whole months."""

    def __init__(
        self, connection: Connection, *, keep_months: int, blocks: int = _BLOCKS, keeps_settings: bool = True
    ) -> None:
        self._connection = connection
        self._keeps_settings = keeps_settings
        self._keep_months = keep_months
        self._blocks = blocks

    async def clock_at_s(self) -> float:
        """The database's clock, as Unix time."""
        with translated():
            return float(await self._connection.fetchval(query("read_clock")))

    async def purge_cursor(self) -> PurgeCursor:
        (row,) = await self._fetch("purge_cursor")
        return PurgeCursor(cutoff=row["cutoff"], is_done=row["is_done"])

    async def expired_audit(self) -> list[AuditPart]:
        return [
            AuditPart(part=row["part"], rows=row["rows_estimated"], bytes=row["bytes"])
            for row in await self._fetch("expired_audit")
        ]

    async def purge_callbacks(self) -> PurgedCallbacks:
        """Remove the old callbacks in the next blocks of the table."""
        (row,) = await self._fetch("purge_finished", self._blocks)
        return PurgedCallbacks(
            callbacks=row["callbacks"],
            bets=row["bets"],
            locked=row["locked"],
            is_done=row["next_block"] is None,
            held=row["held"],
        )

    async def purge_runs(self) -> int:
        """Remove some old runs of reconciliation; return how many, 0 if none is left."""
        (row,) = await self._fetch("purge_runs", _RUNS)
        return int(row["runs"])

    async def purge_audit(self, part: AuditPart) -> AuditPart:
        try:
            (row,) = await self._fetch("purge_audit", part.part, self._blocks)
        except Refused as error:
            if error.sqlstate not in _NOT_IN_THIS_RUN:
                raise
            return part._replace(why_not=error.message)
        return part._replace(kept=row["needed"] if row["is_done"] else 0, is_done=row["is_done"])

    async def _fetch(self, name: str, *arguments: Any) -> list[Any]:  # noqa: ANN401 - as varied as SQL's types
        with translated():
            async with with_settings(self._connection, keeps_settings=self._keeps_settings):
                return list(await self._connection.fetch(query(name), self._keep_months, *arguments))


@asynccontextmanager
async def open_retention_store(dsn: str, *, keep_months: int) -> AsyncIterator[RetentionStore]:
    """A store with its own connection. Raises SchemaError and the errors of core/database.py."""
    hosts = Hosts(dsn)
    connection = await hosts.connect(
        statement_cache_size=0,
        command_timeout=_COMMAND_TIMEOUT_S,
        server_settings={"application_name": "predictu-dispatch retain"},
    )
    try:
        with translated():
            await require_schema(connection)
        yield RetentionStore(connection, keep_months=keep_months, keeps_settings=hosts.keeps_settings)
    finally:
        await connection.close(timeout=5)
