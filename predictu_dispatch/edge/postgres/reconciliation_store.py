"""The connection of a reconciliation: begins a run, copies the ledger's lines, and finishes it.

It has its own connection, because its statements are long. Lines are copied in batches, each in a
transaction of its own, so that no snapshot holds back vacuum while files are read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from asyncpg import Connection

from predictu_dispatch.core.ledger_line import LedgerLine
from predictu_dispatch.edge.postgres.connections import Hosts
from predictu_dispatch.edge.postgres.errors import translated
from predictu_dispatch.edge.postgres.migrations import require_schema
from predictu_dispatch.edge.postgres.session import with_settings
from predictu_dispatch.edge.postgres.sql_files import query

_COMMAND_TIMEOUT_S: Final = 3600.0
"""The classification of a month of a large operator takes minutes."""
_COLUMNS: Final = ("operator_id", "run_id", "source", "line", *LedgerLine._fields)


class ReconciliationStore:
    """Statements of one connection, one after another."""

    def __init__(self, connection: Connection, *, keeps_settings: bool) -> None:
        self._connection = connection
        self._keeps_settings = keeps_settings

    async def fetch(self, name: str, *arguments: Any) -> list[Any]:  # noqa: ANN401 - as varied as SQL's types
        """The rows of a statement of sql/queries; JSON in them is text."""
        with translated():
            async with with_settings(self._connection, keeps_settings=self._keeps_settings):
                return list(await self._connection.fetch(query(name), *arguments))

    async def clock_at(self) -> datetime:
        """The database's clock."""
        [row] = await self.fetch("read_clock")
        return datetime.fromtimestamp(row["database_at_s"], UTC)

    async def copy_lines(
        self, operator_id: str, run_id: UUID, source: int, lines: Sequence[tuple[int, LedgerLine]]
    ) -> None:
        """Add lines of a source, each with its number, to those of the run."""
        with translated():
            async with with_settings(self._connection, keeps_settings=self._keeps_settings):
                await self._connection.copy_records_to_table(
                    "reconciliation_line",
                    schema_name="predictu_dispatch",
                    columns=_COLUMNS,
                    records=((operator_id, run_id, source, number, *line) for number, line in lines),
                )


def as_json(value: object) -> str:
    """A parameter of type jsonb."""
    return json.dumps(value, separators=(",", ":"))


@asynccontextmanager
async def open_reconciliation_store(dsn: str) -> AsyncIterator[ReconciliationStore]:
    """A store with its own connection. Raises SchemaError and the errors of core/database.py."""
    hosts = Hosts(dsn)
    connection = await hosts.connect(
        statement_cache_size=0,
        command_timeout=_COMMAND_TIMEOUT_S,
        server_settings={"application_name": "predictu-dispatch reconcile"},
    )
    try:
        with translated():
            await require_schema(connection)
        yield ReconciliationStore(connection, keeps_settings=hosts.keeps_settings)
    finally:
        await connection.close(timeout=5)
