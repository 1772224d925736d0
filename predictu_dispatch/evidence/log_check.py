"""Checks one operator's log by itself: tiles, head, checkpoints, signatures, cosignatures.

The tree is built again from the leaf hashes of level 0. Every stored checkpoint must have its root
at its size, so an edit is between the last checkpoint that fits and the first one that does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from predictu_dispatch.core.merkle.checkpoint import Checkpoint, open_checkpoint
from predictu_dispatch.core.merkle.note import NoteError, VerifierKey, parse, parse_signatures, verify
from predictu_dispatch.core.merkle.tiles import HASH_BYTES, TILE_WIDTH, Tile
from predictu_dispatch.core.merkle.tree import EMPTY_ROOT
from predictu_dispatch.evidence.faults import Fault, FaultKind, Faults
from predictu_dispatch.evidence.tree_check import TreeCheck


class KeptCheckpoint(NamedTuple):
    """A checkpoint of the database, or one that was kept outside; then `source` says where."""

    size: int
    note: str
    cosignatures: Sequence[str] = ()
    source: str = ""
    origin: str = ""
    """The log's name; only of one that was kept outside."""
    is_single: bool = False
    """Kept outside as a file of its own, not in an export of all logs."""


class LogHead(NamedTuple):
    """The head as it is stored."""

    size: int
    root: bytes
    checkpoint: str


@dataclass(slots=True, kw_only=True)
class LogCheck:
    """One log. Tiles come in order, and checkpoints whose size they reach come with them."""

    operator_id: str
    origin: str
    head: LogHead
    keys: Sequence[VerifierKey]
    """Without a key, signatures are not checked."""
    witnesses: Sequence[VerifierKey]
    faults: Faults
    tree: TreeCheck = field(default_factory=TreeCheck)
    checkpoints: int = 0
    cosignatures: int = 0
    fitting_size: int = 0
    """The largest checkpoint that fits so far."""

    def append(self, hashes: bytes, checkpoints: Sequence[KeptCheckpoint]) -> None:
        """Append leaf hashes, and check the checkpoints of these sizes."""
        roots = self.tree.append(hashes, [each.size for each in checkpoints])
        for each in checkpoints:
            self._check(each, EMPTY_ROOT if each.size == 0 else roots.get(each.size, b""))

    def finish(self, upper_tiles: Mapping[tuple[int, int], bytes], leaf_tiles_size: int) -> None:
        """Check what needs the whole log."""
        head = self.head
        if leaf_tiles_size > head.size:
            self._add(FaultKind.HEAD, "the head", f"it says {head.size} entries, and the tiles have {leaf_tiles_size}")
        if self.tree.size == head.size:
            if self.tree.root != head.root:
                self._add(FaultKind.HEAD, "the head", f"its root is not that of the {head.size} entries")
            self._check(KeptCheckpoint(head.size, head.checkpoint, source="the head's checkpoint"), self.tree.root)
            for tile in self.tree.wrong_tiles(upper_tiles):
                self._wrong_tile(tile, upper_tiles.get((tile.level, tile.number), b""))

    def _check(self, stored: KeptCheckpoint, root: bytes) -> None:
        subject = stored.source or f"checkpoint of size {stored.size}"
        self.checkpoints += not stored.source
        try:
            checkpoint = Checkpoint.parse(parse(stored.note).text)
        except NoteError as error:
            self._add(FaultKind.CHECKPOINT, subject, str(error))
            return
        self._check_signatures(stored, subject)
        if checkpoint.origin != self.origin:
            self._add(FaultKind.CHECKPOINT, subject, f"it is of the log {checkpoint.origin}, not of {self.origin}")
        elif checkpoint.size != stored.size:
            self._add(FaultKind.CHECKPOINT, subject, f"it says the size {checkpoint.size}")
        elif checkpoint.root != root:
            kind = FaultKind.OUTSIDE if stored.source else FaultKind.CHECKPOINT
            between = f"{self.fitting_size} to {max(self.fitting_size, stored.size - 1)}"
            self._add(kind, subject, f"its root is not that of the log's entries; look at the entries {between}")
        else:
            self.fitting_size = max(self.fitting_size, stored.size)

    def _check_signatures(self, stored: KeptCheckpoint, subject: str) -> None:
        if self.keys:
            try:
                open_checkpoint(stored.note, self.keys)
            except NoteError as error:
                self._add(FaultKind.SIGNATURE, subject, str(error))
        if self.witnesses and stored.cosignatures:
            text = parse(stored.note).text
            known = {(key.name, key.key_hash) for key in self.witnesses}
            for line in stored.cosignatures:
                try:
                    [signature] = parse_signatures(f"{line}\n")
                    if (signature.name, signature.key_hash) in known:
                        verify(f"{text}\n{line}\n", self.witnesses)
                        self.cosignatures += 1
                except (NoteError, ValueError) as error:
                    self._add(FaultKind.COSIGNATURE, subject, str(error))

    def _wrong_tile(self, tile: Tile, stored: bytes) -> None:
        computed = self.tree.upper_tile(tile.level, tile.number)
        name = f"tile {tile.level}/{tile.number}"
        if not stored or len(stored) != len(computed):
            have, want = len(stored) // HASH_BYTES, len(computed) // HASH_BYTES
            self._add(FaultKind.TILE, name, f"it has {have} hashes instead of {want}")
            return
        wrong = [
            at
            for at in range(0, len(computed), HASH_BYTES)
            if computed[at : at + HASH_BYTES] != stored[at : at + HASH_BYTES]
        ]
        child = tile.number * TILE_WIDTH + wrong[0] // HASH_BYTES
        leaves = TILE_WIDTH**tile.level
        between = f"{child * leaves} to {(child + 1) * leaves - 1}"
        self._add(
            FaultKind.TILE,
            name,
            f"{len(wrong)} of its hashes are not those of level {tile.level - 1}, first that of tile"
            f" {tile.level - 1}/{child}; look at the entries {between}",
        )

    def _add(self, kind: FaultKind, subject: str, detail: str) -> None:
        self.faults.add(Fault(operator_id=self.operator_id, kind=kind, subject=subject, detail=detail))
