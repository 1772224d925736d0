"""What an expression of PromQL names: metrics and labels, against those that a daemon exports."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.telemetry import sample_labels

_NAME = r"\b(?:(?:predictu_dispatch|process)_\w+|up|ALERTS)\b"
_GROUPING = re.compile(r"\b(by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")


def faults_of(expression: str, shown: str = "") -> list[str]:
    """Return the metrics and labels that do not exist; `shown` is a legend or an annotation."""
    known = sample_labels()
    text = re.sub(r"'[^']*'", "", expression)
    names = set(re.findall(_NAME, _without_matchers(_GROUPING.sub("", text))))
    assert names, f"no metric found in {expression}"
    if unknown := names - known.keys():
        return [f"no metric {name}" for name in sorted(unknown)]
    faults = []
    for name, matchers in re.findall(rf"({_NAME})\{{([^}}]*)\}}", text):
        used = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", matchers))
        faults += [f"{name} has no label {label}" for label in sorted(used - known[name])]
    for labels, inside in _groupings(text):
        for name in re.findall(_NAME, _without_matchers(inside)):
            faults += [f"{name} has no label {label}" for label in sorted(labels - known[name])]
    left = labels_left(expression)
    used = {one or other for one, other in re.findall(r"\{\{(\w+)\}\}|\$labels\.(\w+)", shown)}
    return faults + [f"the result has no label {label}" for label in sorted(used - left)]


def _without_matchers(text: str) -> str:
    return re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", text)


def _groupings(text: str) -> Iterator[tuple[set[str], str]]:
    """Yield the labels of each `by (…)` and what it aggregates; the whole text for `on (…)`."""
    for match in _GROUPING.finditer(text):
        labels = set(re.findall(r"\w+", match[2]))
        if match[1] == "by":
            yield labels, _parenthesised(text[match.end() :])


def _parenthesised(text: str) -> str:
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character == ")":
            return text[: index + 1]
    raise AssertionError(f"unbalanced: {text}")


def labels_left(expression: str) -> set[str]:
    """Return the labels of the result, as far as its groupings tell."""
    text = re.sub(r"'[^']*'", "", expression)
    if by := [set(re.findall(r"\w+", match[2])) for match in _GROUPING.finditer(text) if match[1] == "by"]:
        return set.union(*by)
    if re.search(r"\b(?:sum|max|min|count|avg|absent)\s*\(", text):
        return set()
    names = re.findall(_NAME, _without_matchers(text))
    return set().union(*(sample_labels()[name] for name in names))


def promtool(*arguments: str, folder: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool in `folder`; skip the test if promtool is not installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not on PATH; on Debian: apt install prometheus")
    return subprocess.run(
        [program, *arguments], cwd=folder, input=stdin, capture_output=True, text=True, check=False, timeout=150
    )
