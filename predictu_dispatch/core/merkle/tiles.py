"""Which tiles a tree of some size has, and where its files are (c2sp.org/tlog-tiles).

A tile holds up to 256 consecutive hashes of one level. Level 0 holds leaf hashes; a hash of level n
is the root of a full tile of level n - 1. Only the last tile of a level may be partial.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

HASH_BYTES: Final = 32
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
SIZE_MAX: Final = 2**63 - 1
"""Largest tree size; other implementations keep it in a signed 64-bit integer."""
ENTRY_BYTES_MAX: Final = 2**16 - 1
"""A bundle gives the length of each entry in 16 bits."""

Tiles: TypeAlias = Callable[[int, int, int], bytes]
"""Reads a tile: (level, number, width) -> its first `width` hashes, concatenated."""


class ProofError(ValueError):
    """A proof, a tile or an argument does not fit its tree."""


class Tile(NamedTuple):
    """The place of a tile and how many hashes it holds, 1 to 256."""

    level: int
    number: int
    width: int


def width_of(level: int, number: int, size: int) -> int:
    """Return how many hashes this tile has in a tree of this size, 0 if it does not exist."""
    return max(0, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - number * TILE_WIDTH))


def tiles_of(size: int, since: int = 0) -> Iterator[Tile]:
    """Yield the tiles of a tree of this size that are new or have grown since the size `since`.

    The order is by level, then by number.
    """
    check_size(size)
    level = 0
    while count := size >> TILE_HEIGHT * level:
        first = since >> TILE_HEIGHT * (level + 1)
        for number in range(first, -(-count // TILE_WIDTH)):
            width = width_of(level, number, size)
            if width != width_of(level, number, since):
                yield Tile(level, number, width)
        level += 1


def required_tiles(read: Callable[[Tiles], object]) -> tuple[Tile, ...]:
    """Return the tiles that a computation reads, so that they can be loaded before it runs.

    Which tiles a root or a proof needs does not depend on their hashes:
    `required_tiles(lambda tiles: inclusion_proof(index, size, tiles))`.
    """
    found: dict[Tile, None] = {}

    def note_and_answer(level: int, number: int, width: int) -> bytes:
        found[Tile(level, number, width)] = None
        return bytes(width * HASH_BYTES)

    read(note_and_answer)
    return tuple(found)


def tile_path(level: int, number: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile below the log's prefix: `tile/0/x001/067.p/12`."""
    if not 0 <= level < 2**6:
        raise ProofError(f"no tile has the level {level}")
    return _path(str(level), number, width)


def bundle_path(number: int, width: int = TILE_WIDTH) -> str:
    """Return the path of the entry bundle of this tile of level 0."""
    return _path("entries", number, width)


def bundle_of(entries: Sequence[bytes]) -> bytes:
    """Return the entry bundle: before each entry its length, a big-endian uint16."""
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise ProofError(f"a bundle has 1 to {TILE_WIDTH} entries, not {len(entries)}")
    if (longest := max(map(len, entries))) > ENTRY_BYTES_MAX:
        raise ProofError(f"an entry has {longest} bytes, a bundle takes {ENTRY_BYTES_MAX}")
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def check_size(size: int) -> None:
    """Raise ProofError if no tree can have this size."""
    if not 0 <= size <= SIZE_MAX:
        raise ProofError(f"no tree has the size {size}")


def _path(kind: str, number: int, width: int) -> str:
    if number < 0 or not 1 <= width <= TILE_WIDTH:
        raise ProofError(f"no tile has the number {number} and the width {width}")
    digits = f"{number % 1000:03}"
    while number := number // 1000:
        digits = f"x{number % 1000:03}/{digits}"
    return f"tile/{kind}/{digits}" + (f".p/{width}" if width < TILE_WIDTH else "")
