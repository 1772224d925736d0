"""A daemon's metrics with every figure present and every counter counted."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from predictu_dispatch.core.breaker import Breaker
from predictu_dispatch.core.callback import Effect, Evidence, Exchange
from predictu_dispatch.core.fleet import FleetFigures, OperatorState, ReconciliationFigures
from predictu_dispatch.core.lifecycle import Attempt, CallbackChange, CallbackState, Cause, Outcome
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.sealing import LastVerification, LogHead, LogHeads
from predictu_dispatch.core.verdict import Judgement, Verdict
from predictu_dispatch.core.witness import WitnessFigures
from predictu_dispatch.edge.config.operator_file import OperatorConfig
from predictu_dispatch.edge.telemetry.families import ProcessStats
from predictu_dispatch.edge.telemetry.observer import Telemetry
from tests.core.test_callback_body import REQUEST_ID, a_callback

DIFFERENCE = {
    "operator_id": "op_abc123",
    "class": "missing_there",
    "currency": "EUR",
    "items": 1,
    "disputed": 1250,
    "open_for_s": 60.0,
}
RUN = {"operator_id": "op_abc123", "is_complete": True, "complete_at_s": 2.0, "covered_until_s": 1.0}


class MetricFamily(NamedTuple):
    """A metric as /metrics shows it; `labels` without the `le` of a histogram."""

    kind: str
    text: str
    labels: frozenset[str]


def attempt_of(method: Method, verdict: Verdict, reason: str | None, state: CallbackState) -> Attempt:
    """Return an attempt that ended so."""
    callback = a_callback(method)
    return Attempt(
        callback=callback,
        instance="host-1",
        finished_at=callback.leased_at,
        exchange=Exchange(Evidence.ANSWERED, 1.0, status=200),
        judgement=Judgement(verdict, reason),
        outcome=Outcome(verdict, state, reason, Effect.UNKNOWN),
        report_id=REQUEST_ID,
    )


def settled(telemetry: Telemetry, attempt: Attempt, cause: Cause = Cause.SETTLED) -> None:
    """Report the attempt as a recorder does after its settle."""
    callback, outcome = attempt.callback, attempt.outcome
    state = outcome.state if cause is Cause.SETTLED else None
    change = CallbackChange(
        callback.operator_id, callback.request_id, callback.method, callback.lane, state, outcome.reason, cause, 1
    )
    telemetry.attempt_settled(attempt, change)


@cache
def metric_families() -> Mapping[str, MetricFamily]:
    """Return every metric by its name."""
    telemetry = Telemetry(
        process_stats=lambda: ProcessStats(
            in_flight={("op_abc123", lane): 0 for lane in Lane},
            is_database_up=True,
            is_ready=True,
            heartbeat_age_s=1.0,
            unsettled_oldest_s={Lane.INTERACTIVE: 0.0},
            unsettled_failing={Lane.INTERACTIVE: 0},
        )
    )
    state = OperatorState(
        operator_id="op_abc123",
        revision=1,
        breaker=Breaker(ever_succeeded=True),
        circuit_age_s=None,
        ping_request_id=None,
        is_paused=False,
        interactive_backoff_s=0.0,
        settlement_backoff_s=0.0,
    )
    settings = OperatorSettings.model_validate(
        {"operator_id": "op_abc123", "callback_url": "https://wallet.example.com/", "signing": {"key_file": "key.pem"}}
    )
    config = OperatorConfig(
        settings=settings,
        file=Path("op_abc123.toml"),
        published_keys=(),
        fingerprint="",
        tls_digest="",
        certificate_ends={"ca": 1.0},
        key_made_at=1.0,
    )
    telemetry.operators_loaded([config])
    telemetry.operators_read([state])
    telemetry.witnesses.witnesses_read([WitnessFigures("op_abc123", "witness-1", 0.0, is_refused=False)])
    verification = LastVerification("op_abc123", 0.0, 0)
    telemetry.heads_read(LogHeads(0.0, (LogHead("op_abc123", 1, "", ()),), (verification,)))
    telemetry.figures_read(FleetFigures(backlog=(), review=(), age_s=0.0, notification_queue_usage=0.0))
    telemetry.reconciliation_read(ReconciliationFigures((DIFFERENCE,), (RUN,), age_s=0.0))
    telemetry.gauges.clock_read(0.0)
    telemetry.connections.labels("op_abc123").inc()
    telemetry.chore_failed("heartbeat", OSError())
    telemetry.attempt_began(a_callback(Method.BET_ROLLBACK))
    settled(telemetry, attempt_of(Method.BET_MAKE, Verdict.DELIVERED, None, CallbackState.DELIVERED))
    settled(telemetry, attempt_of(Method.BET_WIN, Verdict.RETRY, "misconfigured", CallbackState.READY))
    telemetry.gauges.refresh()
    families = {}
    for family in text_string_to_metric_families(generate_latest(telemetry.registry).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        assert family.samples, f"{name} has no sample"
        families[name] = MetricFamily(family.type, family.documentation, labels)
    return families


def sample_labels() -> Mapping[str, frozenset[str]]:
    """Return the labels of every name that a query can use, with those that Prometheus adds."""
    found: dict[str, frozenset[str]] = {"up": frozenset({"instance", "job"})}
    for name, family in metric_families().items():
        labels = family.labels | {"instance", "job"}
        if family.kind == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    return found
