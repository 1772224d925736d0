"""What a daemon counts and measures itself, as Prometheus reads it. The names are a contract (DESIGN.md 8).

A help text is read by who is woken by the figure: it says what is counted, and what it means.
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

# Their timestamps would double the exposition, and no rule of ours reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """A registry and every counter, histogram and gauge of this process in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, processor time, open descriptors and their limit, under the names that every process has.
        ProcessCollector(registry=self.registry)
        self.attempts = self._counter(
            "attempts",
            "Attempts that this daemon settled. delivered: the operator confirmed; rejected: it refused for a business "
            "reason; retry: no usable answer; late: the lease was lost, the row decides nothing.",
            *("operator", "method", "verdict"),
        )
        self.finished = self._counter(
            "callbacks_finished",
            "Callbacks that this daemon saw become final, by the state they ended in; not those that rollback_bet() "
            "ended itself.",
            *("operator", "method", "state"),
        )
        self.rollbacks = self._counter(
            "rollbacks",
            "Rollbacks sent for the first time. cause unknown_effect: a debit whose fate nobody knew; requested: the "
            "platform called rollback_bet(); enqueued: the platform enqueued a BET_ROLLBACK itself.",
            *("operator", "cause"),
        )
        self.misconfigured = self._counter(
            "misconfigured",
            "Attempts answered with a redirect, 401, 403, 404, 405 or 410 and no business status: the operator's "
            "address, our key there, or its routing is wrong. They are retried and will not succeed by themselves.",
            "operator",
        )
        self.connections = self._counter(
            "connections", "Connections begun; attempts over this is how often one is used again.", "operator"
        )
        self.leases_lost = self._counter(
            "leases_lost",
            "Answers of this daemon that came after their lease was lost: somebody else has decided the attempt, the "
            "answer is in the audit only.",
        )
        self.leases_reaped = self._counter(
            "leases_reaped",
            "Attempts that this daemon settled as interrupted, because the daemon that had begun them said nothing "
            "more before the lease ran out. Their effect is unknown.",
        )
        self.reports_refused = self._counter(
            "reports_refused",
            "Reports of attempts that the database would not take: a fault of ours. Their leases run out, and the "
            "attempts are settled as interrupted.",
        )
        self.chores_failed = self._counter(
            "chores_failed",
            "Failures of what a daemon does beside delivering, each tried again; not those of an absent database.",
            "chore",
        )
        self.reload_failures = self._counter(
            "config_reload_failures",
            "Reloads in which a file was bad: its operator goes on as it ran, the other files were taken.",
        )
        self.last_reload_successful = self._gauge(
            "config_last_reload_successful",
            "1 if the last reload, or the start, took every file; 0 while an operator runs by older settings than its "
            "file has.",
        )
        self.last_reload_successful.set(1)
        self.attempt_duration = self._histogram(
            "attempt_duration_seconds",
            "How long an attempt took, from connecting to the last byte of the answer or giving up.",
            *("operator", "lane"),
        )
        self.delivery_latency = self._histogram(
            "delivery_latency_seconds",
            "From enqueueing to the operator's confirmation, of delivered callbacks, retries and waiting included.",
            *("operator", "lane"),
        )
        self.pickup_latency = self._histogram(
            "pickup_latency_seconds", "From due to sent: what the fleet itself adds before each attempt.", "lane"
        )
        self._gauge("build_info", "Always 1; the version of this daemon is the label.", "version").labels(
            version("predictu-dispatch")
        ).set(1)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"predictu_dispatch_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"predictu_dispatch_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"predictu_dispatch_{name}", text, labels, registry=self.registry, buckets=_SECONDS)
