"""The alert rules are valid, use what exists, and lead to the runbook's entry and first command.

Tests that need promtool are skipped if it is not installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from predictu_dispatch.cli import main
from tests.support.promql import faults_of, labels_left, promtool

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "predictu-dispatch.rules.yml"
RULES_TEST = RULES.with_name("predictu-dispatch.rules.test.yml")
RUNBOOK = DEPLOY / "runbook.md"
RUNBOOK_PARTS = ("**Impact.**", "**Check.**", "**Action.**", "**Contact.**", "**Resolved.**")
COMMAND = "Run first: "
PLACES = {"operator": "OPERATOR", "instance": "127.0.0.1:9464"}
"""What the runbook writes for a label."""


def rules() -> Iterator[tuple[str, str]]:
    """(name, text) of each alert rule, in file order."""
    for part in re.split(r"(?m)^      - alert: ", RULES.read_text(encoding="utf-8"))[1:]:
        name, _, text = part.partition("\n")
        yield name, re.split(r"(?m)^  - name: ", text)[0]


def entry_of(runbook: str, name: str) -> str:
    return runbook.partition(f"### {name}\n")[2].partition("\n### ")[0].partition("\n## ")[0]


def expression_of(rule: str) -> str:
    found = re.search(r"expr: (?:\|\n)?(.*?)\n        (?:for|labels)", rule, re.DOTALL)
    assert found, rule
    return found[1]


def test_promtool_accepts_the_rules() -> None:
    result = promtool("check", "rules", RULES.name, folder=RULES.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(list(rules()))} rules found" in result.stdout


def test_promtool_accepts_the_scrape_configuration_and_its_job_is_the_rules_job() -> None:
    example = RULES.with_name("scrape.yml.example")
    result = promtool("check", "config", example.name, folder=RULES.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    jobs = re.findall(r"job_name: (\S+)", example.read_text(encoding="utf-8"))
    assert set(re.findall(r'job="([^"]*)"', RULES.read_text(encoding="utf-8"))) == set(jobs)


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


def test_alerts_use_metrics_and_labels_that_exist() -> None:
    for name, text in rules():
        expression = expression_of(text)
        assert faults_of(expression, text.partition("annotations:")[2]) == [], name


def test_every_summary_names_the_operator_or_the_daemon() -> None:
    for name, text in rules():
        [summary] = re.findall(r"(?m)^          summary: (.*)$", text)
        expression = expression_of(text)
        wanted = {"operator", "instance"} if " by (" in expression else {"instance"}
        for label in wanted & labels_left(expression):
            assert f"$labels.{label}" in summary, name


@pytest.mark.parametrize(
    ("expression", "shown", "fault"),
    [
        ("max by (operator) (predictu_dispatch_needs_reviews) > 0", "", "no metric predictu_dispatch_needs_reviews"),
        ('sum(predictu_dispatch_backlog{method="PING"})', "", "predictu_dispatch_backlog has no label method"),
        ("max by (lane) (predictu_dispatch_paused)", "", "predictu_dispatch_paused has no label lane"),
        ("max by (operator) (predictu_dispatch_paused)", "{{ $labels.instance }}", "the result has no label instance"),
        ("sum(predictu_dispatch_paused)", "{{operator}}", "the result has no label operator"),
        ("predictu_dispatch_ready", "{{instance}}", None),
    ],
)
def test_unknown_metrics_and_labels_are_detected(expression: str, shown: str, fault: str | None) -> None:
    assert faults_of(expression, shown) == ([fault] if fault else [])


def test_every_description_is_the_first_command_of_the_runbooks_entry() -> None:
    runbook = RUNBOOK.read_text(encoding="utf-8")
    for name, text in rules():
        [description] = re.findall(r"(?m)^          description: (.*)$", text)
        unquoted = description[1:-1].replace("''", "'") if description.startswith("'") else description.strip('"')
        assert unquoted.startswith(COMMAND), name
        command = unquoted.removeprefix(COMMAND)
        for label, place in PLACES.items():
            command = command.replace(f"{{{{ $labels.{label} }}}}", place)
        assert "{{" not in command, name
        if command.startswith("predictu-dispatch "):
            assert main.get_command(click.Context(main), command.split()[1]), name
        check = entry_of(runbook, name).partition("**Check.**")[2].partition("**Action.**")[0]
        assert " ".join(command.split()) in " ".join(check.split()), f"{name}: {command}"


def test_every_alert_has_severity_summary_and_runbook_entry() -> None:
    runbook = RUNBOOK.read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^### (Predictu\w+)$", runbook)
    assert sorted(entries) == sorted(name for name, _ in rules())
    for name, text in rules():
        assert re.search(r"(?m)^        labels: \{severity: (page|ticket)\}$", text), name
        assert re.search(r"(?m)^          summary: ", text), name
        assert re.search(rf"(?m)^          runbook_url: https://\S+#{name.lower()}$", text), name
        entry = entry_of(runbook, name)
        for part in RUNBOOK_PARTS:
            assert part in entry, f"the runbook entry {name} lacks {part}"
