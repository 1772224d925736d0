"""Exports logs as static trees (c2sp.org/tlog-tiles), and reads an earlier export.

`DIR/<operator_id>/checkpoint` and `DIR/<operator_id>/tile/…`; the folder is the last part of the
log's name, which is the operator's id unless that has odd characters. The tiles and the entries
come first, then the checkpoint, each by a rename, so an export that was interrupted is still the
earlier one. A log that does not continue the exported one is not exported: the folder is evidence.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from predictu_dispatch.core.merkle.checkpoint import Checkpoint
from predictu_dispatch.core.merkle.note import NOTE_BYTES_MAX, NoteError, parse, with_lines
from predictu_dispatch.core.merkle.tiles import (
    HASH_BYTES,
    TILE_WIDTH,
    ProofError,
    bundle_path,
    tile_path,
    tiles_of,
    width_of,
)
from predictu_dispatch.core.merkle.tree import root
from predictu_dispatch.edge.postgres.audit_reader import AuditReader
from predictu_dispatch.evidence.entry_bundles import bundles
from predictu_dispatch.evidence.log_check import KeptCheckpoint
from predictu_dispatch.evidence.proofs import with_tiles

CHECKPOINT: Final = "checkpoint"


class NotExportedError(Exception):
    """The log does not fit the folder or itself; the message says how."""


class Exported(NamedTuple):
    """What an export of one log did."""

    operator_id: str
    since: int
    size: int
    tiles: int
    bundles: int
    left_out: int
    """Entry bundles that were not written, because rows are missing."""
    unexplained: int
    """Entries without a row that fits, although retention did not remove it."""


@dataclass(frozen=True, slots=True)
class EarlierExport:
    """The folder of an earlier export of some logs."""

    folder: Path

    def checkpoints(self) -> Iterator[KeptCheckpoint]:
        """Yield each log's checkpoint. Raises NoteError and OSError."""
        for file in sorted(self.folder.glob(f"*/{CHECKPOINT}")):
            yield outside_checkpoint(file)

    def leaf_hashes(self, origin: str, tile: int) -> bytes:
        """The hashes of a tile of level 0 of this log as far as it was exported."""
        target = self.folder / folder_of(origin)
        file = target / CHECKPOINT
        if not file.exists():
            return b""
        width = width_of(0, tile, outside_checkpoint(file).size)
        if not width:
            return b""
        path = target / tile_path(0, tile, width)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            # A later export may have been interrupted after it wrote the whole tile.
            whole = target / tile_path(0, tile)
            return whole.read_bytes()[: width * HASH_BYTES] if whole.exists() else b""


def folder_of(origin: str) -> str:
    """The folder of a log: the last part of its name, with a leading dot escaped."""
    name = origin.rpartition("/")[2]
    return name.replace(".", "%2e") if name.startswith(".") else name


def outside_checkpoint(file: Path) -> KeptCheckpoint:
    """Read a checkpoint that was kept outside. Raises NoteError and OSError."""
    with file.open("rb") as opened:
        content = opened.read(NOTE_BYTES_MAX + 1)
    try:
        checkpoint = Checkpoint.parse(parse(content).text)
        return KeptCheckpoint(checkpoint.size, content.decode(), source=str(file), origin=checkpoint.origin)
    except NoteError as error:
        raise NoteError(f"{file} is no checkpoint: {error}") from None


async def export_log(reader: AuditReader, operator_id: str, folder: Path, *, since: int | None) -> Exported:
    """Export one log. Raises NotExportedError, NoteError and OSError.

    `since` is the size from which on tiles are written; by default that of the exported checkpoint.
    """
    [head, *_] = await reader.fetch("audit_newest_checkpoints", operator_id)
    note = with_lines(head["checkpoint"], head["cosignatures"])
    checkpoint = Checkpoint.parse(parse(note).text)
    size = checkpoint.size
    target = folder / folder_of(checkpoint.origin)
    if (target / CHECKPOINT).exists():
        earlier = Checkpoint.parse(parse((target / CHECKPOINT).read_bytes()).text)
        if earlier.size > size or await _root(reader, operator_id, earlier.size) != earlier.root:
            raise NotExportedError(
                f"the log of {operator_id} does not continue the one in {target}, which has {earlier.size} entries;"
                f" nothing was exported; run predictu-dispatch audit verify --against {folder}"
            )
        since = earlier.size if since is None else min(since, earlier.size)
    if since is not None and since > size:
        raise NotExportedError(f"--since {since}: the log of {operator_id} has {size} entries; nothing was exported")
    since = since or 0
    if await _root(reader, operator_id, size) != checkpoint.root:
        raise NotExportedError(f"the tiles of {operator_id} do not fit its head; run predictu-dispatch audit verify")
    count = 0
    for level, number, width in tiles_of(size, since):
        rows = await reader.fetch("audit_tile", operator_id, level, number)
        hashes = rows[0]["hashes"][: width * HASH_BYTES] if rows else b""
        if len(hashes) != width * HASH_BYTES:
            raise NotExportedError(
                f"tile {level}/{number} of {operator_id} is missing; run predictu-dispatch audit verify"
            )
        whole = target / tile_path(level, number)
        _write(whole if width == TILE_WIDTH else target / tile_path(level, number, width), hashes)
        count += 1
    written, left_out, unexplained = await _write_bundles(reader, operator_id, target, since, size)
    # All files at once: syncing each of them takes most of the time. Until then the checkpoint is
    # the earlier one, and the next export writes them again.
    await asyncio.to_thread(os.sync)
    _write(target / CHECKPOINT, note.encode(), is_synced=True)
    for level, number, width in tiles_of(size, since):
        if width == TILE_WIDTH:
            # A partial tile is not needed once its tile is whole.
            shutil.rmtree(target / f"{tile_path(level, number)}.p", ignore_errors=True)
            if level == 0 and (target / bundle_path(number)).exists():
                shutil.rmtree(target / f"{bundle_path(number)}.p", ignore_errors=True)
    return Exported(operator_id, since, size, count, written, left_out, unexplained)


async def _write_bundles(
    reader: AuditReader, operator_id: str, target: Path, since: int, size: int
) -> tuple[int, int, int]:
    """Write the entries of the tiles that have grown; returns the last three fields of Exported."""
    written = left_out = unexplained = 0
    if size == since:
        return written, left_out, unexplained
    async for bundle in bundles(reader, operator_id, since // TILE_WIDTH, size):
        if bundle.content is None:
            left_out += 1
            unexplained += bundle.unexplained
        else:
            _write(target / bundle_path(bundle.tile, bundle.width), bundle.content)
            written += 1
    return written, left_out, unexplained


async def _root(reader: AuditReader, operator_id: str, size: int) -> bytes:
    try:
        return await with_tiles(reader, operator_id, lambda tiles: root(size, tiles))
    except ProofError:
        return b""


def _write(path: Path, content: bytes, *, is_synced: bool = False) -> None:
    """Write a file as a whole or not at all; that holds after a power cut only if it is synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(content)
            if is_synced:
                file.flush()
                os.fsync(descriptor)
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
