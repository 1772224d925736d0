"""The dashboards query what exists, use one colour for one meaning, and are drawn whole."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.dashboard_drawing import drawn
from tests.support.promql import faults_of, promtool
from tests.support.telemetry import metric_families

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "predictu-dispatch.rules.yml"
FILES = sorted((DEPLOY / "grafana").glob("*.json"))
WITHOUT_PANEL = {"predictu_dispatch_build_info", "predictu_dispatch_config_reload_failures_total"}
"""The version, and what config_last_reload_successful shows better."""
GRID_COLUMNS = 24
VALUES = {
    "verdict": ("delivered", "rejected", "retry", "late"),
    "state": ("delivered", "rejected", "exhausted", "cancelled"),
    "lane": ("interactive", "settlement"),
}
GOOD, BAD = {"delivered", "accepted", "up", "ready", "applied"}, {"rejected", "exhausted", "down", "gone", "refused"}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each panel that has queries, with "dashboard: title" as its name."""
    for file in FILES:
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            if panel["type"] != "row":
                yield f"{file.stem}: {panel['title']}", panel


def expressions() -> Iterator[tuple[str, str, str]]:
    """(panel, expression, legend) of each query, with Grafana's variables replaced."""
    values = {"$__rate_interval": "5m", "$operator": "op_a"}
    for name, panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in values.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression, f"{name} has an unknown variable: {expression}"
            yield name, expression, target["legendFormat"]


def colours() -> Iterator[tuple[str, str, str]]:
    """(panel, what a series or a state means, its colour)."""
    for name, panel in panels():
        for override in panel["fieldConfig"]["overrides"]:
            [part] = override["properties"]
            yield name, override["matcher"]["options"], part["value"]["fixedColor"]
        for mapping in panel["fieldConfig"]["defaults"].get("mappings", []):
            for option in mapping["options"].values():
                if "color" in option:
                    yield name, option["text"], option["color"]


def test_dashboards_use_metrics_and_labels_that_exist() -> None:
    assert [file.stem for file in FILES] == ["fleet", "operator"]
    assert {name: found for name, *query in expressions() if (found := faults_of(*query))} == {}


def test_every_metric_is_on_a_dashboard() -> None:
    used = "\n".join(expression for _, expression, _ in expressions())
    ours = {name for name in metric_families() if name.startswith("predictu_dispatch_")} - WITHOUT_PANEL
    assert {name for name in ours if not re.search(rf"\b{name}(_bucket)?\b", used)} == set()


def test_promtool_accepts_the_dashboard_expressions(tmp_path: Path) -> None:
    found = [expression for _, expression, _ in expressions()]
    lines = [f"  - {{record: 'panel:{n}', expr: {json.dumps(expression)}}}" for n, expression in enumerate(found)]
    (tmp_path / "panels.yml").write_text("groups:\n- name: panels\n  rules:\n" + "\n".join(lines) + "\n")
    result = promtool("check", "rules", "panels.yml", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(found)} rules found" in result.stdout


def test_every_panel_has_description_unit_data_source_and_legend() -> None:
    for name, panel in panels():
        assert panel["description"].endswith("."), name
        assert panel["fieldConfig"]["defaults"]["unit"], name
        assert panel["datasource"]["uid"] == "${datasource}", name
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]), name
        if panel["type"] == "stat":
            assert len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1, f"{name} has no threshold"
        else:
            assert panel["options"]["legend"]["showLegend"], name


def test_no_panel_shows_0_for_a_figure_that_is_absent() -> None:
    assert [name for name, expression, _ in expressions() if re.search(r"vector\(|absent\(", expression)] == []


def test_one_meaning_has_one_colour_on_both_dashboards() -> None:
    by_meaning: dict[str, set[str]] = {}
    for _, meaning, colour in colours():
        by_meaning.setdefault(meaning, set()).add(colour)
    # "ready" is a state of callbacks, which is not good or bad, and of daemons, which is good.
    assert by_meaning.pop("ready") == {"green", "yellow"}
    assert {meaning: found for meaning, found in by_meaning.items() if len(found) > 1} == {}
    for meaning, [colour] in by_meaning.items():
        assert (colour == "green") == (meaning in GOOD), meaning
        assert meaning not in BAD or colour.endswith("red"), meaning
    assert by_meaning.keys() | {"ready"} >= GOOD | BAD


def test_series_of_known_values_have_fixed_colours_and_all_others_keep_theirs() -> None:
    for name, panel in panels():
        if panel["type"] != "timeseries":
            continue
        fixed = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        mode = panel["fieldConfig"]["defaults"]["color"]["mode"]
        legends = [target["legendFormat"] for target in panel["targets"]]
        for legend in legends:
            if (found := re.fullmatch(r"\{\{(\w+)\}\}", legend)) and found[1] in VALUES and "backlog" not in name:
                assert set(VALUES[found[1]]) <= fixed, name
        assert mode == "palette-classic-by-name" or fixed, name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_drawing_has_every_legend_whole_and_a_time_axis(file: Path) -> None:
    board = json.loads(file.read_text(encoding="utf-8"))
    names = [f"op_with_a_long_name_{number}" for number in range(10)]
    answers = {panel["id"]: [(name, [(0.0, 1.0), (240.0, 2.0)]) for name in names] for panel in board["panels"]}
    picture = drawn(board, answers, began_s=0.0, ended_s=240.0)
    groups = re.findall(r'<g transform="[^"]*"><rect width="(\d+)" height="(\d+)"(.*?)</g>', picture, re.DOTALL)
    shown = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(groups) == len(shown)
    for panel, (width, height, content) in zip(shown, groups, strict=True):
        if panel["type"] == "stat":
            continue
        assert len(re.findall(r">00:0\d:\d\d<", content)) > 1, f"{panel['title']} has no time axis"
        legend = re.findall(r'<text x="(\d+)" y="(\d+)"[^>]* class="legend">([^<]*)<', content)
        assert panel["type"] != "timeseries" or [name for *_, name in sorted(legend, key=lambda one: one[2])] == names
        for x, y, name in legend:
            assert int(x) + 5 * len(name) <= int(width), f"{panel['title']}: {name} is cut"
            assert 0 < int(y) <= int(height), f"{panel['title']}: {name} is outside"
