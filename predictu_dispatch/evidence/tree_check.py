"""Builds one log's tree again from its leaf hashes, and compares the stored tiles with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from predictu_dispatch.core.merkle.tiles import HASH_BYTES, Tile, width_of
from predictu_dispatch.core.merkle.tree import EMPTY_ROOT, append


class TreeCheck:
    """The tree of the leaves so far."""

    def __init__(self) -> None:
        self.size = 0
        self.root = EMPTY_ROOT
        self._edge: Mapping[int, bytes] = {}
        self._upper: dict[tuple[int, int], bytes] = {}
        """The tiles above level 0: 32 bytes for 256 leaves."""

    def append(self, hashes: bytes, stops: Iterable[int] = ()) -> dict[int, bytes]:
        """Append leaf hashes; return the root at each size of `stops` that is reached, in order."""
        roots = {}
        begin, first = 0, self.size
        for stop in (*sorted(stops), first + len(hashes) // HASH_BYTES):
            end = (stop - first) * HASH_BYTES
            if begin < end <= len(hashes):
                self._append(hashes[begin:end])
                begin = end
            if stop == self.size:
                roots[stop] = self.root
        return roots

    def upper_tile(self, level: int, number: int) -> bytes:
        """The hashes of a tile above level 0, as they are computed."""
        return self._upper.get((level, number), b"")

    def wrong_tiles(self, stored: Mapping[tuple[int, int], bytes]) -> Sequence[Tile]:
        """The tiles above level 0 that are missing, edited, or more than the tree has."""
        wrong = []
        for level, number in sorted({*self._upper, *stored}):
            width = width_of(level, number, self.size)
            if self.upper_tile(level, number) != stored.get((level, number), b""):
                wrong.append(Tile(level, number, width))
        return wrong

    def _append(self, hashes: bytes) -> None:
        grown = append(self.size, self._edge, hashes)
        self.size, self.root, self._edge = grown.size, grown.root, grown.right_edge
        for tile in grown.tiles:
            if tile.level:
                self._upper[tile.level, tile.number] = tile.hashes
