"""Gauges with figures of the database, the configuration and this process.

A figure that could not be read recently is absent, never 0. Metric names are a contract.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from predictu_dispatch.core.breaker import Circuit, Health
from predictu_dispatch.core.fleet import FleetFigures, OperatorState
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.config.operator_file import OperatorConfig

_AGE_MAX_S = 30.0
"""Older figures of the database are left out."""
_Figures: TypeAlias = dict[tuple[str, ...], float]
"""By the values of the labels."""
_UNFINISHED = (CallbackState.WAITING, CallbackState.READY, CallbackState.IN_FLIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStats:
    """The state of this process, read on the event loop."""

    in_flight: Mapping[tuple[str, Lane], int]
    is_database_up: bool
    is_ready: bool
    database_blocked_s: float = 0.0
    heartbeat_age_s: float | None = None
    log_lines_lost: int = 0
    set_aside: Mapping[str, int] = field(default_factory=dict)
    unsettled_oldest_s: Mapping[Lane, float] = field(default_factory=dict)
    unsettled_failing: Mapping[Lane, int] = field(default_factory=dict)


class Gauges:
    """A Prometheus collector; `refresh()` runs on the loop before `collect()` in a thread."""

    def __init__(self, process_stats: Callable[[], ProcessStats]) -> None:
        self._process_stats = process_stats
        self._process: ProcessStats | None = None
        self._figures = FleetFigures(backlog=(), review=(), age_s=0.0, notification_queue_usage=0.0)
        self._counted_at_s: float | None = None
        self._states: Sequence[OperatorState] = ()
        self._states_read_at_s: float | None = None
        self._configs: tuple[OperatorConfig, ...] = ()
        self._clock_ahead_s = 0.0
        self._clock_read_at_s: float | None = None
        self.unreachable_operators: set[str] = set()
        """The operators that this daemon cannot connect to."""

    def refresh(self) -> None:
        self._process = self._process_stats()

    def figures_read(self, figures: FleetFigures) -> None:
        self._figures, self._counted_at_s = figures, time.monotonic() - figures.age_s

    def clock_read(self, ahead_s: float) -> None:
        self._clock_ahead_s, self._clock_read_at_s = ahead_s, time.monotonic()

    def operators_read(self, states: Sequence[OperatorState]) -> None:
        self._states, self._states_read_at_s = states, time.monotonic()

    def operators_loaded(self, operators: tuple[OperatorConfig, ...]) -> None:
        self._configs = operators

    def collect(self) -> Iterable[Metric]:
        yield from _certificate_gauges(self._configs)
        process = self._process
        if process is None:
            return
        yield from _process_gauges(process)
        if _is_recent(self._clock_read_at_s):
            yield _gauge(
                "clock_difference_seconds",
                "By how much the database's clock is ahead of this host's clock; below 0 if it is behind. Tokens are "
                "issued at the database's time while they differ by less than 30 s, else at the host's.",
                {(): self._clock_ahead_s},
            )
        yield _gauge(
            "operator_unreachable",
            "1 while this daemon cannot connect to the operator and leaves its callbacks to the daemons that can. "
            "Differs between daemons.",
            {
                (one.settings.operator_id,): one.settings.operator_id in self.unreachable_operators
                for one in self._configs
            },
            "operator",
        )
        if _is_recent(self._states_read_at_s):
            yield from _operator_gauges(self._states)
        if _is_recent(self._counted_at_s):
            yield from _backlog_gauges(list(process.in_flight), self._figures.backlog, self._figures.review)
            yield _gauge(
                "notification_queue_usage_ratio",
                "The part of the Postgres server's notification queue that is in use. Above 0.5 no notifications are "
                "sent: callbacks and outcomes are found by polling.",
                {(): self._figures.notification_queue_usage},
            )


def _is_recent(read_at_s: float | None) -> bool:
    return read_at_s is not None and time.monotonic() - read_at_s <= _AGE_MAX_S


def _certificate_gauges(operators: Iterable[OperatorConfig]) -> Iterable[Metric]:
    ends: _Figures = {}
    made: _Figures = {}
    for operator in operators:
        operator_id = operator.settings.operator_id
        ends |= {(operator_id, label): end_s for label, end_s in operator.certificate_ends.items()}
        if operator.key_made_at is not None:
            made[operator_id,] = operator.key_made_at
    yield _gauge(
        "certificate_expires_timestamp_seconds",
        "Unix time at which the first certificate in the operator's [tls] files expires. client: our certificate; "
        "ca: the authority that we trust for this operator. After that time no callback is delivered. "
        "Read at the last start or reload.",
        ends,
        *("operator", "certificate"),
    )
    yield _gauge(
        "signing_key_created_timestamp_seconds",
        "Unix time at which the file of the operator's active signing key was written. Absent for a systemd "
        "credential, whose file is new at each start.",
        made,
        "operator",
    )


def _process_gauges(process: ProcessStats) -> Iterable[Metric]:
    yield _gauge("database_up", "1 if the last statement reached the database, else 0.", {(): process.is_database_up})
    yield _gauge(
        "ready",
        "1 while /readyz answers 200: the daemon reaches the database, has a share of the operators' limits and "
        "claims callbacks. 0 while it drains.",
        {(): process.is_ready},
    )
    yield _gauge(
        "database_blocked_seconds",
        "For how long statements of this daemon have been waiting for a lock of another session; 0 if none waits for "
        "more than 3 s. The log line database.blocked and /readyz name the session.",
        {(): process.database_blocked_s},
    )
    yield _gauge(
        "heartbeat_age_seconds",
        "Time since this daemon's last successful heartbeat. After 2.5 s it sends nothing; after 3 s other daemons "
        "may take its share of the operators' limits.",
        {} if process.heartbeat_age_s is None else {(): process.heartbeat_age_s},
    )
    yield _gauge(
        "in_flight",
        "Slots that this daemon's attempts use. A slot is free again once its attempt is in the audit.",
        {tuple(lane): count for lane, count in process.in_flight.items()},
        *("operator", "lane"),
    )
    yield _gauge(
        "unsettled_oldest_seconds",
        "How long the oldest attempt that ended has been waiting to be settled, in this process; 0 if none is. Until "
        "then its answer is in memory only. A locked bet makes its attempt wait.",
        {(lane,): age_s for lane, age_s in process.unsettled_oldest_s.items()},
        "lane",
    )
    yield _gauge(
        "unsettled_failing",
        "Attempts that ended and could not be settled even alone: the database refuses them, or they take too "
        "long. They are reported again, every 30 s at least, and are lost if the process ends.",
        {(lane,): count for lane, count in process.unsettled_failing.items()},
        "lane",
    )
    yield CounterMetricFamily(
        "predictu_dispatch_log_lines_lost",
        "Log lines that were lost, because the reader of stderr was too slow or a write failed. The audit "
        "has every attempt.",
        value=process.log_lines_lost,
    )
    yield _gauge(
        "set_aside",
        "Callbacks that the database or this daemon cannot process, such as an unreadable row. They are tried again "
        "after 4 s to a minute; all others are delivered. Counted for up to two minutes after the last failure.",
        {
            (operator_id,): process.set_aside.get(operator_id, 0)
            for operator_id in {*process.set_aside, *(operator_id for operator_id, _ in process.in_flight)}
        },
        "operator",
    )


def _operator_gauges(states: Sequence[OperatorState]) -> Iterable[Metric]:
    yield _gauge(
        "circuit_open",
        "1 while the operator's circuit is open or half open after consecutive failures: its bets fail at once, its "
        "settlements and rollbacks wait, and a PING checks whether it is back. The same in every daemon.",
        {(state.operator_id,): state.breaker.circuit is not Circuit.CLOSED for state in states},
        "operator",
    )
    yield _gauge(
        "operator_up",
        "1 while the operator answers, 0 while its circuit is open or half open. Absent before the first answer or "
        "failure.",
        {
            (state.operator_id,): state.breaker.health is not Health.DOWN
            for state in states
            if state.breaker.health is not Health.UNKNOWN
        },
        "operator",
    )
    yield _gauge(
        "paused",
        "1 while the operator is paused (predictu-dispatch pause): its bets fail at once, everything else waits.",
        {(state.operator_id,): state.is_paused for state in states},
        "operator",
    )


def _backlog_gauges(
    lanes: Sequence[tuple[str, Lane]], backlog: Iterable[Mapping[str, Any]], review: Iterable[Mapping[str, Any]]
) -> Iterable[Metric]:
    """A known operator that the rows do not name has 0."""
    callbacks: _Figures = {(*lane, state): 0.0 for lane in lanes for state in _UNFINISHED}
    oldest_due_s: _Figures = dict.fromkeys(lanes, 0.0)
    operators = sorted({(operator_id,) for operator_id, _ in lanes})
    by_operator: dict[str, _Figures] = {name: dict.fromkeys(operators, 0.0) for name in _BY_OPERATOR}
    for row in backlog:
        operator_id, lane = row["operator_id"], row["lane"]
        callbacks[operator_id, lane, row["state"]] = row["callbacks"]
        if row["oldest_due_s"] is not None:
            oldest_due_s[operator_id, lane] = max(0.0, row["oldest_due_s"])
        _add(by_operator["unknown_effect"], row, "unknown_effect")
        _add(by_operator["rollbacks_unconfirmed"], row, "rollbacks")
        _maximum(by_operator["unknown_effect_oldest_seconds"], row, "unknown_for_s")
        _maximum(by_operator["rollback_oldest_seconds"], row, "rollback_for_s")
    for row in review:
        _add(by_operator["unknown_effect"], row, "unknown_effect")
        _add(by_operator["needs_review"], row, "callbacks")
        _maximum(by_operator["needs_review_oldest_seconds"], row, "review_for_s")
    yield _gauge(
        "backlog",
        "Unfinished callbacks, counted in the database. waiting: the bet's earlier callback is not settled yet; "
        "ready: due now or at the next retry; in_flight: being sent. The same in every daemon.",
        callbacks,
        *("operator", "lane", "state"),
    )
    yield _gauge(
        "oldest_due_seconds",
        "How long the oldest due callback has been due; 0 if none is due. A retry sets a new due time.",
        oldest_due_s,
        *("operator", "lane"),
    )
    for name, text in _BY_OPERATOR.items():
        yield _gauge(name, text, by_operator[name], "operator")


_BY_OPERATOR: Final = {
    "unknown_effect": "Callbacks that the operator may or may not have applied: unfinished ones, which are retried, "
    "and those that need review.",
    "unknown_effect_oldest_seconds": "Age of the oldest unfinished callback of unknown effect, since it was enqueued; "
    "0 if there is none. Callbacks that need review are not counted.",
    "rollbacks_unconfirmed": "Rollbacks that the operator has not confirmed yet, waiting, due or being sent. "
    "Their debits may have been applied.",
    "rollback_oldest_seconds": "Age of the oldest unconfirmed rollback, since it was enqueued; 0 if there is none.",
    "needs_review": "Callbacks that need manual review: wins, losses, sells, refunds and rollbacks that ended rejected "
    "or exhausted or were cancelled by a rollback, and rollbacks of a confirmed debit for which the operator had "
    "nothing to reverse. See `predictu-dispatch status`.",
    "needs_review_oldest_seconds": "How long the oldest callback on the review list has been there; 0 if there is "
    "none.",
}


def _add(figures: _Figures, row: Mapping[str, Any], column: str) -> None:
    key = (row["operator_id"],)
    figures[key] = figures.get(key, 0.0) + row[column]


def _maximum(figures: _Figures, row: Mapping[str, Any], column: str) -> None:
    key = (row["operator_id"],)
    figures[key] = max(figures.get(key, 0.0), row[column] or 0.0)


def _gauge(name: str, text: str, figures: Mapping[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"predictu_dispatch_{name}", text, labels=labels)
    for values, figure in figures.items():
        gauge.add_metric(list(values), figure)
    return gauge
