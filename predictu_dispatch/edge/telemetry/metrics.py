"""The counters and histograms of the daemon; gauges.py has the gauges.

Names and labels are a contract; deploy/metrics.md lists all metrics.
"""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from predictu_dispatch.edge.telemetry.counts import Counts, Durations

# They would double the exposition, and no rule uses them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_HELP = {
    "attempts": (
        "Attempts that this daemon settled. delivered: the operator confirmed; rejected: the operator rejected it "
        "for a business reason; retry: no usable answer; late: the answer came after the lease was lost."
    ),
    "attempts_failed": (
        "Attempts that were neither delivered nor rejected with a known status, by reason code as in the audit: those "
        "with verdict retry, and answers with an unknown status. Late answers are not counted again. Unusual HTTP "
        "codes are counted as http_4xx and so on."
    ),
    "audit_bytes": (
        "Bytes of headers and bodies of the attempts that this daemon wrote to the audit. If an operator gives the "
        "same answer to a callback again, the first 4,096 bytes of its body are written."
    ),
    "confirmed_amount_subunits": (
        "Money in callbacks that became delivered, in the currency's smallest unit (cents; yen for JPY). debit: "
        "BET_MAKE; credit: BET_WIN, BET_SELL, BET_REFUND; rollback: a BET_ROLLBACK that reversed a debit. The audit "
        "has the exact sums; this counter starts at 0 with each daemon."
    ),
    "callbacks_finished": (
        "Callbacks that this daemon moved to a final state, by that state. Callbacks that rollback_bet() ended are "
        "not counted."
    ),
    "rollbacks": (
        "First attempts of rollbacks, by cause. unknown_effect: a debit with an unknown outcome; requested: the "
        "platform called rollback_bet(); enqueued: the platform enqueued a BET_ROLLBACK itself."
    ),
    "misconfigured": (
        "Attempts answered with a redirect, with 401, 403, 405 or 410 and no known status, or with 404 and no status: "
        "the callback_url, our key at the operator, or its routing is wrong. Retries do not succeed until that is "
        "fixed."
    ),
    "connections": "Connections opened. Attempts divided by connections is the mean number of attempts per connection.",
    "leases_lost": (
        "Answers that arrived after their lease was lost: the reaper has already settled the attempt, and the "
        "answer is recorded in the audit only."
    ),
    "leases_reaped": (
        "Attempts that this daemon settled as interrupted, because the daemon that made them did not settle them "
        "before the lease expired. Their effect is unknown."
    ),
    "reports_refused": (
        "Reports that the database refused even alone, or that name an attempt that was never claimed. The "
        "daemon keeps what was refused and reports it again: see unsettled_failing."
    ),
    "chores_failed": (
        "Failed maintenance chores; each is tried again. Failures while the database is unavailable are not counted."
    ),
    "clock_steps": (
        "Steps of the database's clock that this daemon saw, in either direction: a restore, a failover to a server "
        "whose clock differs, or a clock that was set."
    ),
    "config_reload_failures": (
        "Reloads with at least one invalid file: its operator keeps its running settings, the other files are applied."
    ),
    "config_last_reload_successful": (
        "1 if the last start or reload applied every file; 0 if it refused a file, whose settings do not apply."
    ),
    "attempt_duration_seconds": (
        "Duration of an attempt, from connecting to the last byte of the answer or the failure."
    ),
    "delivery_latency_seconds": (
        "Time from enqueueing to the operator's confirmation, for delivered callbacks; includes retries and waiting."
    ),
    "pickup_latency_seconds": "Time from due to sent: the delay that the daemons add before each attempt.",
    "build_info": "Always 1; the label version is the version of this daemon.",
}


class Metrics:
    """A registry with every counter and histogram of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU time and file descriptors, under Prometheus's standard names.
        ProcessCollector(registry=self.registry)
        self.attempts = self._counts("attempts", "operator", "method", "verdict")
        self.failed = self._counts("attempts_failed", "operator", "reason")
        self.audit_bytes = self._counts("audit_bytes", "operator")
        self.confirmed = self._counts("confirmed_amount_subunits", "operator", "currency", "direction")
        self.finished = self._counts("callbacks_finished", "operator", "method", "state")
        self.rollbacks = self._counter("rollbacks", "operator", "cause")
        self.misconfigured = self._counter("misconfigured", "operator")
        self.connections = self._counter("connections", "operator")
        self.leases_lost = self._counter("leases_lost")
        self.leases_reaped = self._counter("leases_reaped")
        self.reports_refused = self._counter("reports_refused")
        self.chores_failed = self._counter("chores_failed", "chore")
        self.clock_steps = self._counter("clock_steps")
        self.reload_failures = self._counter("config_reload_failures")
        self.last_reload_successful = self._gauge("config_last_reload_successful")
        self.last_reload_successful.set(1)
        self.attempt_duration = self._durations("attempt_duration_seconds", "operator", "lane")
        self.delivery_latency = self._durations("delivery_latency_seconds", "operator", "lane")
        self.pickup_latency = self._durations("pickup_latency_seconds", "lane")
        self._gauge("build_info", "version").labels(version("predictu-dispatch")).set(1)

    def _gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(f"predictu_dispatch_{name}", _HELP[name], labels, registry=self.registry)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(f"predictu_dispatch_{name}", _HELP[name], labels, registry=self.registry)

    def _counts(self, name: str, *labels: str) -> Counts:
        return Counts(f"predictu_dispatch_{name}", _HELP[name], labels, self.registry)

    def _durations(self, name: str, *labels: str) -> Durations:
        return Durations(f"predictu_dispatch_{name}", _HELP[name], labels, self.registry, buckets_s=_BUCKETS_S)
