"""Names what differs between rows and leaves, among the entries of the sums that are not zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from predictu_dispatch.evidence.faults import Fault, FaultKind
from predictu_dispatch.evidence.multiset import ID_BYTES
from predictu_dispatch.evidence.ranges import Ranges


class Leaf(NamedTuple):
    """An entry of a log, and its place there."""

    at: int
    leaf_hash: bytes


class StoredRow(NamedTuple):
    """A row, as its entry would be now."""

    leaf_hash: bytes
    is_pending: bool
    at: datetime
    subject: str


@dataclass(slots=True)
class Differences:
    """The leaves and rows of some sums, by operator and entry id."""

    leaves: dict[tuple[str, bytes], list[Leaf]] = field(default_factory=dict)
    rows: dict[tuple[str, bytes], list[StoredRow]] = field(default_factory=dict)

    def add_leaf(self, operator_id: str, entry_id: bytes, leaf: Leaf) -> None:
        self.leaves.setdefault((operator_id, entry_id), []).append(leaf)

    def add_row(self, operator_id: str, record: bytes, *, is_pending: bool, at: datetime, subject: str) -> None:
        row = StoredRow(record[ID_BYTES:], is_pending, at, subject)
        self.rows.setdefault((operator_id, record[:ID_BYTES]), []).append(row)

    def faults(self, removed: Mapping[str, Ranges]) -> Iterator[Fault]:
        """Yield a fault for each leaf or row without its counterpart, in the order of the logs."""
        for key, leaves in sorted(self.leaves.items(), key=lambda item: (item[0][0], item[1][0].at)):
            yield from self._faults_of(key, leaves, self.rows.get(key, []), removed.get(key[0], Ranges()))
        for key, rows in sorted(self.rows.items(), key=lambda item: (item[0][0], item[1][0].at)):
            if key not in self.leaves:
                for row in rows:
                    if not row.is_pending:
                        yield Fault(operator_id=key[0], kind=FaultKind.ADDED, subject=row.subject)

    @staticmethod
    def _faults_of(
        key: tuple[str, bytes], leaves: list[Leaf], rows: list[StoredRow], removed: Ranges
    ) -> Iterator[Fault]:
        operator_id, entry_id = key
        first, *others = leaves
        subject = rows[0].subject if rows else f"the entry {UUID(bytes=entry_id)}"
        for other in others:
            detail = f"it is in the log as entry {first.at} already"
            yield Fault(
                operator_id=operator_id, kind=FaultKind.SEALED_TWICE, subject=subject, detail=detail, index=other.at
            )
        if first.at in removed:
            for row in rows:
                detail = "it is recorded as removed, and its row is there"
                yield Fault(
                    operator_id=operator_id,
                    kind=FaultKind.REMOVAL,
                    subject=row.subject,
                    detail=detail,
                    index=first.at,
                )
        elif not rows:
            yield Fault(operator_id=operator_id, kind=FaultKind.MISSING, subject=subject, index=first.at)
        elif all(row.leaf_hash != first.leaf_hash for row in rows):
            yield Fault(operator_id=operator_id, kind=FaultKind.CHANGED, subject=subject, index=first.at)
        if first.at not in removed and len(rows) > 1:
            yield Fault(operator_id=operator_id, kind=FaultKind.COPIED, subject=rows[0].subject, index=first.at)
