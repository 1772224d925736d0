"""What the daemons of a fleet share: an operator's limits and its state.

heartbeat() in the database divides the limits under one lock, so all shares together never exceed a
limit, even if a daemon is late. Records made every second are named tuples, as in callback.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from predictu_dispatch.core.breaker import Breaker
from predictu_dispatch.core.methods import Lane

HEARTBEAT_INTERVAL_S = 1.0
HEARTBEAT_TIMEOUT_S = 3.0
"""As sql/functions/fleet/heartbeat_timeout.sql; a test compares the two."""
SHARE_VALID_S = 2.5
"""A share's duration since its request; others get it after HEARTBEAT_TIMEOUT_S of silence."""


class Share(NamedTuple):
    """This daemon's slots by lane and its requests per second; None if the rate is not limited."""

    operator_id: str
    interactive_slots: int
    settlement_slots: int
    requests_per_s: float | None
    is_fair: bool = True

    def slots(self, lane: Lane) -> int:
        return self.interactive_slots if lane is Lane.INTERACTIVE else self.settlement_slots


class Usage(NamedTuple):
    """An operator's configured limits, and what this daemon uses until the next heartbeat."""

    operator_id: str
    interactive_max: int
    settlement_max: int
    requests_per_s_max: float
    interactive_used: int
    settlement_used: int
    requests_per_s_used: float | None


class LatestTimes(NamedTuple):
    """How far ahead an operator's times may lie: a retry's delay, and a Retry-After by lane."""

    operator_id: str
    delay_s: float
    interactive_backoff_s: float
    settlement_backoff_s: float


class InstanceTakenError(Exception):
    """Another live daemon has this daemon's name; the message says which."""


class LastFailure(NamedTuple):
    """The last failure that the operator's row names; its answer is in the audit."""

    reason: str | None
    status: int | None
    location: str | None
    """The Location header of a redirect."""
    request_id: UUID
    attempt: int


class OperatorState(NamedTuple):
    """An operator's row as read at one time; durations are on the database's clock, as of then."""

    operator_id: str
    revision: int
    breaker: Breaker
    circuit_age_s: float | None
    """Since the circuit last changed; None if it was never open."""
    ping_request_id: UUID | None
    is_paused: bool
    interactive_backoff_s: float
    settlement_backoff_s: float
    """Seconds of Retry-After left; 0 or less if none."""
    last_failure: LastFailure | None = None

    def backoff_s(self, lane: Lane) -> float:
        """Return the seconds of Retry-After left for one lane, as of the reading."""
        return self.interactive_backoff_s if lane is Lane.INTERACTIVE else self.settlement_backoff_s


class RetiredOperator(NamedTuple):
    """An operator that is never used again, when it was retired and by whom."""

    operator_id: str
    retired_at: datetime
    retired_by: str


class FleetFigures(NamedTuple):
    """What the last count found: the rows of fleet_figures(), as many seconds ago as `age_s`."""

    backlog: Sequence[Mapping[str, Any]]
    review: Sequence[Mapping[str, Any]]
    age_s: float
    notification_queue_usage: float
    """The part of the server's notification queue that is in use."""


class ReconciliationFigures(NamedTuple):
    """What the last reading of reconciliation_figures() found, `age_s` seconds ago."""

    differences: Sequence[Mapping[str, Any]]
    """Open ones, for each operator, class and currency."""
    runs: Sequence[Mapping[str, Any]]
    """For each operator with a finished run."""
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitWrite:
    """A decision about an operator's row as read at `revision`; None leaves a field as it is."""

    operator_id: str
    revision: int
    breaker: Breaker
    success_s_ago: float | None = None
    failure_s_ago: float | None = None
    interactive_backoff_s: float | None = None
    settlement_backoff_s: float | None = None
    last_failure: LastFailure | None = None
