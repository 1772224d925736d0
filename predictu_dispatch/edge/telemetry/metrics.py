"""The counters and histograms of a daemon, for Prometheus. Metric names are a contract.

Help texts are read by the person on call: each says what is counted and what it means.
"""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

# They would double the exposition, and no rule uses them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_HELP = {
    "attempts": (
        "Attempts that this daemon settled. delivered: the operator confirmed; rejected: the operator rejected it "
        "for a business reason; retry: no usable answer; late: the lease was lost, the row decides nothing."
    ),
    "callbacks_finished": (
        "Callbacks that this daemon brought to a final state, by that state; without those that rollback_bet() "
        "ended itself."
    ),
    "rollbacks": (
        "First attempts of rollbacks, by cause. unknown_effect: a debit with an unknown outcome; requested: the "
        "platform called rollback_bet(); enqueued: the platform enqueued a BET_ROLLBACK itself."
    ),
    "misconfigured": (
        "Attempts answered with a redirect, 401, 403, 404, 405 or 410 and no business status: the callback_url, "
        "our key at the operator, or its routing is wrong. Retries do not succeed until that is fixed."
    ),
    "connections": "Connections opened. Attempts divided by this is how often a connection is used.",
    "leases_lost": (
        "Answers that arrived after their lease was lost: the reaper has already decided the attempt, and the "
        "answer is only in the audit."
    ),
    "leases_reaped": (
        "Attempts that this daemon settled as interrupted, because the daemon that made them did not settle them "
        "before the lease expired. Their effect is unknown."
    ),
    "reports_refused": (
        "Reports of attempts that the database refused, which is a bug. Their leases expire, and the attempts are "
        "settled as interrupted."
    ),
    "chores_failed": (
        "Failed maintenance chores; each runs again. Failures while the database is unavailable are not counted."
    ),
    "config_reload_failures": (
        "Reloads with at least one bad file: its operator keeps its running settings, the other files are taken."
    ),
    "config_last_reload_successful": (
        "1 if the last reload or start took every file; 0 while an operator runs with older settings than its file has."
    ),
    "attempt_duration_seconds": (
        "Duration of an attempt, from connecting to the last byte of the answer or the failure."
    ),
    "delivery_latency_seconds": (
        "From enqueueing to the operator's confirmation, for delivered callbacks; includes retries and waiting."
    ),
    "pickup_latency_seconds": "From due to sent: the delay that the fleet itself adds before each attempt.",
    "build_info": "Always 1; the label is the version of this daemon.",
}


class Metrics:
    """A registry with every counter and histogram of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU time and file descriptors, under Prometheus's standard names.
        ProcessCollector(registry=self.registry)
        self.attempts = self._counter("attempts", "operator", "method", "verdict")
        self.finished = self._counter("callbacks_finished", "operator", "method", "state")
        self.rollbacks = self._counter("rollbacks", "operator", "cause")
        self.misconfigured = self._counter("misconfigured", "operator")
        self.connections = self._counter("connections", "operator")
        self.leases_lost = self._counter("leases_lost")
        self.leases_reaped = self._counter("leases_reaped")
        self.reports_refused = self._counter("reports_refused")
        self.chores_failed = self._counter("chores_failed", "chore")
        self.reload_failures = self._counter("config_reload_failures")
        self.last_reload_successful = self._gauge("config_last_reload_successful")
        self.last_reload_successful.set(1)
        self.attempt_duration = self._histogram("attempt_duration_seconds", "operator", "lane")
        self.delivery_latency = self._histogram("delivery_latency_seconds", "operator", "lane")
        self.pickup_latency = self._histogram("pickup_latency_seconds", "lane")
        self._gauge("build_info", "version").labels(version("predictu-dispatch")).set(1)

    def _gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(f"predictu_dispatch_{name}", _HELP[name], labels, registry=self.registry)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(f"predictu_dispatch_{name}", _HELP[name], labels, registry=self.registry)

    def _histogram(self, name: str, *labels: str) -> Histogram:
        return Histogram(f"predictu_dispatch_{name}", _HELP[name], labels, registry=self.registry, buckets=_BUCKETS_S)
