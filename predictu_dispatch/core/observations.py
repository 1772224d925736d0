"""What this daemon observed of an operator, and what it writes into its row; monotonic seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from predictu_dispatch.core.answer import storable
from predictu_dispatch.core.breaker import AttemptSummary, Breaker, Circuit, Ping, Policy, decide, is_at_rest
from predictu_dispatch.core.fleet import CircuitWrite, LastFailure, OperatorState
from predictu_dispatch.core.lifecycle import Attempt
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.reach import CONNECTED, Reach

_REPORT_INTERVAL_S: Final = 5.0
"""`last_success_at` need not be exact, and each write costs a row version."""
_NO_ATTEMPTS: Final = AttemptSummary()


@dataclass(slots=True)
class Observations:
    """What was observed of one operator since it was last written."""

    attempts: AttemptSummary = field(default_factory=AttemptSummary)
    leased_from_s: float = math.inf
    """When the first of these attempts was leased."""
    success_at_s: float | None = None
    failure_at_s: float | None = None
    failure: LastFailure | None = None
    """The attempt that failed then."""
    failing_from_s: float = math.inf
    """When the first failure after the last success was observed."""
    backoff_until_s: dict[Lane, float] = field(default_factory=dict)
    """The end of each lane's Retry-After."""
    ping: tuple[UUID, Ping] | None = None
    """The last PING that ended, with its result."""

    def add(self, attempt: Attempt, *, circuit_changed_at_s: float, now_s: float) -> None:
        """Add one attempt; the circuit counts it only if it began after the circuit last changed.

        Otherwise an attempt that hung since before an outage's end would open the circuit again.
        """
        callback, judgement = attempt.callback, attempt.judgement
        summary = _NO_ATTEMPTS.with_attempt(judgement, attempt.exchange.evidence)
        if callback.leased_at_s >= circuit_changed_at_s:
            self.attempts = self.attempts.then(summary)
            self.leased_from_s = min(self.leased_from_s, callback.leased_at_s)
        if summary.succeeded:
            self.success_at_s = now_s
            self.failing_from_s = math.inf
        elif summary.failed:
            self.failure_at_s = now_s
            self.failure = _failure_of(attempt)
            self.failing_from_s = min(self.failing_from_s, now_s)
        if callback.method is Method.PING and summary != _NO_ATTEMPTS:
            self.ping = (callback.request_id, Ping.ANSWERED if summary.succeeded else Ping.FAILED)

    def back_off(self, lane: Lane, until_s: float) -> None:
        """Note a Retry-After; of two the later end counts."""
        self.backoff_until_s[lane] = max(until_s, self.backoff_until_s.get(lane, -math.inf))

    def then(self, later: Observations) -> Observations:
        both = Observations(
            attempts=self.attempts.then(later.attempts),
            leased_from_s=min(self.leased_from_s, later.leased_from_s),
            success_at_s=later.success_at_s or self.success_at_s,
            failure_at_s=later.failure_at_s or self.failure_at_s,
            failure=later.failure or self.failure,
            failing_from_s=later.failing_from_s if later.attempts.succeeded else self.failing_from_s,
            backoff_until_s=dict(self.backoff_until_s),
            ping=later.ping or self.ping,
        )
        for lane, until_s in later.backoff_until_s.items():
            both.back_off(lane, until_s)
        return both

    def without_attempts(self) -> Observations:
        """Return the times, which may be written later; attempts and PING were considered."""
        return replace(self, attempts=AttemptSummary(), leased_from_s=math.inf, failing_from_s=math.inf, ping=None)

    def may_be_our_path(self, reach: Reach) -> bool:
        """Return whether these failures may be caused by this host's network.

        No request was answered, as when a connection was cut, and none was opened since.
        """
        is_silent = self.attempts.failures > 0 and not self.attempts.is_heard
        return is_silent and reach.connected_at_s < self.failing_from_s


def may_change_circuit(observed: Observations, state: OperatorState | None, settings: OperatorSettings | None) -> bool:
    """Return whether these observations should be written at once instead of at the next poll."""
    if state is None or settings is None or observed.backoff_until_s:
        return True
    if observed.ping is not None and state.breaker.circuit is not Circuit.CLOSED:
        return True
    attempts, failures = observed.attempts, state.breaker.consecutive_failures
    if attempts.succeeded:
        return failures > 0 or attempts.failures >= settings.circuit.failure_threshold
    return failures + attempts.failures >= settings.circuit.failure_threshold


def circuit_write(
    state: OperatorState,
    observed: Observations | None,
    settings: OperatorSettings,
    *,
    circuit_changed_at_s: float,
    written_at_s: float,
    now_s: float,
    reach: Reach = CONNECTED,
) -> CircuitWrite | None:
    """Return what to write into an operator's row; None if there is nothing worth a write."""
    unconnected = reach.failures_of_operator(circuit_changed_at_s)
    if observed is None:
        if unconnected == 0 and is_at_rest(state.breaker, settings.health.ping_interval_s):
            return None
        observed = Observations()
    before = state.breaker
    if observed.ping is not None and observed.ping[0] == state.ping_request_id:
        before = replace(before, ping=observed.ping[1])
    policy = Policy(
        failure_threshold=settings.circuit.failure_threshold,
        open_s=settings.circuit.open_s,
        ping_interval_s=settings.health.ping_interval_s,
    )
    # Compared again: a daemon that was frozen has missed that the circuit opened and closed.
    is_current = observed.leased_from_s >= circuit_changed_at_s
    if reach.is_unreachable and observed.may_be_our_path(reach):
        is_current = False
    attempts = observed.attempts if is_current else AttemptSummary()
    breaker = decide(before, attempts, policy, unconnected=unconnected)
    has_ended = observed.success_at_s is not None or observed.failure_at_s is not None
    is_report_due = has_ended and now_s - written_at_s >= _REPORT_INTERVAL_S
    differs = _written(breaker) != _written(state.breaker)
    if not (breaker.starts_ping or differs or observed.backoff_until_s or is_report_due):
        return None
    return CircuitWrite(
        operator_id=state.operator_id,
        revision=state.revision,
        breaker=breaker,
        success_s_ago=None if observed.success_at_s is None else now_s - observed.success_at_s,
        failure_s_ago=None if observed.failure_at_s is None else now_s - observed.failure_at_s,
        interactive_backoff_s=_left_s(observed.backoff_until_s.get(Lane.INTERACTIVE), now_s),
        settlement_backoff_s=_left_s(observed.backoff_until_s.get(Lane.SETTLEMENT), now_s),
        last_failure=observed.failure,
    )


def _failure_of(attempt: Attempt) -> LastFailure:
    exchange = attempt.exchange
    location = next((value for name, value in exchange.headers if name.lower() == "location"), None)
    return LastFailure(
        reason=attempt.judgement.reason,
        status=exchange.status,
        location=None if location is None else storable(location),
        request_id=attempt.callback.request_id,
        attempt=attempt.callback.attempt,
    )


def _written(breaker: Breaker) -> tuple[object, ...]:
    return breaker.circuit, breaker.consecutive_failures, breaker.health, breaker.ping_in_s


def _left_s(until_s: float | None, now_s: float) -> float | None:
    return None if until_s is None else max(0.0, until_s - now_s)
