"""Keeps the last figures of the database, the configuration and this process for the gauges.

A figure that could not be read recently is absent, never 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Metric

from predictu_dispatch.core.fleet import FleetFigures, OperatorState
from predictu_dispatch.core.sealing import LogHeads
from predictu_dispatch.edge.config.operator_file import OperatorConfig
from predictu_dispatch.edge.telemetry.families import (
    ProcessStats,
    audit_gauges,
    backlog_gauges,
    config_gauges,
    gauge,
    operator_gauges,
    process_gauges,
)

_AGE_MAX_S = 30.0
"""Older figures of the database are left out."""
_HEADS_AGE_MAX_S = 150.0
"""Heads are read every `seal_s`, which is a minute at most."""


class Gauges:
    """A Prometheus collector; `refresh()` runs on the loop before `collect()` in a thread."""

    def __init__(self, process_stats: Callable[[], ProcessStats]) -> None:
        self._process_stats = process_stats
        self._process: ProcessStats | None = None
        self._figures = FleetFigures(backlog=(), review=(), age_s=0.0, notification_queue_usage=0.0)
        self._counted_at_s: float | None = None
        self._states: Sequence[OperatorState] = ()
        self._states_read_at_s: float | None = None
        self._heads = LogHeads(0.0, ())
        self._heads_read_at_s: float | None = None
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

    def heads_read(self, heads: LogHeads) -> None:
        self._heads, self._heads_read_at_s = heads, time.monotonic()

    def operators_loaded(self, operators: tuple[OperatorConfig, ...]) -> None:
        self._configs = operators

    def collect(self) -> Iterable[Metric]:
        yield from config_gauges(self._configs)
        process = self._process
        if process is None:
            return
        yield from process_gauges(process)
        if _is_recent(self._clock_read_at_s):
            yield gauge(
                "clock_difference_seconds",
                "By how much the database's clock is ahead of this host's clock; below 0 if it is behind. Tokens are "
                "issued at the database's time while they differ by less than 30 s, else at the host's.",
                {(): self._clock_ahead_s},
            )
        if self._heads_read_at_s is not None:
            age_s = time.monotonic() - self._heads_read_at_s
            if age_s <= _HEADS_AGE_MAX_S:
                yield from audit_gauges(self._heads, age_s=age_s)
        yield gauge(
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
            yield from operator_gauges(
                self._states,
                disabled={one.settings.operator_id for one in self._configs if not one.settings.enabled},
            )
        if _is_recent(self._counted_at_s):
            yield from backlog_gauges(list(process.in_flight), self._figures.backlog, self._figures.review)
            yield gauge(
                "notification_queue_usage_ratio",
                "The part of the Postgres server's notification queue that is in use. Above 0.5 no notifications are "
                "sent: callbacks and outcomes are found by polling.",
                {(): self._figures.notification_queue_usage},
            )


def _is_recent(read_at_s: float | None) -> bool:
    return read_at_s is not None and time.monotonic() - read_at_s <= _AGE_MAX_S
