"""Retention, step by step: short transactions, any of which may be the last one before a crash, and pauses.

What may go and how is in the database (sql/functions/retention/); here is only the order. Nothing is remembered
between two runs but what the database remembers, so a run that was killed is finished by the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from predictu_dispatch.core.database_errors import LOCK_NOT_AVAILABLE, DatabaseUnavailable, Refused
from predictu_dispatch.edge.postgres.database import Hosts
from predictu_dispatch.edge.postgres.errors import translated
from predictu_dispatch.edge.postgres.migrations import require_schema
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from asyncpg import Connection

BLOCKS: Final = 32
"""A quarter of a megabyte: some hundred callbacks, which take a tenth of a second at most (11,000 a second)."""
_COMMAND_TIMEOUT_S: Final = 120.0
"""Far above any step; dropping a month of many gigabytes is the longest."""
_TRIALS: Final = 60
_TRY_AGAIN_S: Final = 0.5
"""A lock that is refused is asked for again for half a minute: a settle holds it for milliseconds, a dump for hours."""
_FOR_THE_NEXT_RUN: Final = ("55P03", "55000", "PD003")
"""A lock that could not be had; the default partition is in the way; the part got a row that is not old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the audit, a month or `default`, and what became of it."""

    part: str
    rows: int
    bytes: int
    kept: int = 0
    is_done: bool = False
    why_not: str = ""


@dataclass(slots=True, kw_only=True)
class Removal:
    """What is old, and what of it was removed."""

    cutoff: datetime
    is_at_end: bool
    """The walk through the callbacks reached the end of the table."""
    callbacks: int = 0
    bets: int = 0
    locked: int = 0
    why_not: str = ""
    """Why the walk did not reach the end."""
    parts: list[Part] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.is_at_end and not self.locked and all(part.is_done for part in self.parts)


class Retention:
    """Removes what ended more than `keep_months` whole months ago."""

    def __init__(
        self,
        connection: Connection,
        *,
        keep_months: int,
        blocks: int = BLOCKS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._keep_months = keep_months
        self._blocks = blocks
        self._sleep = sleep

    async def preview(self) -> Removal:
        """What would be looked at and what is old; nothing is changed."""
        with translated():
            walk = await self._connection.fetchrow(query("purge_cursor"), self._keep_months)
        assert walk is not None  # noqa: S101 - it has one row, whatever was removed so far
        return Removal(
            cutoff=walk["cutoff"],
            is_at_end=walk["is_done"],
            parts=[Part(part=row["part"], rows=row["rows_estimated"], bytes=row["bytes"]) for row in await self._old()],
        )

    async def run(self) -> Removal:
        """All that is old is gone, or the Removal says what is not and why.

        Raises DatabaseUnavailable and Refused, PD006 if another run is active: what was done stays done.
        """
        removal = await self.preview()
        await self._remove_finished(removal)
        # The audit after the callbacks: a row of it is needed while its callback is there.
        removal.parts = [await self._retire(row) for row in await self._old()]
        return removal

    async def _old(self) -> list[Any]:
        with translated():
            return list(await self._connection.fetch(query("expired_audit"), self._keep_months))

    async def _remove_finished(self, removal: Removal) -> None:
        while not removal.is_at_end:
            try:
                row = await self._step("purge_finished")
            except DatabaseUnavailable as error:
                if error.sqlstate != LOCK_NOT_AVAILABLE:
                    raise
                removal.why_not = error.message
                return
            removal.callbacks += row["callbacks"]
            removal.bets += row["bets"]
            removal.locked += row["locked"]
            removal.is_at_end = row["next_block"] is None

    async def _retire(self, old: Any) -> Part:  # noqa: ANN401 - a row of expired_audit.sql
        """What is needed of the part is kept and the rest is gone; or it says why it could not be."""
        named = {"part": old["part"], "rows": old["rows_estimated"], "bytes": old["bytes"]}
        while True:
            try:
                row = await self._step("purge_audit", old["part"])
            except (DatabaseUnavailable, Refused) as error:
                if error.sqlstate not in _FOR_THE_NEXT_RUN:
                    raise
                return Part(**named, why_not=error.message)
            if row["is_done"]:
                return Part(**named, kept=row["needed"], is_done=True)

    async def _step(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - as varied as SQL's types
        """The row that the step said, after a pause as long as it took: retention never has the database for itself.

        It gives way to whoever has a lock, and asks again; raises DatabaseUnavailable in the end.
        """
        for is_last in (*([False] * (_TRIALS - 1)), True):
            began_s = time.monotonic()
            try:
                with translated():
                    (row,) = await self._connection.fetch(query(name), self._keep_months, *arguments, self._blocks)
            except DatabaseUnavailable as error:
                if is_last or error.sqlstate != LOCK_NOT_AVAILABLE:
                    raise
                await self._sleep(_TRY_AGAIN_S)
            else:
                await self._sleep(time.monotonic() - began_s)
                return row
        raise AssertionError  # The last trial returns or raises.


@asynccontextmanager
async def retention(dsn: str, *, keep_months: int) -> AsyncIterator[Retention]:
    """Retention over a connection of its own. Raises SchemaError, or what the connecting raised."""
    connection = await Hosts(dsn).connect(
        statement_cache_size=0,
        command_timeout=_COMMAND_TIMEOUT_S,
        server_settings={"application_name": "predictu-dispatch retain"},
    )
    try:
        with translated():
            await require_schema(connection)
        yield Retention(connection, keep_months=keep_months)
    finally:
        await connection.close(timeout=5)
