"""Names the differences between rows and leaves in the sums that are not zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from predictu_dispatch.evidence.faults import Fault, FaultKind
from predictu_dispatch.evidence.multiset import ID_BYTES
from predictu_dispatch.evidence.ranges import Ranges


class Leaf(NamedTuple):
    """An entry of a log, by its index and leaf hash."""

    leaf_index: int
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
        for key, leaves in sorted(self.leaves.items(), key=lambda item: (item[0][0], item[1][0].leaf_index)):
            yield from _Entry(key, leaves, self.rows.get(key, [])).faults(removed.get(key[0], Ranges()))
        for key, rows in sorted(self.rows.items(), key=lambda item: (item[0][0], item[1][0].at)):
            if key not in self.leaves:
                yield from _Entry(key, [], rows).faults(Ranges())


class _Entry:
    """The leaves and rows of one id: one each, or two if a report was repeated."""

    def __init__(self, key: tuple[str, bytes], leaves: Sequence[Leaf], rows: Sequence[StoredRow]) -> None:
        self._operator_id, self._entry_id = key
        self._leaves = leaves
        self._rows = list(rows)

    def faults(self, removed: Ranges) -> Iterator[Fault]:
        taken = [(leaf, self._take(leaf)) for leaf in self._leaves if leaf.leaf_index not in removed]
        for leaf, row in taken:
            # A log that begins with old rows has its start before the position has moved on.
            if row is not None and row.is_pending and leaf.leaf_index > 0:
                detail = "it is in the log, but audit_position says that it is not sealed yet"
                yield self._fault(FaultKind.HEAD, row.subject, leaf, detail)
        for leaf in self._leaves:
            if leaf.leaf_index in removed and (row := self._take(leaf)):
                yield self._fault(FaultKind.REMOVAL, row.subject, leaf, "it is recorded as removed, but its row exists")
        yield from [self._without_row(leaf) for leaf, row in taken if row is None]
        for row in self._rows:
            if self._leaves and all(leaf.leaf_index in removed for leaf in self._leaves):
                detail = "it is recorded as removed, but a row with its id exists"
                yield self._fault(FaultKind.REMOVAL, row.subject, self._leaves[0], detail)
            elif self._leaves:
                yield self._fault(FaultKind.COPIED, row.subject, self._leaves[0])
            elif not row.is_pending:
                yield self._fault(FaultKind.ADDED, row.subject)

    def _without_row(self, leaf: Leaf) -> Fault:
        same = next((each for each in self._leaves if each.leaf_hash == leaf.leaf_hash and each is not leaf), None)
        if self._rows:
            return self._fault(FaultKind.CHANGED, self._rows.pop(0).subject, leaf)
        name = f"the entry {UUID(bytes=self._entry_id)}"
        if same is not None:
            return self._fault(FaultKind.SEALED_TWICE, name, leaf, f"it is in the log as entry {same.leaf_index} too")
        return self._fault(FaultKind.MISSING, name, leaf)

    def _take(self, leaf: Leaf) -> StoredRow | None:
        """Take the row that this leaf sealed."""
        for row in self._rows:
            if row.leaf_hash == leaf.leaf_hash:
                self._rows.remove(row)
                return row
        return None

    def _fault(self, kind: FaultKind, subject: str, leaf: Leaf | None = None, detail: str = "") -> Fault:
        index = leaf.leaf_index if leaf else None
        return Fault(operator_id=self._operator_id, kind=kind, subject=subject, detail=detail, index=index)
