"""The log lines and metrics of the daemon, both taken from the same records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import structlog

from predictu_dispatch.core.breaker import Circuit
from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.claim import RowFailure
from predictu_dispatch.core.clock import DatabaseClock
from predictu_dispatch.core.database import describe_failure
from predictu_dispatch.core.events import Event
from predictu_dispatch.core.fleet import FleetFigures, InstanceTakenError, OperatorState, ReconciliationFigures
from predictu_dispatch.core.lifecycle import FINAL, Attempt, CallbackChange, CallbackState, Cause
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.reach import Reach
from predictu_dispatch.core.sealing import LogHeads, StoredCheckpoint
from predictu_dispatch.core.verdict import MISCONFIGURED, OPERATOR_RETRY, UNKNOWN_STATUS
from predictu_dispatch.edge.config.files import Fault
from predictu_dispatch.edge.config.loader import Reload
from predictu_dispatch.edge.config.operator_file import OperatorConfig
from predictu_dispatch.edge.telemetry.families import ProcessStats
from predictu_dispatch.edge.telemetry.gauges import Gauges
from predictu_dispatch.edge.telemetry.labels import confirmed_amount, failure_reason
from predictu_dispatch.edge.telemetry.log import without_tokens
from predictu_dispatch.edge.telemetry.metrics import Metrics
from predictu_dispatch.edge.telemetry.reconciliation import ReconciliationGauges
from predictu_dispatch.edge.telemetry.witnesses import WitnessTelemetry

log = structlog.get_logger()

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

_REMIND_S = 60.0
"""A chore that keeps failing is logged once in this time."""
_ENQUEUED = "enqueued"
_ROLLBACK_CAUSES = ("requested", "unknown_effect", _ENQUEUED)
"""Two reasons that the database writes, and a BET_ROLLBACK that a producer enqueued."""
_MESSAGE_CHARS_MAX = 500
"""Of a message of the database in a log line."""


class Telemetry:
    """The observer of flow: writes one log line per attempt and updates the metrics."""

    def __init__(self, *, process_stats: Callable[[], ProcessStats]) -> None:
        self._metrics = metrics = Metrics()
        self.registry = metrics.registry
        self.connections = metrics.connections
        self.gauges = Gauges(process_stats)
        self.registry.register(self.gauges)
        self.witnesses = WitnessTelemetry(self.registry, self)
        self.reconciliation = ReconciliationGauges(self.registry)
        self._open_circuits: dict[str, bool] = {}
        self._failing_chores: dict[str, float] = {}
        """When the failure of each was last logged."""
        # Bound once: the proxy of structlog looks it up at each call.
        self._log = log.bind()

    def attempt_began(self, callback: Callback) -> None:
        """Counts an attempt that is about to be sent."""
        due_to_claim_s = (callback.leased_at - callback.due_at).total_seconds()
        since_claim_s = time.monotonic() - callback.leased_at_s
        self._metrics.pickup_latency.observe(due_to_claim_s + since_claim_s, callback.lane)
        if callback.method is Method.BET_ROLLBACK and callback.attempt == 1:
            self._metrics.rollbacks.labels(callback.operator_id, callback.reason or _ENQUEUED).inc()

    def attempt_settled(self, attempt: Attempt, change: CallbackChange) -> None:
        """Logs and counts an attempt that is in the audit."""
        callback, exchange, metrics = attempt.callback, attempt.exchange, self._metrics
        late = change.cause is Cause.LATE
        verdict = "late" if late else attempt.outcome.verdict
        metrics.attempts.inc(callback.operator_id, callback.method, verdict)
        metrics.audit_bytes.add(attempt.audited_bytes, callback.operator_id)
        if late:
            metrics.leases_lost.inc()
        elif (failure := failure_reason(attempt)) is not None:
            metrics.failed.inc(callback.operator_id, failure)
        if attempt.judgement.reason == MISCONFIGURED:
            metrics.misconfigured.labels(callback.operator_id).inc()
        if attempt.reaped:
            metrics.leases_reaped.inc()
        else:
            # A reaped attempt lasts as long as its lease, which says nothing about the operator.
            metrics.attempt_duration.observe(exchange.total_ms / 1000, callback.operator_id, callback.lane)
        if change.state in FINAL:
            metrics.finished.inc(callback.operator_id, callback.method, change.state)
        if change.state is CallbackState.DELIVERED:
            latency_s = (attempt.finished_at - callback.created_at).total_seconds()
            metrics.delivery_latency.observe(max(0.0, latency_s), callback.operator_id, callback.lane)
            if (money := confirmed_amount(callback, change.reason)) is not None:
                metrics.confirmed.add(money.subunits, callback.operator_id, money.currency, money.direction)
        event = Event.LEASE_LOST if late or change.state is None else _EVENT_OF_STATE[change.state]
        self._log.info(
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
            **(
                {"operator_status": without_tokens(attempt.judgement.operator_status or "")}
                if attempt.judgement.reason in (UNKNOWN_STATUS, OPERATOR_RETRY)
                else {}
            ),
            **({"anomaly": without_tokens(attempt.judgement.anomaly)} if attempt.judgement.anomaly else {}),
            **({"error": without_tokens(exchange.error)} if exchange.error else {}),
        )

    def callback_changed(self, change: CallbackChange) -> None:
        """Logs a callback that changed because of its bet or its deadline, without an attempt."""
        if change.state in FINAL:
            self._metrics.finished.inc(change.operator_id, change.method, change.state)
        log.info(
            _EVENT_OF_CAUSE[change.cause],
            request_id=str(change.request_id),
            operator_id=change.operator_id,
            method=change.method,
            reason=change.reason,
        )

    def operators_loaded(self, operators: Iterable[OperatorConfig]) -> None:
        operators = tuple(operators)
        self.gauges.operators_loaded(operators)
        for operator in operators:
            # A counter must exist at 0 first, or rate() misses its first event.
            for cause in _ROLLBACK_CAUSES:
                self._metrics.rollbacks.labels(operator.settings.operator_id, cause)
            self._metrics.misconfigured.labels(operator.settings.operator_id)

    def operators_read(self, states: Sequence[OperatorState]) -> None:
        """Updates the gauges of operators and logs each circuit that opened or closed."""
        for state in states:
            is_open = state.breaker.circuit is not Circuit.CLOSED
            if is_open != self._open_circuits.get(state.operator_id, False):
                event = Event.CIRCUIT_OPENED if is_open else Event.CIRCUIT_CLOSED
                log.warning(
                    event,
                    operator_id=state.operator_id,
                    consecutive_failures=state.breaker.consecutive_failures,
                    **(_last_failure(state) if is_open else {}),
                )
            self._open_circuits[state.operator_id] = is_open
        self.gauges.operators_read(states)

    def operator_unreachable(self, operator_id: str, reach: Reach) -> None:
        """Logs that this daemon cannot connect to an operator; other daemons may."""
        self.gauges.unreachable_operators.add(operator_id)
        log.warning(Event.OPERATOR_UNREACHABLE, operator_id=operator_id, failures=reach.failures, reason=reach.reason)

    def operator_recovered(self, operator_id: str) -> None:
        self.gauges.unreachable_operators.discard(operator_id)
        log.warning(Event.OPERATOR_RECOVERED, operator_id=operator_id)

    def checkpoint_stored(self, stored: StoredCheckpoint) -> None:
        """Logs a checkpoint: a copy of the log lines outside the database proves later changes."""
        self._log.info(
            Event.AUDIT_CHECKPOINT,
            operator_id=stored.operator_id,
            origin=stored.origin,
            size=stored.size,
            root=stored.root.hex(),
            checkpoint=stored.checkpoint,
        )

    def heads_read(self, heads: LogHeads) -> None:
        self.gauges.heads_read(heads)

    def figures_read(self, figures: FleetFigures) -> None:
        self.gauges.figures_read(figures)

    def reconciliation_read(self, figures: ReconciliationFigures) -> None:
        self.reconciliation.figures_read(figures)

    def clock_read(self, clock: DatabaseClock) -> None:
        ahead_s = clock.ahead_of_host_s(time.time(), time.monotonic())
        if ahead_s is not None:
            self.gauges.clock_read(ahead_s)

    def clock_stepped(self, step_s: float) -> None:
        """Logs and counts a step of the database's clock; below 0 it was set back."""
        self._metrics.clock_steps.inc()
        log.error(Event.CLOCK_STEPPED, step_s=round(step_s, 3))

    def times_corrected(self, operator_ids: Sequence[str]) -> None:
        """Logs that times too far in the future were corrected."""
        log.warning(Event.TIMES_CORRECTED, operators=sorted(set(operator_ids)))

    def instance_taken(self, taken: InstanceTakenError) -> None:
        """Logs that another daemon has this one's name; it may have stopped a moment ago."""
        log.warning(Event.INSTANCE_TAKEN, error=str(taken))

    def heartbeat_failed(self, error: Exception) -> None:
        """Logs that heartbeats begin to fail: this daemon soon sends nothing."""
        log.error(Event.HEARTBEAT_FAILED, error=f"{type(error).__name__}: {error}")

    def heartbeat_recovered(self) -> None:
        log.info(Event.HEARTBEAT_RECOVERED)

    def files_refused(self, faults: Sequence[Fault]) -> None:
        """Logs each file that a start or a reload refused, and counts it if there is one."""
        for fault in faults:
            log.error(Event.CONFIG_REFUSED, fault=str(fault))
        if faults:
            self._metrics.reload_failures.inc()
        self._metrics.last_reload_successful.set(not faults)

    def config_reloaded(self, reload: Reload, *, changed: int) -> None:
        """Logs a reload, with one line for each fault, and counts it if it failed."""
        self.files_refused(reload.faults)
        log.info(
            Event.CONFIG_RELOADED,
            operators=len(reload.config.operators),
            changed=changed,
            kept=list(reload.kept),
            faults=len(reload.faults),
            **({"needs_restart": list(reload.needs_restart)} if reload.needs_restart else {}),
        )

    def callback_set_aside(self, step: str, failure: RowFailure) -> None:
        """Logs a callback that cannot be processed, once."""
        log.error(
            Event.CALLBACK_SET_ASIDE,
            request_id=None if failure.request_id is None else str(failure.request_id),
            operator_id=failure.operator_id,
            step=step,
            sqlstate=failure.sqlstate,
            error=without_tokens(failure.message)[:_MESSAGE_CHARS_MAX],
        )

    def chore_failed(self, chore: str, error: Exception) -> None:
        """Counts a chore that failed and will be run again; logs one failure a minute."""
        self._metrics.chores_failed.labels(chore).inc()
        now_s = time.monotonic()
        if now_s - self._failing_chores.get(chore, -_REMIND_S) >= _REMIND_S:
            self._failing_chores[chore] = now_s
            log.error(Event.CHORE_FAILED, chore=chore, error=f"{type(error).__name__}: {error}")

    def chore_succeeded(self, chore: str) -> None:
        """Logs that a chore which failed works again."""
        if chore in self._failing_chores:
            del self._failing_chores[chore]
            log.info(Event.CHORE_RECOVERED, chore=chore)

    def report_refused(self, attempt: Attempt, error: Exception) -> None:
        """Logs and counts a report that the database refuses, the first time."""
        self._metrics.reports_refused.inc()
        log.error(
            Event.REPORT_REFUSED,
            request_id=str(attempt.callback.request_id),
            operator_id=attempt.callback.operator_id,
            attempt=attempt.callback.attempt,
            # Only the server's message: its detail, and asyncpg's own messages, quote the row.
            error=f"{type(error).__name__}: {without_tokens(getattr(error, 'message', '') or describe_failure(error))}",
        )


def _last_failure(state: OperatorState) -> dict[str, object]:
    """Return the failure that opened a circuit; the operator's answer is in the audit only."""
    failure = state.last_failure
    if failure is None:
        return {}
    fields: dict[str, object] = {
        "reason": failure.reason,
        "response_status": failure.status,
        "request_id": str(failure.request_id),
        "attempt": failure.attempt,
    }
    if failure.location is not None:
        fields["location"] = without_tokens(failure.location)
    return fields
