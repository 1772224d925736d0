"""Retention, step by step: short transactions, any of which may be the last one before a crash, and pauses.

What may go and how is in the database (0012_retention.sql); here is only the order. Nothing is remembered between two
runs but what the database remembers, so a run that was killed is finished by the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from predictu_dispatch.edge.database import Hosts
from predictu_dispatch.edge.migrations import require_schema
from predictu_dispatch.edge.sql_files import query

if TYPE_CHECKING:
    from asyncpg import Connection

BLOCKS: Final = 32
"""A quarter of a megabyte: some hundred callbacks, which take a tenth of a second at most (11,000 a second)."""
_COMMAND_TIMEOUT_S: Final = 120.0
"""Far above any step; dropping a month of many gigabytes is the longest."""
_TRIALS: Final = 60
_TRY_AGAIN_S: Final = 0.5
"""A lock that is refused is asked for again for half a minute: a settle holds it for milliseconds, a dump for hours."""


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
    is_walk_done: bool
    callbacks: int = 0
    bets: int = 0
    held: int = 0
    parts: list[Part] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.is_walk_done and not self.held and all(part.is_done for part in self.parts)


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

    async def look(self) -> Removal:
        """What would be looked at and what is old; nothing is changed."""
        walk = await self._connection.fetchrow(query("removal_walk"), self._keep_months)
        assert walk is not None  # noqa: S101 - it has one row, whatever was removed so far
        return Removal(
            cutoff=walk["cutoff"],
            is_walk_done=walk["is_done"],
            parts=[Part(part=row["part"], rows=row["rows_estimated"], bytes=row["bytes"]) for row in await self._old()],
        )

    async def run(self) -> Removal:
        """All that is old is gone, or the Removal says what is not and why.

        Raises asyncpg's errors, PD006 among them where another run is at it: what was done stays done.
        """
        removal = await self.look()
        await self._remove_finished(removal)
        # The audit after the callbacks: a row of it is needed while its callback is there.
        removal.parts = [await self._step(row["step"], row) for row in await self._old()]
        # What was just replaced is to be dropped now.
        dropped = [await self._step(row["step"], row) for row in await self._old() if row["step"] == "drop"]
        undone = {part.part: part for part in dropped if not part.is_done}
        removal.parts = [undone.pop(part.part, part) for part in removal.parts] + list(undone.values())
        return removal

    async def _old(self) -> list[Any]:
        return list(await self._connection.fetch(query("old_audit"), self._keep_months))

    async def _remove_finished(self, removal: Removal) -> None:
        is_at_end = False
        while not is_at_end:
            began_s = time.monotonic()
            (row,) = await self._connection.fetch(query("remove_finished"), self._keep_months, self._blocks)
            removal.callbacks += row["callbacks"]
            removal.bets += row["bets"]
            removal.held += row["held"]
            is_at_end = row["next_block"] is None
            await self._pause(began_s)
        removal.is_walk_done = True

    async def _step(self, step: str, old: Any) -> Part:  # noqa: ANN401 - a row of old_audit.sql
        """The part is replaced, or what was replaced is dropped; or it says why it could not be."""
        named = {"part": old["part"], "rows": old["rows_estimated"], "bytes": old["bytes"]}
        try:
            kept = await (self._replace(old["part"]) if step == "replace" else self._drop(old["part"]))
        except (asyncpg.LockNotAvailableError, asyncpg.ObjectNotInPrerequisiteStateError) as error:
            return Part(**named, why_not=str(error))
        except asyncpg.DuplicateTableError:
            return Part(**named, why_not="what it replaced the last time could not be dropped yet")
        return Part(**named, kept=kept, is_done=True)

    async def _replace(self, part: str) -> int:
        await self._patiently("begin_kept_audit", part)
        scanned, needed = await self._carry(part, "replace")
        if needed == scanned > 0:
            await self._patiently("leave_audit", part)
        else:
            await self._patiently("replace_audit", part, needed > 0)
        return needed

    async def _drop(self, part: str) -> int:
        # What came in between the copying and the replacing stands here only.
        _, needed = await self._carry(part, "drop")
        await self._patiently("drop_audit", part)
        return needed

    async def _carry(self, part: str, step: str) -> tuple[int, int]:
        scanned = needed = 0
        block: int | None = 0
        while block is not None:
            began_s = time.monotonic()
            (row,) = await self._connection.fetch(
                query("carry_audit"), self._keep_months, part, step, block, self._blocks
            )
            scanned += row["scanned"]
            needed += row["needed"]
            block = row["next_block"]
            await self._pause(began_s)
        return scanned, needed

    async def _patiently(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - as varied as SQL's types
        """The step is done. It gives way to whoever has the lock, and asks again; raises LockNotAvailableError."""
        for trial in range(1, _TRIALS + 1):
            try:
                await self._connection.fetch(query(name), self._keep_months, *arguments)
            except asyncpg.LockNotAvailableError:
                if trial == _TRIALS:
                    raise
                await self._sleep(_TRY_AGAIN_S)
            else:
                return

    async def _pause(self, began_s: float) -> None:
        """As long as the work took, so that retention never has the database for itself."""
        await self._sleep(time.monotonic() - began_s)


@asynccontextmanager
async def retention(dsn: str, *, keep_months: int) -> AsyncIterator[Retention]:
    """Retention over a connection of its own. Raises SchemaError, or what the connecting raised."""
    connection = await Hosts(dsn).connect(
        statement_cache_size=0,
        command_timeout=_COMMAND_TIMEOUT_S,
        server_settings={"application_name": "predictu-dispatch retain"},
    )
    try:
        await require_schema(connection)
        yield Retention(connection, keep_months=keep_months)
    finally:
        await connection.close(timeout=5)
