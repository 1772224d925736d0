"""One attempt to deliver a callback, and what the database changed when the attempt was settled."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from predictu_dispatch.core.callback import Callback, Exchange
from predictu_dispatch.core.lifecycle import CallbackState, Outcome
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.verdict import Judgement


class Attempt(NamedTuple):
    """One attempt; the audit row, the log line and the metrics are all read from this record."""

    callback: Callback
    instance: str
    finished_at: datetime
    exchange: Exchange
    judgement: Judgement
    outcome: Outcome
    report_id: UUID
    """Makes settling repeatable: the database answers `repeated` to a report that it has already
    settled."""
    url: str | None = None
    key_id: str | None = None
    request_headers: str | None = None
    """A JSON object of the headers sent, without the token's signature."""
    request_body: str | None = None
    reaped: bool = False
    """True if the lease expired without a report and another daemon settled the attempt."""


class Cause(StrEnum):
    """Why a callback changed: because its own attempt was settled, or because its bet moved."""

    SETTLED = "settled"
    LATE = "late"
    REPEATED = "repeated"
    LOCKED = "locked"
    RELEASED = "released"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"


class CallbackChange(NamedTuple):
    """One callback that a settlement or an expiry changed.

    `state` and `lane` are None for a report that changed nothing: it was late or repeated, or the
    row was locked.
    """

    operator_id: str
    request_id: UUID
    method: Method
    lane: Lane | None
    state: CallbackState | None
    reason: str | None
    cause: Cause
    attempt: int | None = None
