"""An operator's circuit breaker: stops callbacks to a failing operator and lets them flow again.

The circuit is stored in the operator's row, one for the whole fleet. Each daemon summarizes its own
attempts, reads the row, lets `decide` compute the next value, and writes it if the row's revision
has not changed; if it has, it decides again. So failures add up over the fleet, and an outage that
one daemon finds spares the others. Failures to connect are first counted by each daemon for itself,
because they may be the fault of its host; reach.py says when they count here. Only the answer to
the PING sent while half open closes a circuit.

    closed ──failure_threshold failures in a row──▶ open ──a PING is due or requested──▶ half_open
       ▲                                              ▲                                    │  │
       │                                              └─────────── PING failed ────────────┘  │
       └────────────────────────────────── PING answered ─────────────────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.core.verdict import Judgement


class Circuit(StrEnum):
    """The states of a circuit; the names are a contract."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Health(StrEnum):
    """An operator's health in one word; the names are a contract."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"


class Ping(StrEnum):
    """The result of the last PING that was started."""

    NONE = "none"
    UNDER_WAY = "under_way"
    ANSWERED = "answered"
    FAILED = "failed"


CAUSED_BY_US = frozenset({"interrupted", "too_late", "internal_error", "no_socket"})
"""Reasons of attempts that say nothing about the operator."""
_ASKED_TO_SLOW_DOWN = "http_429"
"""The operator works and asks us to slow down: Retry-After does that, not the circuit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSummary:
    """The attempts since the last decision; `failures` counts those sent, in a row at the end."""

    succeeded: bool = False
    failures: int = 0
    failed: bool = False
    is_heard: bool = False
    """True if the operator's end answered one of these failures, so that it can be reached."""

    def with_attempt(self, judgement: Judgement, evidence: Evidence) -> AttemptSummary:
        """Add one attempt; whatever the operator's application answers is no failure.

        What was not sent failed, but each daemon counts that for itself; see reach.py.
        """
        if judgement.is_from_application:
            return replace(self, succeeded=True, failures=0, is_heard=False) if self.failed else _SUCCEEDED
        if judgement.reason in CAUSED_BY_US or judgement.reason == _ASKED_TO_SLOW_DOWN:
            return self
        if evidence is Evidence.NOT_SENT:
            return replace(self, failed=True)
        is_heard = self.is_heard or evidence is Evidence.ANSWERED
        return replace(self, failures=self.failures + 1, failed=True, is_heard=is_heard)

    def then(self, later: AttemptSummary) -> AttemptSummary:
        if later is _SUCCEEDED and not self.failed:
            # The usual case: one more success.
            return later
        return AttemptSummary(
            succeeded=self.succeeded or later.succeeded,
            failures=later.failures + (0 if later.succeeded else self.failures),
            failed=self.failed or later.failed,
            is_heard=later.is_heard or (self.is_heard and not later.succeeded),
        )


_SUCCEEDED = AttemptSummary(succeeded=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """An operator's `[circuit]` and `[health]`; `ping_interval_s` 0 is never."""

    failure_threshold: int
    open_s: float
    ping_interval_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """An operator's circuit at one time; `ping_in_s` is None if no PING is planned."""

    circuit: Circuit = Circuit.CLOSED
    consecutive_failures: int = 0
    ever_succeeded: bool = False
    ping_in_s: float | None = None
    ping: Ping = Ping.NONE
    starts_ping: bool = False

    @property
    def health(self) -> Health:
        if self.circuit is not Circuit.CLOSED:
            return Health.DOWN
        if self.consecutive_failures:
            return Health.DEGRADED
        return Health.HEALTHY if self.ever_succeeded else Health.UNKNOWN


def decide(breaker: Breaker, attempts: AttemptSummary, policy: Policy, *, unconnected: int = 0) -> Breaker:
    """Return the circuit after `attempts`, at most one step on; `starts_ping` if a PING is due.

    `unconnected` are this daemon's failures to connect in a row that count for the operator.
    """
    before = replace(breaker, starts_ping=False, ever_succeeded=breaker.ever_succeeded or attempts.succeeded)
    match breaker.circuit:
        case Circuit.CLOSED:
            failures = attempts.failures + (0 if attempts.succeeded else breaker.consecutive_failures)
            failures = max(failures, unconnected)
            if failures >= policy.failure_threshold:
                return _opened(before, failures, policy)
            return _pinged_when_due(replace(before, consecutive_failures=failures), policy.ping_interval_s)
        case Circuit.OPEN:
            # Attempts that began before it opened decide nothing: only the next PING does.
            return _pinged_when_due(before, policy.open_s)
        case Circuit.HALF_OPEN:
            match breaker.ping:
                case Ping.ANSWERED:
                    interval_s = policy.ping_interval_s or None
                    return replace(
                        before,
                        circuit=Circuit.CLOSED,
                        consecutive_failures=0,
                        ever_succeeded=True,
                        ping_in_s=interval_s,
                    )
                case Ping.FAILED | Ping.NONE:
                    return _opened(before, breaker.consecutive_failures + 1, policy)
                case Ping.UNDER_WAY:
                    return before
                case never:
                    assert_never(never)
        case never_circuit:
            assert_never(never_circuit)


def is_at_rest(breaker: Breaker, ping_interval_s: float) -> bool:
    """Return whether decide() would change nothing for an operator without new attempts."""
    return (
        breaker.circuit is Circuit.CLOSED
        and breaker.consecutive_failures == 0
        and (ping_interval_s == 0 or (breaker.ping_in_s is not None and 0 < breaker.ping_in_s <= ping_interval_s))
    )


def _opened(breaker: Breaker, failures: int, policy: Policy) -> Breaker:
    return replace(breaker, circuit=Circuit.OPEN, consecutive_failures=failures, ping_in_s=policy.open_s)


def _pinged_when_due(breaker: Breaker, interval_s: float) -> Breaker:
    """Start a PING if it is due or was never planned; else keep its time, whatever the interval."""
    if interval_s == 0:
        # Another daemon's file may have an interval, and the PING that it planned stays.
        return breaker
    if breaker.ping_in_s is None or breaker.ping_in_s <= 0:
        return replace(breaker, ping_in_s=interval_s, starts_ping=True)
    return replace(breaker, ping_in_s=min(breaker.ping_in_s, interval_s))


SLOW_START_STEP_S = 0.5
"""After an outage an operator gets one slot, then twice as many every step: 32 after 2.5 s."""


def slow_start(slots: int, closed_for_s: float) -> int:
    """Return how many of `slots`, at least one, may be used this long after the circuit closed."""
    steps = int(min(max(closed_for_s, 0.0) / SLOW_START_STEP_S, 30))
    return min(slots, 1 << steps)
