"""Reads the files of a ledger and copies their lines into the database, in flat memory.

A thread parses the next batch while the database takes the last one; a bounded queue is between
them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from predictu_dispatch.core.ledger_line import Ignored, LedgerLine, LineFault
from predictu_dispatch.edge.postgres.reconciliation_store import ReconciliationStore
from predictu_dispatch.reconciliation.files import LedgerFile, LedgerPart
from predictu_dispatch.reconciliation.result import SourceRead, UnreadableLine

BATCH_LINES: Final = 5_000
_BATCHES_MAX: Final = 2
UNREADABLE_MAX: Final = 1_000
"""Unreadable lines that are kept with their reason; all are counted."""
_T = TypeVar("_T")

Parse = Callable[[LedgerPart], Iterable[tuple[int, LedgerLine | LineFault | Ignored]]]
"""Yields the number of each record's first line, and what the record holds."""


@dataclass(slots=True, kw_only=True)
class Source:
    """A file of the ledger, or a member of a zip, and what has been read of it."""

    name: str
    sha256: str
    """Of the file as it was given."""
    bytes: int
    lines: int = 0
    read: int = 0
    ignored: int = 0
    unreadable: int = 0
    without_player: int = 0

    def summary(self) -> SourceRead:
        """Return what has been read."""
        numbers = (self.lines, self.read, self.ignored, self.unreadable, self.without_player)
        return SourceRead(self.name, self.sha256, self.bytes, *numbers)


@dataclass(slots=True, kw_only=True)
class Loaded:
    """What was read of all files."""

    sources: list[Source] = field(default_factory=list)
    unreadable: list[UnreadableLine] = field(default_factory=list)
    faulty_columns: Counter[str] = field(default_factory=Counter)
    """Unreadable lines by the operator's name of the column."""
    first_at: datetime | None = None
    last_at: datetime | None = None
    """The earliest and the latest booking."""

    @property
    def read(self) -> int:
        return sum(source.read for source in self.sources)

    @property
    def ignored(self) -> int:
        return sum(source.ignored for source in self.sources)

    @property
    def unreadable_count(self) -> int:
        return sum(source.unreadable for source in self.sources)

    def batches(self, files: Iterable[LedgerFile], parse: Parse) -> Generator[_Batch, None, None]:
        """Read all files; yield their lines, and count what is no line."""
        for file in files:
            for part in file.parts():
                self.sources.append(Source(name=part.name, sha256=file.sha256, bytes=file.size_bytes))
                yield from self._batches(parse(part))

    def _batches(self, records: Iterable[tuple[int, LedgerLine | LineFault | Ignored]]) -> Iterator[_Batch]:
        position = len(self.sources) - 1
        source = self.sources[position]
        lines: list[tuple[int, LedgerLine]] = []
        for number, content in records:
            source.lines += 1
            match content:
                case LedgerLine():
                    lines.append((number, content))
                    source.read += 1
                    source.without_player += content.player_id is None
                case LineFault():
                    self.refuse(position, number, content.column, content.why)
                case Ignored():
                    source.ignored += 1
            if len(lines) == BATCH_LINES:
                yield self._batch(position, lines)
                lines = []
        if lines:
            yield self._batch(position, lines)

    def _batch(self, position: int, lines: list[tuple[int, LedgerLine]]) -> _Batch:
        first, last = min(line.booked_at for _, line in lines), max(line.booked_at for _, line in lines)
        self.first_at = first if self.first_at is None else min(first, self.first_at)
        self.last_at = last if self.last_at is None else max(last, self.last_at)
        return _Batch(position, lines)

    def refuse(self, position: int, number: int, column: str, why: str) -> None:
        """Count an unreadable line."""
        self.sources[position].unreadable += 1
        self.faulty_columns[column] += 1
        if len(self.unreadable) < UNREADABLE_MAX:
            self.unreadable.append(UnreadableLine(position, number, column, why))


class _Batch(NamedTuple):
    source: int
    lines: list[tuple[int, LedgerLine]]


async def load(
    store: ReconciliationStore, operator_id: str, run_id: UUID, files: Sequence[LedgerFile], parse: Parse
) -> Loaded:
    """Copy the lines of all files into the run; return what was read. Raises LedgerFileError."""
    loaded = Loaded()
    queue: asyncio.Queue[_Batch | None] = asyncio.Queue(_BATCHES_MAX)

    async def copy() -> None:
        while (batch := await queue.get()) is not None:
            await store.copy_lines(operator_id, run_id, batch.source, batch.lines)

    batches = loaded.batches(files, parse)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(copy(), name="copy lines")
            while (batch := await _in_thread(lambda: next(batches, None))) is not None:
                await queue.put(batch)
            await queue.put(None)
    except BaseExceptionGroup as failed:
        # The first failure cancels the other side.
        raise failed.exceptions[0] from None
    finally:
        batches.close()
    return loaded


async def _in_thread(call: Callable[[], _T]) -> _T:
    """Return the call's result; if cancelled, only when it has ended."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
