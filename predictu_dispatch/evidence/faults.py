"""What `audit verify` finds: one record for each fault, and how many there are of each kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

FIRST_FAULTS: Final = 20
"""Faults that are kept for each operator; further ones are only counted."""


class FaultKind(StrEnum):
    """The kinds of faults; `FAULT_TEXTS` says what each means."""

    CHANGED = "changed"
    MISSING = "missing"
    ADDED = "added"
    COPIED = "copied"
    SEALED_TWICE = "sealed_twice"
    UNSEALED = "unsealed"
    LOG_MISSING = "log_missing"
    START = "start"
    REMOVAL = "removal"
    TILE = "tile"
    HEAD = "head"
    CHECKPOINT = "checkpoint"
    SIGNATURE = "signature"
    COSIGNATURE = "cosignature"
    SHRUNK = "shrunk"
    OUTSIDE = "outside"
    VIEW = "view"


FAULT_TEXTS: Final = {
    FaultKind.CHANGED: "the stored row is not the one that was sealed",
    FaultKind.MISSING: "the entry has no row, and no removal is recorded",
    FaultKind.ADDED: "the row was never sealed, although its transaction was",
    FaultKind.COPIED: "the row is there more than once",
    FaultKind.SEALED_TWICE: "the entry is in the log more than once",
    FaultKind.UNSEALED: "rows wait to be sealed for too long",
    FaultKind.LOG_MISSING: "the operator has no log",
    FaultKind.START: "the log does not begin with its start entry",
    FaultKind.REMOVAL: "the recorded removal is not the one that was sealed",
    FaultKind.TILE: "a tile of the log was edited or is missing",
    FaultKind.HEAD: "the log's head does not fit its entries",
    FaultKind.CHECKPOINT: "a stored checkpoint does not fit the log's entries",
    FaultKind.SIGNATURE: "no trusted key signed this checkpoint",
    FaultKind.COSIGNATURE: "a witness's cosignature does not fit",
    FaultKind.SHRUNK: "the log was longer before",
    FaultKind.OUTSIDE: "the log does not continue what was kept outside",
    FaultKind.VIEW: "it is not the one of this release, so it may hide changes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, named so that somebody can look at it."""

    operator_id: str
    kind: FaultKind
    subject: str
    """What it is about: `attempt 2 of 0190a6d1-…`, `tile 0/17`, `checkpoint of size 812`."""
    detail: str = ""
    index: int | None = None
    """The entry's place in the log."""

    @property
    def text(self) -> str:
        """One sentence."""
        place = "" if self.index is None else f", entry {self.index}"
        return f"{self.subject}{place}: {self.detail or FAULT_TEXTS[self.kind]}"


@dataclass(slots=True)
class Faults:
    """The faults of a run: all are counted, the first of each operator are kept."""

    first: dict[str, list[Fault]] = field(default_factory=dict)
    counts: dict[str, Counter[FaultKind]] = field(default_factory=dict)

    def add(self, fault: Fault) -> None:
        self.counts.setdefault(fault.operator_id, Counter())[fault.kind] += 1
        kept = self.first.setdefault(fault.operator_id, [])
        if len(kept) < FIRST_FAULTS:
            kept.append(fault)

    def number_of(self, operator_id: str) -> int:
        return self.counts.get(operator_id, Counter()).total()

    @property
    def total(self) -> int:
        return sum(counts.total() for counts in self.counts.values())
