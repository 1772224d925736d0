"""Appends new entries to an operator's log and signs its checkpoint (evidence/FORMAT.md).

The database gives the leaves' hashes tile by tile; what is computed here is the tree above them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from predictu_dispatch.core.merkle import checkpoint, note, tree
from predictu_dispatch.core.merkle.tiles import HASH_BYTES

_TILES_PER_STEP: Final = 4
"""A thousand hashes take a millisecond, in which the event loop does nothing else."""


class LogDamagedError(Exception):
    """The stored tiles of a log do not have the root of its head; nothing is appended to it."""


class TileWrite(NamedTuple):
    """Hashes of a tile. On level 0 only the new ones, with their ids; above it all of the tile."""

    level: int
    tile: int
    hashes: bytes
    report_ids: bytes | None = None
    started_from: str | None = None
    started_until: str | None = None
    """Times as the database prints them: Python's datetime cannot hold all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingLog:
    """A log with its new entries."""

    operator_id: str
    origin: str
    size: int
    root: bytes
    right_edge: Mapping[int, bytes]
    """The hashes of the partial tile of each level that has one."""
    new: Sequence[TileWrite]
    """The new hashes of level 0, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrownLog:
    """What to store of a log."""

    operator_id: str
    size: int
    root: bytes
    checkpoint: str
    tiles: Sequence[TileWrite]


class StoredCheckpoint(NamedTuple):
    """A checkpoint that was stored; it is logged and sent to the witnesses."""

    operator_id: str
    origin: str
    size: int
    root: bytes
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogStep:
    """How far the backlog is read."""

    part: str
    source: int | None
    block: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn appends to the logs, and the position after it."""

    revision: int
    sealed_until: str | None = None
    sealed_at: datetime | None = None
    is_behind: bool = False
    """More rows follow."""
    has_backlog: bool = False
    backlog: BacklogStep | None = None
    logs: Sequence[GrowingLog] = ()
    without_log: Sequence[str] = ()
    """Operators whose logs must begin first."""

    @property
    def entries(self) -> int:
        return sum(len(each.hashes) // HASH_BYTES for log in self.logs for each in log.new)


class LogHead(NamedTuple):
    """The head of a log, with the signature lines of witnesses."""

    operator_id: str
    size: int
    checkpoint: str
    cosignatures: tuple[str, ...]

    @property
    def note(self) -> str:
        """The checkpoint with all signatures that are known."""
        return note.with_lines(self.checkpoint, self.cosignatures)


class LastVerification(NamedTuple):
    """The last `audit verify` of a log."""

    operator_id: str
    age_s: float
    """Since it was verified; of a log that never was, since it began."""
    faults: int


class LogHeads(NamedTuple):
    """All heads, the time since everything was sealed, and the last verifications."""

    unsealed_s: float
    heads: tuple[LogHead, ...]
    verifications: tuple[LastVerification, ...] = ()


def grow(log: GrowingLog, seeds: Sequence[bytes]) -> Generator[None, None, GrownLog]:
    """Append the new entries and sign the new checkpoint with each key.

    It yields after each step of a millisecond. Raises LogDamagedError.
    """
    size, edge, root = log.size, log.right_edge, log.root
    try:
        if tree.root_of_edge(size, edge) != root:
            raise LogDamagedError(f"the tiles of the log {log.origin} do not have the root of its head")
    except ValueError as error:
        raise LogDamagedError(f"the tiles of the log {log.origin} do not fit its head: {error}") from error
    upper: dict[tuple[int, int], bytes] = {}
    for begin in range(0, len(log.new), _TILES_PER_STEP):
        leaves = b"".join(each.hashes for each in log.new[begin : begin + _TILES_PER_STEP])
        size, root, tiles, edge = tree.append(size, edge, leaves)
        upper |= {(level, number): hashes for level, number, hashes in tiles if level}
        yield
    text = checkpoint.Checkpoint(log.origin, size, root).text()
    return GrownLog(
        operator_id=log.operator_id,
        size=size,
        root=root,
        checkpoint=signed(text, log.origin, seeds),
        tiles=[*log.new, *(TileWrite(level, number, hashes) for (level, number), hashes in upper.items())],
    )


def signed(text: str, origin: str, seeds: Iterable[bytes]) -> str:
    """Return the note with a signature of each key, in their order."""
    return note.assemble(text, [note.sign(text, origin, seed) for seed in seeds])
