"""The figures that are read rather than counted, from the database and from this process.

One that could not be read lately is absent, never 0 (DESIGN.md 8).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

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
_UNFINISHED = (CallbackState.WAITING, CallbackState.READY, CallbackState.IN_FLIGHT)


class Snapshot:
    """A collector for a Prometheus registry."""

    def __init__(
        self, in_flight: Callable[[], Mapping[tuple[str, Lane], int]], database_up: Callable[[], bool]
    ) -> None:
        self._in_flight = in_flight
        self._database_up = database_up
        self._taken_at_s: float | None = None
        self._backlog: list[Mapping[str, Any]] = []
        self._review: list[Mapping[str, Any]] = []
        self._states: Sequence[OperatorState] = ()
        self._seen_at_s: float | None = None

    def take(self, backlog: list[Mapping[str, Any]], review: list[Mapping[str, Any]]) -> None:
        self._backlog, self._review, self._taken_at_s = backlog, review, time.monotonic()

    def see(self, states: Sequence[OperatorState]) -> None:
        self._states, self._seen_at_s = states, time.monotonic()

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("predictu_dispatch_database_up", "1 while the database answers.")
        up.add_metric([], float(self._database_up()))
        yield up
        in_flight = _gauge("in_flight", "Attempts of this daemon under way.", "operator", "lane")
        lanes = dict(self._in_flight())
        for lane, attempts in lanes.items():
            in_flight.add_metric(list(lane), attempts)
        yield in_flight
        if self._seen_at_s is not None and time.monotonic() - self._seen_at_s <= _SNAPSHOT_AGE_MAX_S:
            yield from self._operators()
        if self._taken_at_s is None or time.monotonic() - self._taken_at_s > _SNAPSHOT_AGE_MAX_S:
            return
        yield from self._stored(lanes)

    def _operators(self) -> Iterable[Metric]:
        """How the operators are; one of which nothing was heard yet is neither up nor down."""
        circuit: dict[tuple[str, ...], float] = {
            (state.operator_id,): float(state.breaker.circuit is not Circuit.CLOSED) for state in self._states
        }
        yield _gauges("circuit_open", "1 while the operator is left alone after failures.", circuit, "operator")
        up: dict[tuple[str, ...], float] = {
            (state.operator_id,): float(state.breaker.health is not Health.DOWN)
            for state in self._states
            if state.breaker.health is not Health.UNKNOWN
        }
        yield _gauges("operator_up", "1 while the operator answers, 0 while its circuit is open.", up, "operator")

    def _stored(self, lanes: Iterable[tuple[str, Lane]]) -> Iterable[Metric]:
        """What the database said. What it did not name, of operators that we know, is 0: that was read as well."""
        lanes = list(lanes)
        callbacks: dict[tuple[str, ...], float] = {(*lane, state): 0.0 for lane in lanes for state in _UNFINISHED}
        oldest_due_s: dict[tuple[str, ...], float] = dict.fromkeys(lanes, 0.0)
        unknown: dict[tuple[str, ...], float] = dict.fromkeys(((operator_id,) for operator_id, _ in lanes), 0.0)
        needs_review = unknown | {(row["operator_id"],): float(row["callbacks"]) for row in self._review}
        for row in (*self._backlog, *self._review):
            unknown[row["operator_id"],] = unknown.get((row["operator_id"],), 0.0) + row["unknown_effect"]
        for row in self._backlog:
            operator_id, lane = row["operator_id"], row["lane"]
            callbacks[operator_id, lane, row["state"]] = row["callbacks"]
            if row["oldest_due_s"] is not None:
                oldest_due_s[operator_id, lane] = max(0.0, row["oldest_due_s"])
        by_lane = ("operator", "lane")
        yield _gauges("backlog", "Callbacks that are not final.", callbacks, *by_lane, "state")
        yield _gauges("oldest_due_seconds", "How long the oldest ready callback has been due.", oldest_due_s, *by_lane)
        yield _gauges(
            "unknown_effect", "Callbacks whose effect is unknown: unfinished, or in review.", unknown, "operator"
        )
        yield _gauges("needs_review", "Callbacks that a person must look at.", needs_review, "operator")


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"predictu_dispatch_{name}", text, labels=labels)


def _gauges(name: str, text: str, figures: Mapping[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    gauge = _gauge(name, text, *labels)
    for values, figure in figures.items():
        gauge.add_metric(list(values), figure)
    return gauge
