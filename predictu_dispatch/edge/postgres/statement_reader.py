"""Reads a statement in one snapshot, on its own connection, because its statements are long."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from asyncpg import Connection

from predictu_dispatch.edge.postgres.connections import Hosts
from predictu_dispatch.edge.postgres.errors import FOREIGN, translated
from predictu_dispatch.edge.postgres.migrations import require_schema
from predictu_dispatch.edge.postgres.session import begin_snapshot
from predictu_dispatch.edge.postgres.sql_files import query

_COMMAND_TIMEOUT_S: Final = 3600.0
"""For the sums of a long period, or the first rows of a cursor."""
_ROWS: Final = 5_000
"""Rows of a cursor that are in memory at once."""
_CLOSE_TIMEOUT_S: Final = 5.0


class StatementReader:
    """Statements in one read-only snapshot, one after another."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def fetch(self, name: str, *arguments: Any) -> list[Any]:  # noqa: ANN401 - as varied as SQL's types
        """Return all rows of a statement of sql/queries."""
        with translated():
            return list(await self._connection.fetch(query(name), *arguments))

    async def rows(self, name: str, *arguments: Any) -> AsyncIterator[Sequence[Any]]:  # noqa: ANN401 - as above
        """Yield the rows of a statement of sql/queries in batches, as the server finds them."""
        with translated():
            cursor = await self._connection.cursor(query(name), *arguments)
        while True:
            # What the caller does with a batch raises errors of its own.
            with translated():
                batch = await cursor.fetch(_ROWS)
            if not batch:
                return
            yield batch


@asynccontextmanager
async def open_statement_reader(dsn: str, *, application_name: str) -> AsyncIterator[StatementReader]:
    """A reader with its own connection. Raises SchemaError and the errors of core/database.py."""
    connection = await Hosts(dsn).connect(
        statement_cache_size=0,
        command_timeout=_COMMAND_TIMEOUT_S,
        server_settings={"application_name": application_name},
    )
    try:
        with translated():
            await require_schema(connection)
            # The planner takes a long period for a short one. It would sort the rows instead of
            # following the index: ten million on the server's disk before the first one comes.
            await begin_snapshot(connection, enable_sort="off")
        yield StatementReader(connection)
    finally:
        # Nothing was written, so the transaction may end with its connection.
        with contextlib.suppress(*FOREIGN):
            await connection.close(timeout=_CLOSE_TIMEOUT_S)
