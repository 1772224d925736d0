"""The figures that are read rather than counted, from the database and from this process.

One that could not be read lately is absent, never 0 (DESIGN.md 8).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from prometheus_client.core import GaugeMetricFamily

from predictu_dispatch.core.breaker import Circuit, Health
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client import Metric

    from predictu_dispatch.core.fleet import OperatorState

_SNAPSHOT_AGE_MAX_S = 30.0
"""An older snapshot says nothing about now; its figures are left out."""
_Figures: TypeAlias = dict[tuple[str, ...], float]
"""By the values of the labels."""
_UNFINISHED = (CallbackState.WAITING, CallbackState.READY, CallbackState.IN_FLIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStats:
    """What this process knows of itself, read where it belongs: on the loop."""

    in_flight: Mapping[tuple[str, Lane], int]
    is_database_up: bool
    is_ready: bool


class Snapshot:
    """A collector for a Prometheus registry, which collects in a thread; `refresh()` goes before, on the loop."""

    def __init__(self, own: Callable[[], ProcessStats]) -> None:
        self._own = own
        self._seen: ProcessStats | None = None
        self._taken_at_s: float | None = None
        self._backlog: list[Mapping[str, Any]] = []
        self._review: list[Mapping[str, Any]] = []
        self._states: Sequence[OperatorState] = ()
        self._seen_at_s: float | None = None

    def refresh(self) -> None:
        """What is collected next is as of now."""
        self._seen = self._own()

    def take(self, backlog: list[Mapping[str, Any]], review: list[Mapping[str, Any]]) -> None:
        self._backlog, self._review, self._taken_at_s = backlog, review, time.monotonic()

    def see(self, states: Sequence[OperatorState]) -> None:
        self._states, self._seen_at_s = states, time.monotonic()

    def collect(self) -> Iterable[Metric]:
        own = self._seen
        if own is None:
            return
        nothing: tuple[str, ...] = ()
        yield _gauges(
            "database_up", "1 while the last statement reached the database, else 0.", {nothing: own.is_database_up}
        )
        yield _gauges(
            "ready",
            "1 while this daemon is at work, as /readyz says it: database reached, a share of the operators, claiming. "
            "0 while it drains.",
            {nothing: own.is_ready},
        )
        yield _gauges(
            "in_flight",
            "Attempts of this daemon under way, as slots taken: a slot is free again once its attempt is in the audit.",
            {tuple(lane): count for lane, count in own.in_flight.items()},
            "operator",
            "lane",
        )
        if self._seen_at_s is not None and time.monotonic() - self._seen_at_s <= _SNAPSHOT_AGE_MAX_S:
            yield from self._operators()
        if self._taken_at_s is not None and time.monotonic() - self._taken_at_s <= _SNAPSHOT_AGE_MAX_S:
            yield from self._stored(own.in_flight)

    def _operators(self) -> Iterable[Metric]:
        """How the operators are; one of which nothing was heard yet is neither up nor down."""
        states = self._states
        yield _gauges(
            "circuit_open",
            "1 while the operator is left alone after failures in a row: its bets fail at once, its credits and "
            "rollbacks wait, a PING asks whether it is back. The same in every daemon.",
            {(state.operator_id,): state.breaker.circuit is not Circuit.CLOSED for state in states},
            "operator",
        )
        yield _gauges(
            "operator_up",
            "1 while the operator answers, 0 while its circuit is open; absent before anything was heard of it.",
            {
                (state.operator_id,): state.breaker.health is not Health.DOWN
                for state in states
                if state.breaker.health is not Health.UNKNOWN
            },
            "operator",
        )
        yield _gauges(
            "paused",
            "1 while a person has paused the operator: nothing is sent, its bets fail at once, the rest waits.",
            {(state.operator_id,): state.is_paused for state in states},
            "operator",
        )

    def _stored(self, lanes: Iterable[tuple[str, Lane]]) -> Iterable[Metric]:
        """What the database said. What it did not name, of operators that we know, is 0: that was read as well."""
        lanes = list(lanes)
        callbacks: _Figures = {(*lane, state): 0.0 for lane in lanes for state in _UNFINISHED}
        oldest_due_s: _Figures = dict.fromkeys(lanes, 0.0)
        operators = {(operator_id,) for operator_id, _ in lanes}
        by_operator: dict[str, _Figures] = {name: dict.fromkeys(sorted(operators), 0.0) for name in _BY_OPERATOR}
        for row in self._backlog:
            operator_id, lane = row["operator_id"], row["lane"]
            callbacks[operator_id, lane, row["state"]] = row["callbacks"]
            if row["oldest_due_s"] is not None:
                oldest_due_s[operator_id, lane] = max(0.0, row["oldest_due_s"])
            _add(by_operator["unknown_effect"], row, "unknown_effect")
            _add(by_operator["rollbacks_unconfirmed"], row, "rollbacks")
            _raise(by_operator["unknown_effect_oldest_seconds"], row, "unknown_for_s")
            _raise(by_operator["rollback_oldest_seconds"], row, "rollback_for_s")
        for row in self._review:
            _add(by_operator["unknown_effect"], row, "unknown_effect")
            _add(by_operator["needs_review"], row, "callbacks")
            _raise(by_operator["needs_review_oldest_seconds"], row, "review_for_s")
        yield _gauges(
            "backlog",
            "Callbacks of the whole fleet that are not final, counted in the database. waiting: for the bet's earlier "
            "callback; ready: due now or at its next retry; in_flight: being sent. The same in every daemon.",
            callbacks,
            *("operator", "lane", "state"),
        )
        yield _gauges(
            "oldest_due_seconds",
            "How long ago the ready callback that is due the longest became due; 0 where none is due yet. A callback "
            "that is tried and fails becomes due anew.",
            oldest_due_s,
            *("operator", "lane"),
        )
        for name, text in _BY_OPERATOR.items():
            yield _gauges(name, text, by_operator[name], "operator")


_BY_OPERATOR: Final = {
    "unknown_effect": "Callbacks of which nobody knows whether the operator applied them: unfinished ones, which are "
    "being retried, and those in review.",
    "unknown_effect_oldest_seconds": "How long ago the oldest unfinished callback of unknown effect was enqueued; 0 "
    "where there is none. Those in review are not in it.",
    "rollbacks_unconfirmed": "Rollbacks that the operator has not confirmed yet, whether waiting, due or being sent: "
    "debits that may stand without a bet.",
    "rollback_oldest_seconds": "How long ago the oldest unconfirmed rollback was enqueued; 0 where there is none.",
    "needs_review": "Callbacks that a person must look at: credits, refunds, rollbacks and loss notifications that "
    "were refused or given up, or taken back because of another one. See `predictu-dispatch status`.",
    "needs_review_oldest_seconds": "How long the oldest callback in review has been there; 0 where there is none.",
}
"""The figures of an operator, with their help texts."""


def _add(figures: _Figures, row: Mapping[str, Any], column: str) -> None:
    key = (row["operator_id"],)
    figures[key] = figures.get(key, 0.0) + row[column]


def _raise(figures: _Figures, row: Mapping[str, Any], column: str) -> None:
    """The figure is the greatest of the rows'; NULL is none."""
    key = (row["operator_id"],)
    figures[key] = max(figures.get(key, 0.0), row[column] or 0.0)


def _gauges(name: str, text: str, figures: Mapping[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"predictu_dispatch_{name}", text, labels=labels)
    for values, figure in figures.items():
        gauge.add_metric(list(values), figure)
    return gauge
