"""The gauges: what each one means, and its series, from figures that were read before.

Names and labels are a contract; deploy/metrics.md lists all metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from predictu_dispatch.core.breaker import Circuit, Health
from predictu_dispatch.core.fleet import OperatorState
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.sealing import LogHeads
from predictu_dispatch.edge.config.operator_file import OperatorConfig

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


def config_gauges(operators: Collection[OperatorConfig]) -> Iterable[Metric]:
    """Yield what the files of the operators say."""
    enabled: _Figures = {}
    ends: _Figures = {}
    made: _Figures = {}
    for operator in operators:
        operator_id = operator.settings.operator_id
        enabled[operator_id,] = operator.settings.enabled
        ends |= {(operator_id, label): end_s for label, end_s in operator.certificate_ends.items()}
        if operator.key_made_at is not None:
            made[operator_id,] = operator.key_made_at
    yield gauge(
        "operator_enabled",
        "1 if the operator's file says enabled = true, 0 if it says false: then nothing is sent, and operator_up and "
        "circuit_open are absent. Read at the last start or reload.",
        enabled,
        "operator",
    )
    yield gauge(
        "certificate_expires_timestamp_seconds",
        "Unix time at which the first certificate in the operator's [tls] files expires. client: our certificate; "
        "ca: the authority that we trust for this operator. After that time no callback is delivered. "
        "Read at the last start or reload.",
        ends,
        *("operator", "certificate"),
    )
    yield gauge(
        "signing_key_created_timestamp_seconds",
        "Unix time at which the file of the operator's active signing key was written. Absent for a systemd "
        "credential, whose file is new at each start.",
        made,
        "operator",
    )


def process_gauges(process: ProcessStats) -> Iterable[Metric]:
    """Yield the state of this process."""
    yield gauge("database_up", "1 if the last statement reached the database, else 0.", {(): process.is_database_up})
    yield gauge(
        "ready",
        "1 while /readyz answers 200: the daemon reaches the database, has a share of the operators' limits and "
        "claims callbacks. 0 while it drains.",
        {(): process.is_ready},
    )
    yield gauge(
        "database_blocked_seconds",
        "For how long statements of this daemon have been waiting for a lock of another session; 0 if none waits for "
        "more than 3 s. The log line database.blocked and /readyz name the session.",
        {(): process.database_blocked_s},
    )
    yield gauge(
        "heartbeat_age_seconds",
        "Time since this daemon's last successful heartbeat. After 2.5 s it sends nothing; after 3 s other daemons "
        "may take its share of the operators' limits.",
        {} if process.heartbeat_age_s is None else {(): process.heartbeat_age_s},
    )
    yield gauge(
        "in_flight",
        "Slots that this daemon's attempts use. A slot is free again once its attempt is in the audit.",
        {tuple(lane): count for lane, count in process.in_flight.items()},
        *("operator", "lane"),
    )
    yield gauge(
        "unsettled_oldest_seconds",
        "How long the oldest attempt that ended has been waiting to be settled, in this process; 0 if none is. Until "
        "then its answer is in memory only. A locked bet makes its attempt wait.",
        {(lane,): age_s for lane, age_s in process.unsettled_oldest_s.items()},
        "lane",
    )
    yield gauge(
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
    yield gauge(
        "set_aside",
        "Callbacks that the database or this daemon cannot process, such as an unreadable row. They are tried again "
        "after 4 s to a minute; all others are delivered. Counted for up to two minutes after the last failure.",
        {
            (operator_id,): process.set_aside.get(operator_id, 0)
            for operator_id in {*process.set_aside, *(operator_id for operator_id, _ in process.in_flight)}
        },
        "operator",
    )


def operator_gauges(states: Sequence[OperatorState], *, disabled: Collection[str]) -> Iterable[Metric]:
    """Nobody sends a disabled operator a PING, so its circuit and health are not known."""
    watched = [state for state in states if state.operator_id not in disabled]
    yield gauge(
        "circuit_open",
        "1 while the operator's circuit is open or half open after consecutive failures: its bets fail at once, its "
        "settlements and rollbacks wait, and a PING checks whether it is back. The same in every daemon. "
        "Absent for a disabled operator.",
        {(state.operator_id,): state.breaker.circuit is not Circuit.CLOSED for state in watched},
        "operator",
    )
    yield gauge(
        "operator_up",
        "1 while the operator answers, 0 while its circuit is open or half open. Absent before the first answer or "
        "failure, and for a disabled operator.",
        {
            (state.operator_id,): state.breaker.health is not Health.DOWN
            for state in watched
            if state.breaker.health is not Health.UNKNOWN
        },
        "operator",
    )
    yield gauge(
        "paused",
        "1 while the operator is paused (predictu-dispatch pause): its bets fail at once, everything else waits.",
        {(state.operator_id,): state.is_paused for state in states},
        "operator",
    )


def audit_gauges(read: LogHeads, *, age_s: float) -> Iterable[Metric]:
    """Yield the gauges of the logs, from figures that were read `age_s` ago."""
    yield gauge(
        "audit_unsealed_seconds",
        "Time since everything in the audit was sealed last. It grows while sealing fails or is slower than the audit "
        "grows. Absent before a log has begun.",
        {(): read.unsealed_s + age_s},
    )
    yield gauge(
        "audit_log_size",
        "Entries in the operator's log. The same in every daemon. Absent before a log has begun.",
        {(head.operator_id,): head.size for head in read.heads},
        "operator",
    )
    yield gauge(
        "audit_verified_age_seconds",
        "Time since the last `audit verify` of the operator's log, or since the log began if there was none. The same "
        "in every daemon. Absent before a log has begun.",
        {(one.operator_id,): one.age_s + age_s for one in read.verifications},
        "operator",
    )
    yield gauge(
        "audit_faults",
        "Faults that the last verification of the operator's log found: rows that were changed, removed or added, "
        "entries and checkpoints that do not fit. The same in every daemon. Absent before a log has begun.",
        {(one.operator_id,): one.faults for one in read.verifications},
        "operator",
    )


def backlog_gauges(
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
    yield gauge(
        "backlog",
        "Unfinished callbacks, counted in the database. waiting: the bet's earlier callback is not settled yet; "
        "ready: due now or at the next retry; in_flight: being sent. The same in every daemon.",
        callbacks,
        *("operator", "lane", "state"),
    )
    yield gauge(
        "oldest_due_seconds",
        "How long the oldest due callback has been due; 0 if none is due. A retry sets a new due time.",
        oldest_due_s,
        *("operator", "lane"),
    )
    for name, text in _BY_OPERATOR.items():
        yield gauge(name, text, by_operator[name], "operator")


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


def gauge(name: str, text: str, figures: Mapping[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    """Return a gauge with these series; without any it has a name and no figure."""
    family = GaugeMetricFamily(f"predictu_dispatch_{name}", text, labels=labels)
    for values, figure in figures.items():
        family.add_metric(list(values), figure)
    return family
