"""Finds a row's entry in its log and proves it, for the files of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from predictu_dispatch.core.merkle.tree import leaf_hash
from predictu_dispatch.edge.postgres.audit_reader import AuditReader
from predictu_dispatch.evidence.entry_sql import SOURCES, EntrySource
from predictu_dispatch.evidence.proofs import (
    ATTEMPTS,
    NotProvableError,
    checkpoint_for,
    covering_checkpoint,
    entry_statement,
    log_proof,
)

_NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)
"""For entries that are no attempts: they are found without a time."""
_SOURCES = {source.kind: source for source in SOURCES}


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedEntry:
    """An entry as its row gives it; the proofs are there if it is sealed."""

    content: bytes
    proof: bytes | None = None
    cosigned: bytes | None = None
    """The proof by the first cosigned checkpoint, if `proof` is by a later one."""

    is_cosigned: bool = False

    def files(self, stem: str) -> dict[str, bytes]:
        """Its files, by name without the folder."""
        found = {f"{stem}.json": self.content}
        if self.proof is not None:
            found[f"{stem}.tlog-proof"] = self.proof
        if self.cosigned is not None:
            found[f"{stem}.cosigned.tlog-proof"] = self.cosigned
        return found


async def attempt_entry(reader: AuditReader, operator_id: str, report_id: UUID, started_at: datetime) -> SealedEntry:
    """The entry of an attempt. Raises NotProvableError if its row was changed."""
    leaves = await reader.fetch("audit_leaf_of", operator_id, report_id, started_at)
    content = await _content(reader, operator_id, report_id, started_at, ATTEMPTS)
    return await _sealed(reader, operator_id, content, leaves)


async def other_entries(reader: AuditReader, operator_id: str, kinds: Mapping[UUID, str]) -> dict[UUID, SealedEntry]:
    """The entries of other kinds, by their ids. Raises NotProvableError if a row was changed."""
    leaves: dict[UUID, list[Any]] = {entry_id: [] for entry_id in kinds}
    for leaf in await reader.fetch("dispute_leaves", operator_id, list(kinds)):
        leaves[leaf["entry_id"]].append(leaf)
    found = {}
    for entry_id, kind in kinds.items():
        content = await _content(reader, operator_id, entry_id, _NO_TIME, _SOURCES[kind])
        found[entry_id] = await _sealed(reader, operator_id, content, leaves[entry_id])
    return found


async def _content(
    reader: AuditReader, operator_id: str, entry_id: UUID, started_at: datetime, source: EntrySource
) -> bytes:
    rows = await reader.fetch_text(entry_statement(source), operator_id, entry_id, started_at)
    if not rows:
        raise NotProvableError(f"there is no row {entry_id}")
    content: bytes = rows[0]["entry"]
    return content


async def _sealed(reader: AuditReader, operator_id: str, content: bytes, leaves: Sequence[Any]) -> SealedEntry:
    if not leaves:
        return SealedEntry(content=content)
    index, leaf = leaves[0]["index"], leaf_hash(content)
    if leaf != leaves[0]["leaf_hash"]:
        raise NotProvableError("the row was changed after it was sealed")
    try:
        newest = await checkpoint_for(reader, operator_id, index)
    except NotProvableError:
        return SealedEntry(content=content)
    proof = await log_proof(reader, operator_id, index, leaf, newest)
    earlier = None
    for row in await reader.fetch("dispute_cosigned", operator_id, index):
        if row["size"] < newest.size:
            earlier = await log_proof(reader, operator_id, index, leaf, covering_checkpoint(row))
    return SealedEntry(
        content=content,
        proof=proof.text().encode(),
        cosigned=None if earlier is None else earlier.text().encode(),
        is_cosigned=newest.is_cosigned or earlier is not None,
    )
