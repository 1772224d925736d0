"""Reads the audit's logs and rows for a verification, a proof or an export.

It has its own connection, because its statements are long. No statement reads more than one month
of rows, so its snapshot does not hold back vacuum for the whole run.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

from asyncpg import Connection

from predictu_dispatch.edge.postgres.connections import Hosts
from predictu_dispatch.edge.postgres.errors import translated
from predictu_dispatch.edge.postgres.migrations import require_schema
from predictu_dispatch.edge.postgres.session import own_transaction, with_settings
from predictu_dispatch.edge.postgres.sql_files import query

_COMMAND_TIMEOUT_S: Final = 3600.0
"""For the next rows of a cursor; one that skips most rows of a large month may take minutes."""
_ROWS: Final = 5_000
"""Rows of a cursor that are in memory at once."""


class Snapshot(NamedTuple):
    """A transaction snapshot, as numbers."""

    xmax: int
    xip: list[int]


class AuditPosition(NamedTuple):
    """Up to which transaction rows are sealed."""

    xid_offset: int
    sealed: Snapshot
    sealed_at: datetime
    read_at: datetime
    is_same_cluster: bool
    """False after a restore, until a daemon seals: the ids of transactions began again."""
    backlog: Snapshot | None
    """While rows from before the logs began, or from before a restore, are still being sealed."""


class AuditReader:
    """Statements of one connection, one after another."""

    def __init__(self, connection: Connection, *, keeps_settings: bool) -> None:
        self._connection = connection
        self._keeps_settings = keeps_settings

    async def fetch(self, name: str, *arguments: Any) -> list[Any]:  # noqa: ANN401 - as varied as SQL's types
        """The rows of a statement of sql/queries."""
        return await self.fetch_text(query(name), *arguments)

    async def fetch_text(self, statement: str, *arguments: Any) -> list[Any]:  # noqa: ANN401 - as above
        with translated():
            async with with_settings(self._connection, keeps_settings=self._keeps_settings):
                return list(await self._connection.fetch(statement, *arguments))

    @asynccontextmanager
    async def one_snapshot(self) -> AsyncIterator[None]:
        """All statements inside see the same moment. Only short ones belong here."""
        with translated():
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                keeps, self._keeps_settings = self._keeps_settings, True
                try:
                    yield
                finally:
                    self._keeps_settings = keeps

    async def position(self) -> AuditPosition | None:
        """None before the first sealing."""
        for row in await self.fetch("audit_position"):
            backlog = None
            if row["backlog_xmax"] is not None:
                backlog = Snapshot(row["backlog_xmax"], row["backlog_xip"])
            return AuditPosition(
                xid_offset=row["xid_offset"],
                sealed=Snapshot(row["sealed_xmax"], row["sealed_xip"]),
                sealed_at=row["sealed_at"],
                read_at=row["read_at"],
                is_same_cluster=row["is_same_cluster"],
                backlog=backlog,
            )
        return None

    async def rows(self, statement: str, *arguments: Any) -> AsyncIterator[Sequence[Any]]:  # noqa: ANN401 - as above
        """Yield the rows of a statement in batches, as the server finds them."""
        with translated():
            transaction = (
                self._connection.transaction(readonly=True)
                if self._keeps_settings
                else own_transaction(self._connection)
            )
            async with transaction:
                cursor = await self._connection.cursor(statement, *arguments)
                while batch := await cursor.fetch(_ROWS):
                    yield batch

    async def record(self, operator_id: str, size: int, faults: int, first_faults: Sequence[object]) -> None:
        """Store a verification's result. Raises Refused, on a standby with SQLSTATE 25006."""
        await self.fetch("record_verification", operator_id, size, faults, json.dumps(first_faults))


@asynccontextmanager
async def open_audit_reader(dsn: str, *, application_name: str) -> AsyncIterator[AuditReader]:
    """A reader with its own connection. Raises SchemaError and the errors of core/database.py."""
    hosts = Hosts(dsn)
    connection = await hosts.connect(
        statement_cache_size=0,
        command_timeout=_COMMAND_TIMEOUT_S,
        server_settings={"application_name": application_name},
    )
    try:
        with translated():
            await require_schema(connection)
        yield AuditReader(connection, keeps_settings=hosts.keeps_settings)
    finally:
        await connection.close(timeout=5)
