"""The Merkle tree of RFC 6962 section 2.1, kept in tiles: appending, roots and proofs.

RFC 6962 splits a list of n leaves at the largest power of two below n. Hashing neighbours in pairs,
level by level, and moving a last one without a neighbour up unchanged gives the same tree. So the
node (height, index) covers the leaves from index * 2**height on, 2**height of them or as many as
there are, and everything here computes such nodes.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from predictu_dispatch.core.merkle.tiles import (
    HASH_BYTES,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    ProofError,
    Tiles,
    check_size,
    width_of,
)

EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of a tree without leaves (RFC 6962 section 2.1)."""


class GrownTile(NamedTuple):
    """A tile that is new or has grown, with all its hashes."""

    level: int
    number: int
    hashes: bytes


class Growth(NamedTuple):
    """What an append changes."""

    size: int
    root: bytes
    tiles: tuple[GrownTile, ...]
    """Every full tile and every partial one that is new or has grown, by level and number."""
    right_edge: Mapping[int, bytes]
    """The hashes of the partial tile of each level that has one; the next append needs them."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry (RFC 6962 section 2.1: 0x00 before the data)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two nodes (RFC 6962 section 2.1: 0x01 before the hashes)."""
    return sha256(b"\x01" + left + right).digest()


def append(size: int, right_edge: Mapping[int, bytes], leaf_hashes: bytes) -> Growth:
    """Append leaves, given as their concatenated hashes, to a tree of `size` leaves.

    `right_edge` has the hashes of the last tile of each level where that tile is partial. Raises
    ProofError if it does not fit the size.
    """
    _check_right_edge(size, right_edge)
    count, odd_bytes = divmod(len(leaf_hashes), HASH_BYTES)
    if odd_bytes:
        raise ProofError(f"{len(leaf_hashes)} bytes are no whole number of hashes")
    edge = dict(right_edge)
    grown = []
    level, gained = 0, leaf_hashes
    while gained:
        hashes = edge.pop(level, b"") + gained
        number = size >> TILE_HEIGHT * (level + 1)
        roots = []
        end = len(hashes) - len(hashes) % TILE_BYTES
        for begin in range(0, end, TILE_BYTES):
            tile = hashes[begin : begin + TILE_BYTES]
            grown.append(GrownTile(level, number, tile))
            roots.append(_fold(tile))
            number += 1
        if partial := hashes[end:]:
            grown.append(GrownTile(level, number, partial))
            edge[level] = partial
        level, gained = level + 1, b"".join(roots)
    return Growth(size + count, root_of_edge(size + count, edge), tuple(grown), edge)


def root_of_edge(size: int, right_edge: Mapping[int, bytes]) -> bytes:
    """Return the root of a tree of `size` leaves from the partial tiles of its levels."""
    _check_right_edge(size, right_edge)
    carried = b""
    for level in range(_levels(size)):
        if hashes := right_edge.get(level, b"") + carried:
            carried = _fold(hashes)
    return carried or EMPTY_ROOT


def root(size: int, tiles: Tiles) -> bytes:
    """Return the Merkle tree hash of the first `size` leaves (RFC 6962 section 2.1)."""
    check_size(size)
    return _Reader(size, tiles).node((size - 1).bit_length(), 0) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, tiles: Tiles) -> list[bytes]:
    """Return the audit path of a leaf, from its sibling upwards (RFC 6962 section 2.1.1)."""
    check_size(size)
    if not 0 <= index < size:
        raise ProofError(f"a tree of size {size} has no leaf {index}")
    return list(_Reader(size, tiles).siblings(0, index))


def consistency_proof(old_size: int, size: int, tiles: Tiles) -> list[bytes]:
    """Return the proof that the first `old_size` leaves are unchanged (RFC 6962 section 2.1.2).

    It is empty if the old tree is empty or both have the same size.
    """
    check_size(size)
    if not 0 <= old_size <= size:
        raise ProofError(f"a tree of size {size} never had the size {old_size}")
    if old_size in (0, size):
        return []
    reader = _Reader(size, tiles)
    # The largest node that ends where the old tree ended. It is left out if it is the old tree.
    height = (old_size & -old_size).bit_length() - 1
    index = (old_size >> height) - 1
    begin = [reader.node(height, index)] if index else []
    return begin + list(reader.siblings(height, index))


class _Reader:
    """Reads nodes of a tree of one size; each tile once."""

    def __init__(self, size: int, tiles: Tiles) -> None:
        self._size = size
        self._tiles = tiles
        self._read: dict[tuple[int, int], bytes] = {}

    def siblings(self, height: int, index: int) -> Iterator[bytes]:
        """Yield the nodes that are hashed with this one on the way to the root."""
        last = (self._size - 1) >> height
        while last:
            if index ^ 1 <= last:
                yield self.node(height, index ^ 1)
            height, index, last = height + 1, index >> 1, last >> 1

    def node(self, height: int, index: int) -> bytes:
        """Return a node. The last one of its height may cover fewer than 2**height leaves."""
        level, height_in_tile = divmod(height, TILE_HEIGHT)
        begin = index << height_in_tile
        end = (index + 1) << height_in_tile
        count = self._size >> TILE_HEIGHT * level
        if end <= count:
            return _fold(self._hashes(level, begin, end))
        carried = b""
        for lower in range(level):
            full = self._size >> TILE_HEIGHT * lower
            if hashes := self._hashes(lower, full - full % TILE_WIDTH, full) + carried:
                carried = _fold(hashes)
        return _fold(self._hashes(level, begin, count) + carried)

    def _hashes(self, level: int, begin: int, end: int) -> bytes:
        """Return hashes of a level; all are in one tile."""
        if begin == end:
            return b""
        number, first = divmod(begin, TILE_WIDTH)
        hashes = self._read.get((level, number))
        if hashes is None:
            width = width_of(level, number, self._size)
            hashes = self._tiles(level, number, width)
            if len(hashes) != width * HASH_BYTES:
                raise ProofError(f"tile {level}/{number} has {len(hashes)} bytes, not {width * HASH_BYTES}")
            self._read[level, number] = hashes
        return hashes[first * HASH_BYTES : (first + end - begin) * HASH_BYTES]


def _fold(hashes: bytes) -> bytes:
    """Hash neighbours in pairs until one hash is left."""
    while (length := len(hashes)) > HASH_BYTES:
        pairs = [sha256(b"\x01" + hashes[begin : begin + 64]).digest() for begin in range(0, length - 32, 64)]
        if length % 64:
            pairs.append(hashes[-32:])
        hashes = b"".join(pairs)
    return hashes


def _levels(size: int) -> int:
    """Return how many levels of tiles a tree of this size has."""
    return -(-size.bit_length() // TILE_HEIGHT)


def _check_right_edge(size: int, right_edge: Mapping[int, bytes]) -> None:
    check_size(size)
    for level in {*range(_levels(size)), *right_edge}:
        width = (size >> TILE_HEIGHT * level) % TILE_WIDTH
        if len(right_edge.get(level, b"")) != width * HASH_BYTES:
            raise ProofError(f"the last tile of level {level} has not the {width} hashes of a tree of size {size}")
