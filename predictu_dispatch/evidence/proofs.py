"""Proves that an entry is in its log: its bytes, its index, and the path to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from predictu_dispatch.core.merkle.checkpoint import Checkpoint, LogProof
from predictu_dispatch.core.merkle.note import parse, with_lines
from predictu_dispatch.core.merkle.tiles import HASH_BYTES, Tiles, required_tiles
from predictu_dispatch.core.merkle.tree import inclusion_proof, leaf_hash
from predictu_dispatch.core.merkle.verification import verify_inclusion
from predictu_dispatch.edge.postgres.audit_reader import AuditReader
from predictu_dispatch.evidence.entry_sql import SOURCES, EntrySource, entry_expression

_Result = TypeVar("_Result")
ATTEMPTS: Final = SOURCES[0]


class NotProvableError(Exception):
    """The entry is not in the log, or not as it is stored; the message says which."""


class CoveringCheckpoint(NamedTuple):
    """A checkpoint whose log has the entry."""

    size: int
    note: str
    is_cosigned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """An entry and its proof."""

    entry: bytes
    size: int
    log_proof: LogProof


async def prove(
    reader: AuditReader, operator_id: str, entry_id: UUID, started_at: datetime, source: EntrySource = ATTEMPTS
) -> Proof:
    """Prove one entry; `started_at` of an attempt narrows the search. Raises NotProvableError."""
    entries = await reader.fetch_text(entry_statement(source), operator_id, entry_id, started_at)
    leaves = await reader.fetch("audit_leaf_of", operator_id, entry_id, started_at)
    if not leaves:
        raise NotProvableError("it is not sealed yet" if entries else "there is no such entry")
    if not entries:
        raise NotProvableError("it has no row: retention or somebody removed it; run predictu-dispatch audit verify")
    entry, index = entries[0]["entry"], leaves[0]["index"]
    if leaf_hash(entry) != leaves[0]["leaf_hash"]:
        raise NotProvableError("its row was changed after it was sealed; run predictu-dispatch audit verify")
    checkpoint = await checkpoint_for(reader, operator_id, index)
    proof = await log_proof(reader, operator_id, index, leaf_hash(entry), checkpoint)
    return Proof(entry=entry, size=checkpoint.size, log_proof=proof)


async def log_proof(
    reader: AuditReader, operator_id: str, index: int, leaf: bytes, checkpoint: CoveringCheckpoint
) -> LogProof:
    """Prove that the log has the leaf at this checkpoint. Raises ProofError for a damaged log."""
    size, note = checkpoint.size, checkpoint.note
    proof = await with_tiles(reader, operator_id, lambda tiles: inclusion_proof(index, size, tiles))
    verify_inclusion(index, size, leaf, Checkpoint.parse(parse(note).text).root, proof)
    return LogProof(index=index, proof=tuple(proof), note=note)


async def checkpoint_for(reader: AuditReader, operator_id: str, index: int) -> CoveringCheckpoint:
    """The newest cosigned checkpoint that has this entry, else the newest one."""
    found = await reader.fetch("audit_newest_checkpoints", operator_id)
    covering = [row for row in found if row["size"] > index]
    if not covering:
        raise NotProvableError("no stored checkpoint has it yet; run it again in a minute")
    row = max(covering, key=lambda row: (bool(row["cosignatures"]), row["size"]))
    return covering_checkpoint(row)


def covering_checkpoint(row: Any) -> CoveringCheckpoint:  # noqa: ANN401 - a row
    """The checkpoint of a row with `size`, `checkpoint` and `cosignatures`."""
    note = with_lines(row["checkpoint"], row["cosignatures"])
    return CoveringCheckpoint(row["size"], note, is_cosigned=bool(row["cosignatures"]))


async def with_tiles(reader: AuditReader, operator_id: str, compute: Callable[[Tiles], _Result]) -> _Result:
    """Load the tiles that a computation reads, and run it."""
    loaded: dict[tuple[int, int], bytes] = {}
    for level, number, _ in required_tiles(compute):
        rows: Sequence[Any] = await reader.fetch("audit_tile", operator_id, level, number)
        loaded[level, number] = rows[0]["hashes"] if rows else b""
    return compute(lambda level, number, width: loaded[level, number][: width * HASH_BYTES])


@cache
def entry_statement(source: EntrySource) -> str:
    """The statement that builds an entry from its row, whether it is sealed or not.

    $1 operator, $2 the entry's id, $3 started_at of an attempt.
    """
    row, expression = entry_expression(source.function)
    bound = f"{row}.started_at = $3" if source.is_partitioned else "$3::timestamptz is not null"
    where = f"{row}.operator_id = $1 and {source.entry_id.format(row)} = $2 and {bound}"
    return f"select {expression} as entry from {source.rows.format(row)} where {where}"  # noqa: S608 - our own text
