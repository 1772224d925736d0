"""A log of 70,000 leaves, and RFC 6962 section 2.1 written down as it is defined there."""

from functools import cache
from hashlib import sha256

from predictu_dispatch.core.merkle.tree import Growth, append

SIZE = 70_000
ENTRIES = [str(number).encode() for number in range(SIZE)]
LEAVES = [sha256(b"\x00" + entry).digest() for entry in ENTRIES]


@cache
def tree_hash(begin: int, end: int) -> bytes:
    """MTH(D[begin:end])."""
    if end - begin == 0:
        return sha256(b"").digest()
    if end - begin == 1:
        return LEAVES[begin]
    split = begin + largest_power_of_two_below(end - begin)
    return sha256(b"\x01" + tree_hash(begin, split) + tree_hash(split, end)).digest()


def path(index: int, begin: int, end: int) -> list[bytes]:
    """PATH(index, D[begin:end]), the index counted from the beginning of the log."""
    if end - begin == 1:
        return []
    split = begin + largest_power_of_two_below(end - begin)
    if index < split:
        return [*path(index, begin, split), tree_hash(split, end)]
    return [*path(index, split, end), tree_hash(begin, split)]


def subproof(old: int, begin: int, end: int, *, known: bool) -> list[bytes]:
    """SUBPROOF(old - begin, D[begin:end], known)."""
    if old == end:
        return [] if known else [tree_hash(begin, end)]
    split = begin + largest_power_of_two_below(end - begin)
    if old <= split:
        return [*subproof(old, begin, split, known=known), tree_hash(split, end)]
    return [*subproof(old, split, end, known=False), tree_hash(begin, split)]


def largest_power_of_two_below(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


@cache
def whole_log() -> Growth:
    return append(0, {}, b"".join(LEAVES))


@cache
def _stored() -> dict[tuple[int, int], bytes]:
    return {(tile.level, tile.number): tile.hashes for tile in whole_log().tiles}


def tiles(level: int, number: int, width: int) -> bytes:
    """Read the tiles of any tree that this log has been."""
    return _stored()[level, number][: 32 * width]
