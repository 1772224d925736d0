"""What retention learns from the database, step by step, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple


class PurgeCursor(NamedTuple):
    """What is older than `cutoff` may be removed; `is_done` if its callbacks are removed."""

    cutoff: datetime
    is_done: bool


class PurgedCallbacks(NamedTuple):
    """What one step removed. `locked` were skipped; `is_done` at the end of the table."""

    callbacks: int
    bets: int
    locked: int
    is_done: bool
    held: int = 0
    """Old callbacks that stay because of a legal hold."""


class AuditPart(NamedTuple):
    """One part of the audit that is old, a month or `default`, and how far the run is with it."""

    part: str
    rows: int
    bytes: int
    kept: int = 0
    """Rows that are still needed."""
    is_done: bool = False
    why_not: str = ""
    """Why this run cannot finish it."""


@dataclass(slots=True, kw_only=True)
class RetentionResult:
    """What is old, and what of it was removed."""

    cutoff: datetime
    is_purged: bool
    """Every old callback was visited."""
    callbacks: int = 0
    bets: int = 0
    locked: int = 0
    held: int = 0
    runs: int = 0
    """Of reconciliation."""
    why_not: str = ""
    """Why not every old callback was visited, or not every old run."""
    parts: Sequence[AuditPart] = field(default_factory=tuple)

    @property
    def is_complete(self) -> bool:
        return self.is_purged and not self.locked and not self.why_not and all(part.is_done for part in self.parts)
