"""The alert rules, the runbook and the dashboards in deploy/ are valid and use metrics that exist.

Tests that need promtool are skipped if it is not installed.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from predictu_dispatch.core.breaker import Breaker
from predictu_dispatch.core.fleet import FleetFigures, OperatorState
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.telemetry.gauges import ProcessStats
from predictu_dispatch.edge.telemetry.observer import Telemetry

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "predictu-dispatch.rules.yml"
RULES_TEST = RULES.with_name("predictu-dispatch.rules.test.yml")
RUNBOOK = DEPLOY / "runbook.md"
RUNBOOK_PARTS = ("**Impact.**", "**Check.**", "**Action.**", "**Contact.**", "**Resolved.**")
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
CONTRACT_METRICS = (
    *("attempts_total", "callbacks_finished_total", "attempt_duration_seconds", "delivery_latency_seconds"),
    *("pickup_latency_seconds", "backlog", "oldest_due_seconds", "in_flight", "needs_review", "unknown_effect"),
    *("rollbacks_total", "circuit_open", "operator_up", "leases_lost_total", "config_reload_failures_total"),
    *("database_up", "build_info"),
)
PROMETHEUS_METRICS = {"up", "ALERTS"}
METRICS_WITHOUT_PANEL = {"predictu_dispatch_build_info", "predictu_dispatch_config_reload_failures_total"}
HELP_WORDS_MIN = 5
GRID_COLUMNS = 24


def metric_families() -> dict[str, tuple[str, str]]:
    """Every metric of a daemon whose figures are all present: name to (type, help)."""
    telemetry = Telemetry(
        process_stats=lambda: ProcessStats(
            in_flight={("op_a", lane): 0 for lane in Lane},
            is_database_up=True,
            is_ready=True,
            unsettled_oldest_s={Lane.INTERACTIVE: 0.0},
            unsettled_failing={Lane.INTERACTIVE: 0},
        )
    )
    state = OperatorState(
        operator_id="op_a",
        revision=1,
        breaker=Breaker(),
        circuit_age_s=None,
        ping_request_id=None,
        is_paused=False,
        interactive_backoff_s=0.0,
        settlement_backoff_s=0.0,
    )
    telemetry.operators_read([state])
    telemetry.figures_read(FleetFigures(backlog=(), review=(), age_s=0.0, notification_queue_usage=0.0))
    telemetry.gauges.clock_read(0.0)
    telemetry.gauges.refresh()
    text = generate_latest(telemetry.registry).decode()
    types = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))
    helps = dict(re.findall(r"(?m)^# HELP (\S+) (.*)$", text))
    return {name: (kind, helps[name]) for name, kind in types.items()}


def sample_names() -> set[str]:
    """Every metric name that a query can use."""
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, (kind, _) in metric_families().items() for suffix in suffixes.get(kind, ("",))}


def unknown_names(expression: str) -> set[str]:
    """The metrics of the expression that no daemon exports."""
    without_labels = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\b(?:by|on|without)\s*\([^)]*\)", "", expression)
    names = set(re.findall(r"\b(?:predictu_dispatch|process)_\w+|\bup\b|\bALERTS\b", without_labels))
    assert names, f"no metric found in {expression}"
    return names - sample_names() - PROMETHEUS_METRICS


def rules() -> Iterator[tuple[str, str]]:
    """(name, text) of each alert rule, in file order."""
    for part in re.split(r"(?m)^      - alert: ", RULES.read_text(encoding="utf-8"))[1:]:
        name, _, text = part.partition("\n")
        yield name, re.split(r"(?m)^  - name: ", text)[0]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each panel that has queries, with "dashboard: title" as its name."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            if panel["type"] != "row":
                yield f"{file.stem}: {panel['title']}", panel


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression of each dashboard, with Grafana's variables replaced."""
    values = {"$__rate_interval": "5m", "$operator": "op_a"}
    for name, panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in values.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression, f"{name} has an unknown variable: {expression}"
            yield name, expression


def promtool(*arguments: str, folder: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool in `folder`; skip the test if promtool is not installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not on PATH; on Debian: apt install prometheus")
    return subprocess.run(
        [program, *arguments], cwd=folder, input=stdin, capture_output=True, text=True, check=False, timeout=150
    )


@pytest.mark.parametrize("name", CONTRACT_METRICS)
def test_contract_metric_exists(name: str) -> None:
    assert f"predictu_dispatch_{name}" in metric_families()


def test_help_texts_say_more_than_the_metric_name() -> None:
    ours = {name: text for name, (_, text) in metric_families().items() if name.startswith("predictu_dispatch_")}
    assert len(ours) > len(CONTRACT_METRICS)
    for name, text in ours.items():
        assert text.endswith("."), f"{name}: the help text is not a sentence: {text!r}"
        new = set(re.findall(r"[a-z]{3,}", text.lower())) - set(name.split("_"))
        assert len(new) >= HELP_WORDS_MIN, f"{name}: {text!r} only repeats the name"


def test_promtool_accepts_the_metrics(tmp_path: Path) -> None:
    text = "".join(f"# HELP {name} {text}\n# TYPE {name} {kind}\n" for name, (kind, text) in metric_families().items())
    result = promtool("check", "metrics", folder=tmp_path, stdin=text)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_promtool_accepts_the_rules() -> None:
    result = promtool("check", "rules", RULES.name, folder=RULES.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(list(rules()))} rules found" in result.stdout


def test_alerts_fire_at_their_threshold_and_not_before() -> None:
    result = promtool("test", "rules", RULES_TEST.name, folder=RULES.parent)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_is_tested_firing_and_silent() -> None:
    text = RULES_TEST.read_text(encoding="utf-8")
    silent = set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", text))
    fires = set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels: \{\w", text))
    names = {name for name, _ in rules()}
    assert names == silent
    assert names == fires


def test_alerts_use_existing_metrics() -> None:
    for name, text in rules():
        expression = re.search(r"expr: (?:\|\n)?(.*?)\n        (?:for|labels)", text, re.DOTALL)
        assert expression, name
        assert unknown_names(expression[1]) == set(), name


def test_unknown_metric_names_are_detected() -> None:
    expression = "max by (operator) (predictu_dispatch_needs_reviews) > 0"
    assert unknown_names(expression) == {"predictu_dispatch_needs_reviews"}


def test_every_alert_has_severity_summary_and_runbook_entry() -> None:
    runbook = RUNBOOK.read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^### (Predictu\w+)$", runbook)
    assert sorted(entries) == sorted(name for name, _ in rules())
    for name, text in rules():
        assert re.search(r"(?m)^        labels: \{severity: (page|ticket)\}$", text), name
        assert re.search(r"(?m)^          summary: ", text), name
        assert re.search(rf"(?m)^          runbook_url: https://\S+#{name.lower()}$", text), name
        entry = runbook.partition(f"### {name}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
        for part in RUNBOOK_PARTS:
            assert part in entry, f"the runbook entry {name} lacks {part}"


def test_dashboards_use_existing_metrics() -> None:
    assert [file.stem for file in DASHBOARDS] == ["fleet", "operator"]
    for name, expression in expressions():
        assert unknown_names(expression) == set(), name


def test_every_metric_is_on_a_dashboard_or_in_an_alert() -> None:
    used = RULES.read_text(encoding="utf-8") + "".join(expression for _, expression in expressions())
    ours = {name for name in metric_families() if name.startswith("predictu_dispatch_")} - METRICS_WITHOUT_PANEL
    assert {name for name in ours if not re.search(rf"\b{name}(_bucket)?\b", used)} == set()


def test_promtool_accepts_the_dashboard_expressions(tmp_path: Path) -> None:
    found = [expression for _, expression in expressions()]
    lines = [f"  - {{record: 'panel:{n}', expr: {json.dumps(expression)}}}" for n, expression in enumerate(found)]
    (tmp_path / "panels.yml").write_text("groups:\n- name: panels\n  rules:\n" + "\n".join(lines) + "\n")
    result = promtool("check", "rules", "panels.yml", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(found)} rules found" in result.stdout


def test_every_panel_has_description_unit_and_data_source() -> None:
    for name, panel in panels():
        assert panel["description"].endswith("."), name
        assert panel["fieldConfig"]["defaults"]["unit"], name
        assert panel["datasource"]["uid"] == "${datasource}", name
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]), name
        if panel["type"] == "stat":
            assert len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1, f"{name} has no threshold"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_panels_do_not_overlap(file: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    board = json.loads(file.read_text(encoding="utf-8"))
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_COLUMNS, f"{panel['title']} is too wide"
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, f"{panel['title']} overlaps {taken[cell]}"
            taken[cell] = panel["title"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
