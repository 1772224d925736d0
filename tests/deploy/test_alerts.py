"""The alerts of deploy/prometheus and the dashboards of deploy/grafana stand on figures that exist, and say what is so.

What promtool can say is asked of promtool; without it those tests are skipped. The rest is held by reading: names,
runbook, labels.
"""

from __future__ import annotations

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
from predictu_dispatch.core.fleet import OperatorState
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.telemetry.observer import Telemetry
from predictu_dispatch.edge.telemetry.snapshot import ProcessStats

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "predictu-dispatch.rules.yml"
RULES_TEST = RULES.with_name("predictu-dispatch.rules.test.yml")
RUNBOOK = DEPLOY / "runbook.md"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
CONTRACT = (
    *("attempts_total", "callbacks_finished_total", "attempt_duration_seconds", "delivery_latency_seconds"),
    *("pickup_latency_seconds", "backlog", "oldest_due_seconds", "in_flight", "needs_review", "unknown_effect"),
    *("rollbacks_total", "circuit_open", "operator_up", "leases_lost_total", "config_reload_failures_total"),
    *("database_up", "build_info"),
)
"""DESIGN.md 8."""
PROMETHEUS_OWN = {"up", "ALERTS"}
HELP_WORDS_MIN = 5


def families() -> dict[str, tuple[str, str]]:
    """Every metric of a daemon that knows all it can know: name to (type, help)."""
    telemetry = Telemetry(
        own=lambda: ProcessStats(in_flight={("op_a", lane): 0 for lane in Lane}, is_database_up=True, is_ready=True)
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
    telemetry.operators_seen([state])
    telemetry.snapshot.take([], [])
    telemetry.snapshot.refresh()
    text = generate_latest(telemetry.registry).decode()
    types = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))
    helps = dict(re.findall(r"(?m)^# HELP (\S+) (.*)$", text))
    return {name: (kind, helps[name]) for name, kind in types.items()}


def samples() -> set[str]:
    """Every name that a query may ask for."""
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, (kind, _) in families().items() for suffix in suffixes.get(kind, ("",))}


def unknown_names(expression: str) -> set[str]:
    """The metrics of the expression that no daemon has."""
    without_labels = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\b(?:by|on|without)\s*\([^)]*\)", "", expression)
    named = set(re.findall(r"\b(?:predictu_dispatch|process)_\w+|\bup\b|\bALERTS\b", without_labels))
    assert named, f"no metric is recognised in {expression}"
    return named - samples() - PROMETHEUS_OWN


def rules() -> Iterator[tuple[str, str]]:
    """(name, text) of each alert rule, as the file has them."""
    for part in re.split(r"(?m)^      - alert: ", RULES.read_text(encoding="utf-8"))[1:]:
        name, _, text = part.partition("\n")
        yield name, re.split(r"(?m)^  - name: ", text)[0]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each panel that asks something, with a name that finds it."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            if panel["type"] != "row":
                yield f"{file.stem}: {panel['title']}", panel


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression of each dashboard, with Grafana's variables filled in."""
    values = {"$__rate_interval": "5m", "$operator": "op_a"}
    for name, panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in values.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression, f"{name} has a variable that nobody fills: {expression}"
            yield name, expression


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What promtool says. Skips the test, in words, where there is none."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH; on Debian: apt install prometheus")
    return subprocess.run([found, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=150)


@pytest.mark.parametrize("name", CONTRACT)
def test_each_metric_of_the_contract_is_there(name: str) -> None:
    names = families()
    assert f"predictu_dispatch_{name}" in names


def test_each_help_text_says_more_than_the_name() -> None:
    ours = {name: text for name, (_, text) in families().items() if name.startswith("predictu_dispatch_")}
    assert len(ours) > len(CONTRACT)
    for name, text in ours.items():
        assert text.endswith("."), f"{name}: a help text is a sentence, and this one is not: {text!r}"
        new = set(re.findall(r"[a-z]{3,}", text.lower())) - set(name.split("_"))
        assert len(new) >= HELP_WORDS_MIN, f"{name}: {text!r} says nothing that the name does not"


def test_promtool_finds_nothing_to_say_about_the_metrics() -> None:
    text = "".join(f"# HELP {name} {text}\n# TYPE {name} {kind}\n" for name, (kind, text) in families().items())
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH; on Debian: apt install prometheus")
    said = subprocess.run(
        [found, "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_the_rules_are_valid() -> None:
    said = promtool("check", "rules", RULES.name, folder=RULES.parent)
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{len(list(rules()))} rules found" in said.stdout


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    said = promtool("test", "rules", RULES_TEST.name, folder=RULES.parent)
    assert said.returncode == 0, said.stdout + said.stderr


def test_each_alert_has_a_moment_at_which_it_fires_and_one_at_which_it_is_silent() -> None:
    text = RULES_TEST.read_text(encoding="utf-8")
    silent = set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", text))
    fires = set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels: \{\w", text))
    names = {name for name, _ in rules()}
    assert names == silent
    assert names == fires


def test_each_alert_asks_for_figures_that_exist() -> None:
    asked = {
        name: re.search(r"expr: (?:\|\n)?(.*?)\n        (?:for|labels)", text, re.DOTALL) for name, text in rules()
    }
    assert [name for name, found in asked.items() if found is None] == []
    assert {name: names for name, found in asked.items() if found and (names := unknown_names(found[1]))} == {}


def test_a_name_that_no_daemon_has_is_noticed() -> None:
    """Else the test above would not have to fail either."""
    assert unknown_names("max by (operator) (predictu_dispatch_needs_reviews) > 0") == {
        "predictu_dispatch_needs_reviews"
    }


def test_each_alert_has_its_severity_its_summary_and_its_entry_in_the_runbook() -> None:
    runbook = RUNBOOK.read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^### (Predictu\w+)$", runbook)
    assert sorted(entries) == sorted(name for name, _ in rules())
    for name, text in rules():
        assert re.search(r"(?m)^        labels: \{severity: (page|ticket)\}$", text), name
        assert re.search(r"(?m)^          summary: ", text), name
        assert re.search(rf"(?m)^          runbook_url: https://\S+#{name.lower()}$", text), name
        entry = runbook.partition(f"### {name}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
        for part in ("**At stake.**", "**Look.**", "**Do.**", "**Wake.**"):
            assert part in entry, f"the runbook's entry {name} lacks {part}"


def test_the_dashboards_ask_for_figures_that_exist() -> None:
    assert [file.stem for file in DASHBOARDS] == ["fleet", "operator"]
    assert {(name, *names) for name, asked in expressions() if (names := unknown_names(asked))} == set()


def test_every_figure_of_ours_is_on_a_dashboard_or_in_an_alert() -> None:
    """What nobody looks at need not be measured; these few are for looking up."""
    for_looking_up = {
        "predictu_dispatch_build_info",
        "predictu_dispatch_config_reload_failures_total",
    }
    shown = RULES.read_text(encoding="utf-8") + "".join(asked for _, asked in expressions())
    ours = {name for name in families() if name.startswith("predictu_dispatch_")} - for_looking_up
    assert {name for name in ours if not re.search(rf"\b{name}(_bucket)?\b", shown)} == set()


def test_each_expression_of_the_dashboards_is_valid(tmp_path: Path) -> None:
    asked = list(expressions())
    lines = [f"  - {{record: 'panel:{n}', expr: {json.dumps(one)}}}" for n, (_, one) in enumerate(asked)]
    (tmp_path / "panels.yml").write_text("groups:\n- name: panels\n  rules:\n" + "\n".join(lines) + "\n")
    said = promtool("check", "rules", "panels.yml", folder=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{len(asked)} rules found" in said.stdout


def test_each_panel_says_what_it_shows_in_which_unit_from_the_chosen_source() -> None:
    for name, panel in panels():
        assert panel["description"].endswith("."), name
        assert panel["fieldConfig"]["defaults"]["unit"], name
        assert panel["datasource"]["uid"] == "${datasource}", name
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]), name
        if panel["type"] == "stat":
            assert len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1, f"{name} never changes its colour"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_no_two_panels_lie_on_each_other(file: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    board = json.loads(file.read_text(encoding="utf-8"))
    for panel in board["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            assert x < 24, f"{panel['title']} is wider than the screen"
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
