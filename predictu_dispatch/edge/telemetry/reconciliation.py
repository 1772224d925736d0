"""The gauges of reconciliation: open differences, and until when everything is reconciled."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric

from predictu_dispatch.core.difference_classes import TABLE, Kind
from predictu_dispatch.core.fleet import ReconciliationFigures
from predictu_dispatch.edge.telemetry.families import gauge

_AGE_MAX_S: Final = 900.0
"""Older figures are left out. Readings are at most 10 minutes apart."""
_OPEN_CLASSES: Final = tuple(str(rule.name) for rule in TABLE if rule.kind in (Kind.DIFFERENCE, Kind.CONTRADICTION))
_BY_CLASS: Final = ("operator", "class")


class ReconciliationGauges:
    """A collector. An operator that was never reconciled has no series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._figures = ReconciliationFigures((), (), 0.0)
        self._read_at_s = time.monotonic()
        registry.register(self)

    def figures_read(self, figures: ReconciliationFigures) -> None:
        self._figures, self._read_at_s = figures, time.monotonic() - figures.age_s

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges; a figure that could not be read recently is absent."""
        age_s = time.monotonic() - self._read_at_s
        figures = self._figures if age_s <= _AGE_MAX_S else ReconciliationFigures((), (), 0.0)
        yield from _difference_gauges(figures, age_s)
        yield from _run_gauges(figures.runs)


def _difference_gauges(figures: ReconciliationFigures, age_s: float) -> Iterable[Metric]:
    """A reconciled operator has 0 for each class without an open item."""
    found: dict[tuple[str, ...], float] = {
        (run["operator_id"], name): 0.0 for run in figures.runs for name in _OPEN_CLASSES
    }
    oldest_s = dict(found)
    disputed: dict[tuple[str, ...], float] = {}
    for row in figures.differences:
        key = row["operator_id"], row["class"]
        found[key] = found.get(key, 0.0) + row["items"]
        oldest_s[key] = max(oldest_s.get(key, 0.0), row["open_for_s"] + age_s)
        disputed[*key, row["currency"]] = row["disputed"]
    yield gauge(
        "reconciliation_differences",
        "Open differences with the operator's ledger, by class; at most 10,000 of a class and run are counted. ours: "
        "our own records contradict each other. The same in every daemon. Absent for an operator that was never "
        "reconciled.",
        found,
        *_BY_CLASS,
    )
    yield gauge(
        "reconciliation_difference_oldest_seconds",
        "Time since a run first found the oldest open difference of this class as it is now; 0 if there is none.",
        oldest_s,
        *_BY_CLASS,
    )
    yield gauge(
        "reconciliation_disputed_subunits",
        "Money of the open differences that must be settled with the operator, in the currency's smallest unit. "
        "Absent if there is none. `predictu-dispatch reconcile list` has the exact amounts.",
        disputed,
        *(*_BY_CLASS, "currency"),
    )


def _run_gauges(runs: Iterable[Mapping[str, Any]]) -> Iterable[Metric]:
    yield gauge(
        "reconciliation_last_run_complete",
        "1 if the operator's newest run read every line and its sums agree, 0 if not. Absent for an operator that was "
        "never reconciled.",
        {(run["operator_id"],): run["is_complete"] for run in runs},
        "operator",
    )
    yield gauge(
        "reconciliation_last_complete_timestamp_seconds",
        "Unix time at which the operator's last complete run ended, whatever its period; if none was complete, at "
        "which its first run ended.",
        {(run["operator_id"],): run["complete_at_s"] for run in runs},
        "operator",
    )
    yield gauge(
        "reconciliation_covered_until_timestamp_seconds",
        "Unix time of the latest end of a period that a complete run has reconciled. Absent if none was complete.",
        {(run["operator_id"],): run["covered_until_s"] for run in runs if run["covered_until_s"] is not None},
        "operator",
    )
