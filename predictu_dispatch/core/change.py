"""What is asked of the database and what it answers: the lanes that want work, and what a settling has changed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from predictu_dispatch.core.lifecycle import CallbackState
    from predictu_dispatch.core.methods import Lane, Method


class ClaimRequest(NamedTuple):
    """An operator's lane with free slots, and how long a lease of it must be, in seconds.

    The fields are those of claim() in sql/queries/claim.sql, in its order.
    """

    operator_id: str
    lane: Lane
    free_slots: int
    lease_s: float
    rollback_lease_s: float
    amount_format: str
    due_from: datetime | None = None
    """Nothing that was due before is looked for; None looks from the start."""


class Cause(StrEnum):
    """Why a callback changed: through its own attempt's report, or because its bet moved."""

    SETTLED = "settled"
    LATE = "late"
    REPEATED = "repeated"
    LOCKED = "locked"
    RELEASED = "released"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"


class CallbackChange(NamedTuple):
    """One callback that a settling or an expiry has changed.

    `state`, `lane` are None where a report came late or twice, or was held: then nothing was done for it yet.
    """

    operator_id: str
    request_id: UUID
    method: Method
    lane: Lane | None
    state: CallbackState | None
    reason: str | None
    cause: Cause
    attempt: int | None = None
