"""Logs and metrics. Both are read from the same records, so they cannot disagree.

Metric names are a contract (DESIGN.md 8). Figures that the database knows (backlog, oldest due, needs review, unknown
effect) come from a snapshot that is taken every few seconds; one that could not be taken is absent, never 0.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import structlog

from predictu_dispatch.core.attempt import Cause
from predictu_dispatch.core.breaker import Circuit
from predictu_dispatch.core.events import Event
from predictu_dispatch.core.lifecycle import FINAL, CallbackState
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import MISCONFIGURED
from predictu_dispatch.edge.config.expiry import Expiry
from predictu_dispatch.edge.telemetry.log import without_tokens
from predictu_dispatch.edge.telemetry.metrics import Metrics
from predictu_dispatch.edge.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from predictu_dispatch.core.attempt import Attempt, CallbackChange
    from predictu_dispatch.core.callback import Callback
    from predictu_dispatch.core.fleet import InstanceTakenError, OperatorState
    from predictu_dispatch.edge.config.loader import OperatorConfig
    from predictu_dispatch.edge.config.reload import Reload
    from predictu_dispatch.edge.telemetry.snapshot import ProcessStats


_EVENT_OF_STATE = {
    CallbackState.DELIVERED: Event.CALLBACK_DELIVERED,
    CallbackState.REJECTED: Event.CALLBACK_REJECTED,
    CallbackState.READY: Event.CALLBACK_RETRIED,
    CallbackState.EXHAUSTED: Event.CALLBACK_EXHAUSTED,
}
_EVENT_OF_CAUSE = {
    Cause.RELEASED: Event.CALLBACK_RELEASED,
    Cause.CANCELLED: Event.CALLBACK_CANCELLED,
    Cause.ROLLED_BACK: Event.ROLLBACK_ENQUEUED,
    Cause.SETTLED: Event.CALLBACK_EXHAUSTED,
}

_ENQUEUED = "enqueued"
_ROLLBACK_CAUSES = ("requested", "unknown_effect", _ENQUEUED)
"""The first two are the reasons that the database gives, the third is the producer's own BET_ROLLBACK."""

log = structlog.get_logger()


class Telemetry:
    """The observer of flow: one log line for each attempt, and the metrics."""

    def __init__(self, *, own: Callable[[], ProcessStats]) -> None:
        self._metrics = metrics = Metrics()
        self.registry = metrics.registry
        self.connections = metrics.connections
        # The labelled children, looked up once each: the library checks the labels anew at each asking.
        self._attempts = cache(metrics.attempts.labels)
        self._finished = cache(metrics.finished.labels)
        self._attempt_duration = cache(metrics.attempt_duration.labels)
        self._delivery_latency = cache(metrics.delivery_latency.labels)
        self._pickup_latency = cache(metrics.pickup_latency.labels)
        self.snapshot = Snapshot(own)
        self.registry.register(self.snapshot)
        self._expiry = Expiry()
        self.registry.register(self._expiry)
        self._open_circuits: dict[str, bool] = {}

    def attempt_began(self, callback: Callback) -> None:
        """A claimed callback is on its way."""
        due_to_claim_s = (callback.leased_at - callback.due_at).total_seconds()
        self._pickup_latency(callback.lane).observe(due_to_claim_s + time.monotonic() - callback.leased_at_s)
        if callback.method is Method.BET_ROLLBACK and callback.attempt == 1:
            self._metrics.rollbacks.labels(callback.operator_id, callback.reason or _ENQUEUED).inc()

    def attempt_settled(self, attempt: Attempt, change: CallbackChange) -> None:
        """An attempt stands in the audit."""
        callback, exchange = attempt.callback, attempt.exchange
        late = change.cause is Cause.LATE
        verdict = "late" if late else attempt.outcome.verdict
        self._attempts(callback.operator_id, callback.method, verdict).inc()
        if late:
            self._metrics.leases_lost.inc()
        if attempt.judgement.reason == MISCONFIGURED:
            self._metrics.misconfigured.labels(callback.operator_id).inc()
        if attempt.reaped:
            self._metrics.leases_reaped.inc()
        else:
            # What was reaped lasted as long as its lease, which says nothing of the operator.
            self._attempt_duration(callback.operator_id, callback.lane).observe(exchange.total_ms / 1000)
        if change.state in FINAL:
            self._finished(callback.operator_id, callback.method, change.state).inc()
        if change.state is CallbackState.DELIVERED:
            latency_s = (attempt.finished_at - callback.created_at).total_seconds()
            self._delivery_latency(callback.operator_id, callback.lane).observe(max(0.0, latency_s))
        event = Event.LEASE_LOST if late or change.state is None else _EVENT_OF_STATE[change.state]
        log.info(
            event,
            request_id=str(callback.request_id),
            operator_id=callback.operator_id,
            method=callback.method,
            bet_id=callback.bet_id,
            attempt=callback.attempt,
            evidence=exchange.evidence,
            verdict=verdict,
            reason=attempt.judgement.reason,
            effect=attempt.outcome.effect,
            response_status=exchange.status,
            total_ms=round(exchange.total_ms, 1),
            **({"due_in_s": round(attempt.outcome.due_in_s, 3)} if attempt.outcome.due_in_s is not None else {}),
            **({"anomaly": without_tokens(attempt.judgement.anomaly)} if attempt.judgement.anomaly else {}),
            **({"error": without_tokens(exchange.error)} if exchange.error else {}),
        )

    def bet_followed(self, change: CallbackChange) -> None:
        """A callback changed without an attempt of its own: its bet moved, or its deadline passed."""
        if change.state in FINAL:
            self._finished(change.operator_id, change.method, change.state).inc()
        log.info(
            _EVENT_OF_CAUSE[change.cause],
            request_id=str(change.request_id),
            operator_id=change.operator_id,
            method=change.method,
            reason=change.reason,
        )

    def operators_taken(self, operators: Iterable[OperatorConfig]) -> None:
        """These are the operators that this daemon serves from now on."""
        operators = tuple(operators)
        self._expiry.take(operators)
        for operator in operators:
            # From 0 on: a counter that is born as 1 has no rate, and its first event would never be seen.
            for cause in _ROLLBACK_CAUSES:
                self._metrics.rollbacks.labels(operator.settings.operator_id, cause)
            self._metrics.misconfigured.labels(operator.settings.operator_id)

    def operators_seen(self, states: Sequence[OperatorState]) -> None:
        """The operators' circuits and health are so; a circuit that has moved is told once, by each daemon."""
        for state in states:
            now_open = state.breaker.circuit is not Circuit.CLOSED
            if now_open != self._open_circuits.get(state.operator_id, False):
                event = Event.CIRCUIT_OPENED if now_open else Event.CIRCUIT_CLOSED
                log.warning(
                    event, operator_id=state.operator_id, consecutive_failures=state.breaker.consecutive_failures
                )
            self._open_circuits[state.operator_id] = now_open
        self.snapshot.see(states)

    def instance_is_taken(self, taken: InstanceTakenError) -> None:
        """Another daemon has this one's name; perhaps one that is just gone."""
        log.warning(Event.INSTANCE_TAKEN, error=str(taken))

    def config_reloaded(self, reload: Reload, *, changed: int) -> None:
        """The configuration was read again; every fault has its line, and each failure counts."""
        for fault in reload.faults:
            log.error(Event.CONFIG_REFUSED, fault=str(fault))
        if reload.faults:
            self._metrics.reload_failures.inc()
        self._metrics.last_reload_successful.set(not reload.faults)
        log.info(
            Event.CONFIG_RELOADED,
            operators=len(reload.config.operators),
            changed=changed,
            kept=list(reload.kept),
            faults=len(reload.faults),
            **({"needs_restart": list(reload.needs_restart)} if reload.needs_restart else {}),
        )

    def chore_failed(self, chore: str, error: Exception) -> None:
        """Something beside delivering could not be done, and will be tried again."""
        self._metrics.chores_failed.labels(chore).inc()
        log.error(Event.CHORE_FAILED, chore=chore, error=f"{type(error).__name__}: {error}")

    def report_refused(self, attempt: Attempt, error: Exception) -> None:
        """The database would not take a report: a bug of ours, or an answer that even the audit cannot keep."""
        self._metrics.reports_refused.inc()
        log.error(
            Event.REPORT_REFUSED,
            request_id=str(attempt.callback.request_id),
            operator_id=attempt.callback.operator_id,
            attempt=attempt.callback.attempt,
            # The server's first words only: its detail, and whatever asyncpg says by itself, quotes the row.
            error=f"{type(error).__name__}: {getattr(error, 'message', None) or '(the report could not be encoded)'}",
        )
