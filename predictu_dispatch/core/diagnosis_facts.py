"""The facts about one callback, by which core/diagnosis.py judges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from predictu_dispatch.core.breaker import Circuit, slow_start
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import Lane, Method

AHEAD_COUNT_MAX: Final = 1_000
"""Callbacks ahead are counted up to this number, because a backlog may be long."""
_AWAITED: Final = frozenset({Method.BALANCE, Method.BET_MAKE})
"""Methods that end at once while nothing may be sent, because a producer waits; as in expire()."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherCallback:
    """A related callback: the bet's placement or terminal, or the operator's PING."""

    request_id: UUID
    method: Method
    state: CallbackState
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAttempt:
    """The audit row that decided the last attempt."""

    number: int
    reason: str | None
    finished_at: datetime
    status: int | None = None
    """The HTTP code of its answer."""
    location: str | None = None
    answer: bytes | None = None
    """The beginning of the answer's body."""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastIntervention:
    """The last intervention on the callback."""

    action: str
    done_by: str
    done_at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLocker:
    """The open transaction that has locked `locked`: the callback's row, or its bet's.

    A prepared transaction has a `gid` and an `owner`, and no session. The lock may be a shared one,
    which stops nothing: the database does not tell.
    """

    locked: str
    pid: int | None
    application: str
    gid: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFacts:
    """The callback's row, and what belongs to it."""

    request_id: UUID
    operator_id: str
    method: Method
    bet_id: str | None
    lane: Lane
    state: CallbackState
    reason: str | None
    effect: Effect
    attempts: int
    retry_stopped: bool
    operator_status: str | None
    due_at: datetime
    expires_at: datetime | None
    review_since: datetime | None
    leased_at: datetime | None
    leased_by: str | None
    lease_until: datetime | None
    other: OtherCallback | None
    last_attempt: LastAttempt | None
    last_intervention: LastIntervention | None
    row_locker: RowLocker | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts:
    """The operator's row; `backoff_until` is that of the callback's lane."""

    enabled: bool
    circuit: Circuit
    circuit_since: datetime | None
    consecutive_failures: int
    last_failure_at: datetime | None
    last_failure_reason: str | None
    last_failure_status: int | None
    last_failure_location: str | None
    last_failure_answer: bytes | None
    last_failure_error: str | None
    ping_at: datetime | None
    ping: OtherCallback | None
    backoff_until: datetime | None
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """A daemon seen lately, with the slots and attempts of one lane; `_max` is over the fleet."""

    instance: str
    host: str
    started_at: datetime
    seen_at: datetime
    is_live: bool
    has_file: bool
    slots: int
    slots_max: int
    requests_per_s_max: float
    in_flight: int
    clock_ahead_s: float | None = None
    """By how much the database's clock is ahead of its host's; None if not known."""
    unreachable_since: datetime | None = None
    """Since when it cannot connect to the operator, as it reported."""


class FileState(StrEnum):
    """The state of the operator's file in the configuration folder of the command."""

    USABLE = "usable"
    MISSING = "missing"
    FAULTY = "faulty"
    NO_CONFIGURATION = "no_configuration"
    """The command has only a DSN; the folder is on another host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """The operator's file on this host; another host may have another."""

    path: str
    state: FileState
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that bears on one callback, as of `at` on the database's clock.

    `ahead` counts the due callbacks before it in its lane, `interactive_due` those that a rate
    limit lets go first; both stop above AHEAD_COUNT_MAX. It waits for `earlier`.
    """

    at: datetime
    callback: CallbackFacts
    operator: OperatorFacts
    daemons: tuple[DaemonFacts, ...]
    file: FileFacts
    ahead: int = 0
    interactive_due: int = 0
    earlier: Facts | None = None

    @property
    def live(self) -> tuple[DaemonFacts, ...]:
        return tuple(daemon for daemon in self.daemons if daemon.is_live)

    @property
    def serving(self) -> tuple[DaemonFacts, ...]:
        """The running daemons that have the operator's file."""
        return tuple(daemon for daemon in self.live if daemon.has_file)

    @property
    def lease_owner(self) -> DaemonFacts | None:
        """The daemon that has the lease, if one of its name was seen lately."""
        return next((daemon for daemon in self.daemons if daemon.instance == self.callback.leased_by), None)

    @property
    def lease_owner_restarted(self) -> bool:
        """True if the daemon started after the lease, so that no daemon waits for the answer."""
        owner, leased_at = self.lease_owner, self.callback.leased_at
        return owner is not None and leased_at is not None and owner.started_at > leased_at

    @property
    def requests_per_s_max(self) -> float:
        """The operator's rate limit over the fleet, the lowest if files differ; 0 if none."""
        return min((d.requests_per_s_max for d in self.serving if d.requests_per_s_max > 0), default=0.0)

    @property
    def slots(self) -> int:
        return sum(daemon.slots for daemon in self.serving)

    @property
    def slots_open(self) -> int:
        """How many of these slots the slow start allows since the circuit closed."""
        since = self.operator.circuit_since
        if since is None or self.operator.circuit is not Circuit.CLOSED:
            return self.slots
        closed_for_s = (self.at - since).total_seconds()
        return sum(slow_start(daemon.slots, closed_for_s) for daemon in self.serving)

    @property
    def is_deciding_ping(self) -> bool:
        """True for the PING that decides a half-open circuit: only that one may be sent then."""
        ping = self.operator.ping
        return ping is not None and ping.request_id == self.callback.request_id

    @property
    def ends_at_once(self) -> bool:
        """True if a running daemon ends the callback within a second: nothing may be sent."""
        is_blocked = self.operator.paused_at is not None or self.operator.circuit is not Circuit.CLOSED
        return self.callback.method in _AWAITED and is_blocked
