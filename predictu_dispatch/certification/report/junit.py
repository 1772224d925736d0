"""Makes junit.xml, which CI servers read: one suite for each group, one case for each scenario."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from predictu_dispatch.certification.report.contents import Report, plain, rfc3339
from predictu_dispatch.certification.report.words import GROUPS
from predictu_dispatch.certification.result import SUITE_VERSION, ScenarioResult
from predictu_dispatch.certification.run_verdict import FAILING, why_not_passed
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.core.printable import printable_lines

_RUN: Final = "run"
"""The suite with one case: a run may fail although no scenario does."""


def junit(report: Report) -> bytes:
    """Return the file. A failure that is expected is skipped; a warning is output."""
    root = ET.Element("testsuites", name="predictu certification")
    ordered = sorted(report.result.results, key=lambda each: list(GROUPS).index(each.scenario.group))
    for group, results in groupby(ordered, key=lambda each: each.scenario.group):
        _suite(root, report, group.value, [_case(report, each) for each in results])
    _suite(root, report, _RUN, [_run_case(report)])
    # Jenkins has no `skipped` here.
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    duration_s = (report.result.ended_at - report.result.started_at).total_seconds()
    root.set("time", f"{duration_s:.3f}")
    ET.indent(root, " ")
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _suite(root: ET.Element, report: Report, name: str, cases: list[ET.Element]) -> None:
    result = report.result
    suite = ET.SubElement(
        root,
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors="0",
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{sum(float(case.get('time', '0')) for case in cases):.3f}",
        # The usual readers want no zone.
        timestamp=rfc3339(result.started_at).removesuffix("Z"),
    )
    properties = ET.SubElement(suite, "properties")
    for key, value in (
        ("run", result.run),
        ("operator", result.operator_id),
        ("url", result.url),
        ("suite_version", str(SUITE_VERSION)),
    ):
        ET.SubElement(properties, "property", name=key, value=_xml(value))
    suite.extend(cases)


def _case(report: Report, result: ScenarioResult) -> ET.Element:
    scenario, known, problem = result.scenario, report.known(result), report.problem(result)
    case = ET.Element(
        "testcase", classname=f"certification.{scenario.group}", name=scenario.id, time=f"{result.duration_s:.3f}"
    )
    text = _xml("\n".join(_lines(report, result)))
    if known:
        why = f"expected until {known.until.isoformat()}: {known.reason}"
        ET.SubElement(case, "skipped", message=_xml(why))
        ET.SubElement(case, "system-out").text = text
    elif problem:
        message = f"expected failure: {problem}"
        ET.SubElement(case, "failure", message=_xml(message), type="EXPECTED").text = text
    elif result.verdict in FAILING:
        worst = next((each for each in result.findings if each.verdict is result.verdict), None)
        message = f"{scenario.title}: {worst.observed}" if worst else scenario.title
        ET.SubElement(case, "failure", message=_xml(message), type=result.verdict.value).text = text
    elif result.verdict is ScenarioVerdict.SKIPPED:
        ET.SubElement(case, "skipped", message=_xml(result.reason))
    elif result.verdict is ScenarioVerdict.WARNING:
        ET.SubElement(case, "system-out").text = text
    return case


def _lines(report: Report, result: ScenarioResult) -> Iterator[str]:
    yield f"{result.verdict}: {result.scenario.title}"
    if result.cost:
        yield f"What it costs: {result.cost}"
    for finding in result.findings:
        yield f"Expected: {finding.expected}"
        yield f"Observed: {finding.observed}"
        if finding.advice:
            yield f"What to do: {finding.advice}"
    if result.fix:
        yield f"What to do: {result.fix}"
    yield f"Play it again: {report.repeat_line(result.scenario.id)}"


def _run_case(report: Report) -> ET.Element:
    case = ET.Element("testcase", classname="certification.run", name="run-passed", time="0.000")
    reasons = why_not_passed(report.result, report.expected)
    if reasons:
        ET.SubElement(case, "failure", message=_xml(reasons[0]), type="RUN").text = _xml("\n".join(reasons))
    return case


def _xml(text: str) -> str:
    r"""Escape what XML 1.0 does not allow, and what would not be seen (\x1b)."""
    return printable_lines(plain(text))
