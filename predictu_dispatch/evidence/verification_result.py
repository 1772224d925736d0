"""What `audit verify` is asked for, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from predictu_dispatch.evidence.faults import Faults
from predictu_dispatch.evidence.log_check import KeptCheckpoint
from predictu_dispatch.evidence.trusted_keys import TrustedKeys


class NotVerifiableError(Exception):
    """Nothing can be verified now; the message says why."""


@dataclass(slots=True, kw_only=True)
class LogResult:
    """The result for one log."""

    operator_id: str
    origin: str
    size: int
    checkpoints: int = 0
    cosignatures: int = 0
    pending: int = 0
    removed: int = 0


@dataclass(slots=True, kw_only=True)
class Verification:
    """The result of a run."""

    read_at: datetime
    sealed_at: datetime
    logs: dict[str, LogResult] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    rows: int = 0
    unnamed_sums: int = 0
    """Sums that differ and whose entries were not named, because there are too many."""
    has_backlog: bool = False
    warnings: Sequence[str] = ()
    """Differences of the schema that are no faults."""
    without_log: list[str] = field(default_factory=list)
    """Operators that an earlier result names and that have no log, as after a wrong --against."""

    @property
    def is_clean(self) -> bool:
        return not self.faults.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to verify, and against what."""

    operator_id: str | None
    keys: TrustedKeys
    outside: Sequence[KeptCheckpoint] = ()
    """Checkpoints that were kept elsewhere."""
    earlier_hashes: Callable[[str, int], bytes] = lambda _origin, _tile: b""
    """An earlier export's tile of level 0 of a log, as far as it goes."""
