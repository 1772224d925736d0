"""Makes index.html: one file without scripts and without anything that is loaded. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from predictu_dispatch.certification.report.contents import Report, rfc3339
from predictu_dispatch.certification.report.markup import Html, joined, tag
from predictu_dispatch.certification.report.page_scenario import badge, scenario_article, scenario_details
from predictu_dispatch.certification.report.words import GROUPS, HEADINGS, SIGNS
from predictu_dispatch.certification.result import SUITE_VERSION, ScenarioResult, digest_of
from predictu_dispatch.certification.run_verdict import FAILING, is_expected, why_not_passed
from predictu_dispatch.certification.scenario import ScenarioVerdict

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_READ: Final = frozenset({ScenarioVerdict.FAILED, ScenarioVerdict.REVIEW, ScenarioVerdict.WARNING})
"""The verdicts of scenarios that are shown in full."""


def page(report: Report, style: str, certificate: str | None = None) -> str:
    """Return the page. `style` is the content of page.css, `certificate` the signed note."""
    result = report.result
    title = f"Certification of {result.operator_id}"
    head = joined(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        Html('<meta name="referrer" content="no-referrer">'),
        tag("title", f"{title}, {result.run}"),
        Html(f"<style>{style}</style>"),
    )
    body = joined(
        tag("header", tag("h1", title), *_verdict(report, certificate)),
        tag("main", *_main(report, certificate)),
        tag("footer", f"Made by {report.made_by}. The same, for programs: report.json and junit.xml beside this page."),
    )
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def _verdict(report: Report, certificate: str | None) -> Iterator[Html]:
    result, reasons = report.result, why_not_passed(report.result, report.expected)
    sentence = _sentence(report, reasons)
    yield tag("p", sentence, class_=f"verdict {'bad' if reasons else 'good'}")
    if reasons:
        yield tag("ul", *(tag("li", reason) for reason in reasons), class_="reasons")
    steps = list(_next_steps(report, certificate, is_passed=not reasons))
    yield tag("h2", "What to do next")
    yield tag("ol", *(tag("li", step) for step in steps), class_="next")
    counts = [(verdict, result.count(verdict)) for verdict in reversed(ScenarioVerdict)]
    yield tag("p", *(tag("span", badge(verdict), f" {count} ") for verdict, count in counts if count), class_="counts")


def _sentence(report: Report, reasons: tuple[str, ...]) -> str:
    result = report.result
    of = _count(result.played, "scenario")
    if not reasons:
        known = sum(is_expected(each, report.expected) for each in result.results)
        return f"Passed: {of} played{f', {known} of them failed as expected' if known else ', none failed'}."
    if result.stopped:
        return f"Not passed: the run was stopped after {of}."
    if not result.played:
        return "Not passed: no scenario was played."
    parts = [
        f"{count} {verb}"
        for verdict, verb in ((ScenarioVerdict.FAILED, "failed"), (ScenarioVerdict.REVIEW, "must be reviewed"))
        if (count := sum(each.verdict is verdict and not is_expected(each, report.expected) for each in result.results))
    ]
    return f"Not passed: of {of}, {' and '.join(parts)}." if parts else f"Not passed, although none of {of} failed."


def _next_steps(report: Report, certificate: str | None, *, is_passed: bool) -> Iterator[str]:
    result = report.result
    failing = [each for each in result.results if each.verdict in FAILING and not is_expected(each, report.expected)]
    if result.reversal.unresolved and report.clean_line:
        yield joined("When your operator answers again, undo what is left: ", tag("code", report.clean_line))
    if (result.stopped or not result.played) and not failing:
        yield "Remove the cause, then start the run again."
    if failing:
        first = failing[0].scenario
        yield joined(
            "Begin with ",
            tag("a", first.id, href=f"#{first.id}"),
            ": later failures are often its consequence. Each one below shows what was sent, answered and expected.",
        )
        yield "Correct it, play it again with the line below it, then play the whole suite."
    if any(each.net for each in result.reversal.players):
        yield "Compare the money below with your own books: your wallet booked the difference."
    if any(known.problem for known in report.expected):
        yield "Correct the file of --expect."
    if result.count(ScenarioVerdict.WARNING):
        yield "Read the warnings. They do not fail the run."
    if not is_passed:
        return
    if certificate:
        yield "Keep certificate.note together with report.json, whose SHA-256 it names."
    elif not result.is_whole_suite:
        yield "Play the whole suite, without --only."
    else:
        yield "There is no certificate: the run had no operator's file, or no key for certificates."
        yield "Run it again after each change of your wallet, for example in your CI."


def _main(report: Report, certificate: str | None) -> Iterator[Html]:
    result = report.result
    yield tag("section", tag("h2", "All scenarios"), *_overview(report))
    by_verdict = {verdict: [each for each in result.results if each.verdict is verdict] for verdict in HEADINGS}
    for verdict in HEADINGS:
        if verdict in _READ:
            yield from _section(report, verdict, by_verdict[verdict])
    yield tag("section", tag("h2", "The players' money"), *_money(report))
    if certificate:
        yield tag("section", tag("h2", "Certificate"), tag("pre", *_note(certificate)))
    for verdict in HEADINGS:
        if verdict not in _READ:
            yield from _section(report, verdict, by_verdict[verdict])
    yield tag("section", tag("h2", "About this run"), *_about(report))


def _note(certificate: str) -> Iterator[str]:
    for line in certificate.splitlines():
        yield line
        yield Html("\n")


def _overview(report: Report) -> Iterator[Html]:
    if not report.result.results:
        yield tag("p", "No scenario was played.")
        return
    ordered = sorted(report.result.results, key=lambda each: list(GROUPS).index(each.scenario.group))
    rows = []
    for group, results in groupby(ordered, key=lambda each: each.scenario.group):
        chips = joined(*(_chip(report, each) for each in results))
        rows.append(tag("tr", tag("th", GROUPS[group], scope="row"), tag("td", chips)))
    yield tag("table", tag("tbody", *rows), class_="overview")


def _chip(report: Report, result: ScenarioResult) -> Html:
    short = result.scenario.id.removeprefix(f"{result.scenario.group}-")
    kind = f"chip {result.verdict.lower()}{' expected' if is_expected(result, report.expected) else ''}"
    label = f"{result.verdict}: {result.scenario.title}"
    return tag(
        "a",
        tag("span", SIGNS[result.verdict], aria_hidden="true"),
        f" {short}",
        href=f"#{result.scenario.id}",
        class_=kind,
        title=label,
    )


def _section(report: Report, verdict: ScenarioVerdict, results: list[ScenarioResult]) -> Iterator[Html]:
    if not results:
        return
    heading, explanation = HEADINGS[verdict]
    show = scenario_article if verdict in _READ else scenario_details
    yield tag(
        "section",
        tag("h2", f"{heading} ({len(results)})"),
        tag("p", explanation, class_="explanation"),
        *(show(report, each) for each in results),
    )


def _money(report: Report) -> Iterator[Html]:
    reversal = report.result.reversal
    yield tag(
        "p",
        f"Undone: {_count(reversal.rolled_back, 'bet')} rolled back, {_count(reversal.compensated, 'bet')} placed and"
        " ended to undo wins and losses.",
    )
    head = tag("tr", *(tag("th", name, scope="col") for name in ("Player", "Before", "After", "Net effect")))
    rows = [
        tag(
            "tr",
            tag("td", tag("code", each.player_id)),
            tag("td", report.money(each.before)),
            tag("td", report.money(each.after)),
            tag(
                "td",
                "unknown" if each.net is None else report.change(each.net),
                class_="net bad" if each.net != 0 else "net",
            ),
        )
        for each in reversal.players
    ]
    if rows:
        yield tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="money"), class_="wide")
    if reversal.unresolved:
        yield tag("p", "Not undone:")
        yield tag("ul", *(tag("li", sentence) for sentence in reversal.unresolved))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _about(report: Report) -> Iterator[Html]:
    result = report.result
    digest = digest_of([each.scenario for each in result.results])
    suite = f"version {SUITE_VERSION}, {len(result.results)} scenarios, SHA-256 {digest}"
    rows = [
        ("Run", result.run),
        ("Operator", result.operator_id),
        ("URL", result.url),
        ("Key", f"{result.kid}, {result.algorithm}"),
        ("Amounts", f"{result.amount_format}, {result.currency} with {result.digits} minor digits"),
        ("Players", ", ".join(result.players)),
        ("Started", rfc3339(result.started_at)),
        ("Ended", rfc3339(result.ended_at)),
        ("Requests", str(result.requests_sent)),
        ("Suite", suite if result.is_whole_suite else f"{suite}; a part, chosen by --only"),
    ]
    yield tag("dl", *(joined(tag("dt", name), tag("dd", text)) for name, text in rows), class_="about")
    if report.notes:
        yield tag("ul", *(tag("li", note) for note in report.notes))
    if report.expected:
        yield tag("p", "Expected failures:")
        lines = [f"{known.scenario} until {known.until.isoformat()}: {known.reason}" for known in report.expected]
        yield tag("ul", *(tag("li", line) for line in lines))
    yield tag(
        "p",
        "Bytes are shown as they were on the wire. A control or invisible character is shown as its escape, such as"
        " \\x1b. The signature of a token is replaced by asterisks.",
    )
