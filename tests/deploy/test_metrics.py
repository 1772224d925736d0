"""The metrics are those of the contract and of deploy/metrics.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from predictu_dispatch.core.lifecycle import CallbackState, Cause
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Verdict
from predictu_dispatch.edge.telemetry.families import ProcessStats
from predictu_dispatch.edge.telemetry.observer import Telemetry
from tests.support.metrics_document import DOCUMENT, expected
from tests.support.promql import promtool
from tests.support.telemetry import attempt_of, metric_families, settled

CONTRACT = {
    "attempts_total": {"operator", "method", "verdict"},
    "attempts_failed_total": {"operator", "reason"},
    "callbacks_finished_total": {"operator", "method", "state"},
    "attempt_duration_seconds": {"operator", "lane"},
    "delivery_latency_seconds": {"operator", "lane"},
    "pickup_latency_seconds": {"lane"},
    "backlog": {"operator", "lane", "state"},
    "oldest_due_seconds": {"operator", "lane"},
    "in_flight": {"operator", "lane"},
    "needs_review": {"operator"},
    "unknown_effect": {"operator"},
    "rollbacks_total": {"operator", "cause"},
    "circuit_open": {"operator"},
    "operator_up": {"operator"},
    "leases_lost_total": set[str](),
    "config_reload_failures_total": set[str](),
    "database_up": set[str](),
    "build_info": {"version"},
}
HELP_WORDS_MIN = 5


@pytest.mark.parametrize("name", CONTRACT)
def test_a_metric_of_the_contract_exists_with_its_labels(name: str) -> None:
    assert metric_families()[f"predictu_dispatch_{name}"].labels == CONTRACT[name]


def test_the_document_lists_every_metric_as_it_is() -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == expected(), "run `python -m tests.support.metrics_document`"


def test_help_texts_say_more_than_the_metric_name() -> None:
    ours = {name: one.text for name, one in metric_families().items() if name.startswith("predictu_dispatch_")}
    assert len(ours) > len(CONTRACT)
    for name, text in ours.items():
        assert text.endswith("."), f"{name}: the help text is not a sentence: {text!r}"
        new = set(re.findall(r"[a-z]{3,}", text.lower())) - set(name.split("_"))
        assert len(new) >= HELP_WORDS_MIN, f"{name}: {text!r} only repeats the name"


def test_promtool_accepts_the_metrics(tmp_path: Path) -> None:
    text = "".join(f"# HELP {name} {one.text}\n# TYPE {name} {one.kind}\n" for name, one in metric_families().items())
    result = promtool("check", "metrics", folder=tmp_path, stdin=text)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_a_late_report_counts_neither_a_failure_nor_money() -> None:
    """The attempt was counted when its lease was reaped; the answer that came later is not."""
    telemetry = Telemetry(process_stats=lambda: ProcessStats(in_flight={}, is_database_up=True, is_ready=True))

    def counted(name: str, **labels: str) -> float | None:
        return telemetry.registry.get_sample_value(
            f"predictu_dispatch_{name}_total", {"operator": "op_abc123", **labels}
        )

    delivered = attempt_of(Method.BET_MAKE, Verdict.DELIVERED, None, CallbackState.DELIVERED)
    failed = attempt_of(Method.BET_MAKE, Verdict.RETRY, "timeout", CallbackState.READY)
    unknown = attempt_of(Method.BET_WIN, Verdict.REJECTED, "unknown_status", CallbackState.REJECTED)
    refused = attempt_of(Method.BET_WIN, Verdict.REJECTED, "player_not_found", CallbackState.REJECTED)
    for attempt in (delivered, failed, unknown, refused):
        settled(telemetry, attempt, Cause.LATE)
    assert counted("attempts_failed", reason="timeout") is None
    assert counted("confirmed_amount_subunits", currency="EUR", direction="debit") is None
    for attempt in (delivered, failed, unknown, refused):
        settled(telemetry, attempt)
    assert counted("attempts_failed", reason="timeout") == 1
    assert counted("attempts_failed", reason="unknown_status") == 1
    assert counted("attempts_failed", reason="player_not_found") is None
    assert counted("confirmed_amount_subunits", currency="EUR", direction="debit") == 1050
