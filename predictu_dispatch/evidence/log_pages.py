"""Reads a log page by page: its leaves, and its checkpoints together with those kept outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from predictu_dispatch.core.merkle.tiles import HASH_BYTES, TILE_WIDTH, width_of
from predictu_dispatch.edge.postgres.audit_reader import AuditReader
from predictu_dispatch.evidence.log_check import KeptCheckpoint
from predictu_dispatch.evidence.multiset import ID_BYTES

_TILES: Final = 64
"""Tiles of level 0 that are read at once: 16,384 entries."""
_CHECKPOINTS: Final = 1_000


class LeafPage(NamedTuple):
    """Consecutive leaves."""

    first: int
    ids: bytes
    hashes: bytes

    @property
    def end(self) -> int:
        return self.first + len(self.hashes) // HASH_BYTES


async def leaf_pages(reader: AuditReader, operator_id: str, size: int) -> AsyncIterator[LeafPage]:
    """Yield the first `size` leaves in order; stop before a tile that is missing or too short."""
    expected = 0
    while expected * TILE_WIDTH < size:
        first = expected
        ids, hashes = [], []
        for row in await reader.fetch("audit_leaf_tiles", operator_id, expected, _TILES):
            width = width_of(0, row["tile"], size)
            is_whole = len(row["hashes"]) >= width * HASH_BYTES and len(row["report_ids"]) >= width * ID_BYTES
            if row["tile"] != expected or not width or not is_whole:
                break
            ids.append(row["report_ids"][: width * ID_BYTES])
            hashes.append(row["hashes"][: width * HASH_BYTES])
            expected += 1
        if not hashes:
            return
        yield LeafPage(first * TILE_WIDTH, b"".join(ids), b"".join(hashes))


class CheckpointPages:
    """The stored checkpoints of a log in the order of their sizes, and those kept outside."""

    def __init__(self, reader: AuditReader, operator_id: str, outside: Sequence[KeptCheckpoint]) -> None:
        self._reader = reader
        self._operator_id = operator_id
        self._outside = sorted(outside, key=lambda each: each.size)
        self._page: list[KeptCheckpoint] = []
        self._last_size = -1
        self._is_last_page = False

    async def up_to(self, size: int) -> list[KeptCheckpoint]:
        """Take the next checkpoints of at most this size, and those kept outside."""
        taken = []
        while True:
            while self._page and self._page[0].size <= size:
                taken.append(self._page.pop(0))
            if self._page or self._is_last_page:
                break
            await self._read()
        while self._outside and self._outside[0].size <= size:
            taken.append(self._outside.pop(0))
        return sorted(taken, key=lambda each: each.size)

    def rest_of_outside(self) -> Sequence[KeptCheckpoint]:
        """Those kept outside that are larger than this log."""
        return self._outside

    async def _read(self) -> None:
        rows = await self._reader.fetch("audit_checkpoints", self._operator_id, self._last_size, _CHECKPOINTS)
        self._page = [KeptCheckpoint(row["size"], row["checkpoint"], row["cosignatures"]) for row in rows]
        self._is_last_page = len(rows) < _CHECKPOINTS
        if rows:
            self._last_size = rows[-1]["size"]
