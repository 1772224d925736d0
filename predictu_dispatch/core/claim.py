"""What a claim asks for: free slots per operator, and where in the index to start.

Claimed rows leave their index entries until Postgres may remove them, which an old open snapshot
prevents. A claim from the beginning walks over all of them, so each claim starts at the due time
that the previous one reached. Rows that became due behind that point (a transaction open longer
than the margin, a locked row) are found by a claim from the beginning, every second or so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.methods import Lane

_COMMIT_MARGIN = timedelta(seconds=1)
"""A row's `due_at` is set when it is enqueued; it is visible at the commit, milliseconds later."""
_FULL_READ_INTERVAL_S = 1.0
_FULL_READ_INTERVAL_MAX_S = 10.0
_FULL_READ_LOAD_MAX = 0.02
"""The part of the time that claims from the beginning may take; slow ones become rarer."""


Lease: TypeAlias = tuple[Callback, str, datetime]
"""An attempt in flight, the owner of its lease, and the database's time of reading."""


class ClaimRequest(NamedTuple):
    """An operator's free slots and its leases' duration: the parameters of claim(), in order."""

    operator_id: str
    lane: Lane
    free_slots: int
    lease_s: float
    rollback_lease_s: float
    amount_format: str
    due_from: datetime | None = None
    """Skip rows that were due before; None reads from the beginning."""


class RowFailure(NamedTuple):
    """A callback that the database or this release cannot process.

    `request_id` is None if it cannot be named; `sqlstate` is "" if the release cannot read the row.
    """

    operator_id: str
    request_id: UUID | None
    sqlstate: str
    message: str


class UnusableRows(Exception):  # noqa: N818 - a part of the answer, not a mistake
    """Some of the rows that the database returned cannot be read by this release."""

    def __init__(self, usable: Sequence[Any], failures: Sequence[RowFailure]) -> None:
        super().__init__(f"{len(failures)} rows cannot be read by this release: {failures[0].message}")
        self.usable = usable
        self.failures = failures


class ClaimCursor:
    """Remembers for one dispatcher how far each operator's due callbacks have been read.

    `due_at` is on the database's clock, `now_s` is this process's monotonic clock.
    """

    def __init__(self) -> None:
        self._read_until: dict[str, datetime] = {}
        self._full_read_at_s = float("-inf")

    def restart(self) -> None:
        self._full_read_at_s = float("-inf")

    def forget(self) -> None:
        """Read every operator from the beginning: the database's clock has stepped."""
        self._read_until.clear()
        self.restart()

    def begin_full_read(self, now_s: float) -> bool:
        """Return whether this claim reads from the beginning; end_full_read() must follow then."""
        if now_s < self._full_read_at_s:
            return False
        self._full_read_at_s = float("inf")
        return True

    def due_from(self, operator_id: str) -> datetime | None:
        """Return the due time from which the next claim reads; None before the first claim."""
        read_until = self._read_until.get(operator_id)
        return None if read_until is None else read_until - _COMMIT_MARGIN

    def advance(self, claimed: Iterable[Callback]) -> None:
        """Move past the claimed callbacks, the oldest due: the rest is due no earlier."""
        for callback in claimed:
            read_until = self._read_until.get(callback.operator_id)
            if read_until is None or callback.due_at > read_until:
                self._read_until[callback.operator_id] = callback.due_at

    def end_full_read(self, now_s: float, duration_s: float) -> None:
        """Schedule the next claim from the beginning, after one that took `duration_s`."""
        interval_s = min(max(_FULL_READ_INTERVAL_S, duration_s / _FULL_READ_LOAD_MAX), _FULL_READ_INTERVAL_MAX_S)
        # restart() may have been called meanwhile.
        if self._full_read_at_s == float("inf"):
            self._full_read_at_s = now_s + interval_s
