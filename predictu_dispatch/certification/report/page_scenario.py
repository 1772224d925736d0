"""One scenario in the page: findings, balances, requests and the line to repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from predictu_dispatch.certification.observation import Observed, Sent
from predictu_dispatch.certification.report.contents import Report, rfc3339, summary_of
from predictu_dispatch.certification.report.markup import Html, joined, tag
from predictu_dispatch.certification.report.page_request import request_details
from predictu_dispatch.certification.report.words import OUTCOMES, SIGNS
from predictu_dispatch.certification.result import ScenarioResult
from predictu_dispatch.certification.scenario import Finding, ScenarioVerdict
from predictu_dispatch.certification.steps import BEFORE, RESUMED

_SHOWN_MAX = 2
"""How many of the requests that show a fault are open."""


def scenario_article(report: Report, result: ScenarioResult) -> Html:
    """Return a scenario that is read: it failed, or it has a warning."""
    heading = tag("h3", badge(result.verdict), " ", result.scenario.title, " ", tag("code", result.scenario.id))
    return tag(
        "article",
        heading,
        *_body(report, result),
        id=result.scenario.id,
        class_=result.verdict.lower(),
    )


def scenario_details(report: Report, result: ScenarioResult) -> Html:
    """Return a scenario that is closed: it passed or was skipped."""
    reason = [tag("span", result.reason, class_="reason")] if result.reason else []
    summary = tag(
        "summary", badge(result.verdict), " ", result.scenario.title, " ", tag("code", result.scenario.id), *reason
    )
    return tag(
        "details",
        summary,
        tag("div", *_body(report, result), class_="inside"),
        id=result.scenario.id,
        class_=f"scenario {result.verdict.lower()}",
    )


def badge(verdict: ScenarioVerdict) -> Html:
    """Return the verdict as a sign and a word."""
    return tag("span", f"{SIGNS[verdict]} {verdict.value}", class_=f"badge {verdict.lower()}")


def _body(report: Report, result: ScenarioResult) -> Iterator[Html]:
    known, problem = report.known(result), report.problem(result)
    if known:
        yield tag("p", f"Expected until {known.until.isoformat()}: {known.reason}", class_="known")
    if problem:
        yield tag("p", f"Expected failure: {problem}", class_="known problem")
    if result.cost:
        yield tag("p", tag("b", "What it costs. "), result.cost, class_="why")
    for finding in result.findings:
        yield _finding(finding, result.verdict)
    if result.fix:
        yield tag("p", tag("b", "What to do. "), result.fix)
    if not result.findings and result.scenario.expectations:
        yield tag("ul", *(tag("li", each.text) for each in result.scenario.expectations), class_="expectations")
    if result.observed is not None:
        yield from _observed(report, result, result.observed)
    yield tag("h4", "Play it again")
    yield tag("pre", report.repeat_line(result.scenario.id), class_="line")


def _finding(finding: Finding, verdict: ScenarioVerdict) -> Html:
    rows = [("Expected", finding.expected), ("Observed", finding.observed), ("What to do", finding.advice)]
    shown = [joined(tag("dt", name), tag("dd", text)) for name, text in rows if text]
    if finding.verdict is not verdict:
        shown.insert(0, joined(tag("dt", "Verdict"), tag("dd", badge(finding.verdict))))
    return tag("dl", *shown, class_=f"finding {finding.verdict.lower()}")


def _observed(report: Report, result: ScenarioResult, seen: Observed) -> Iterator[Html]:
    yield from _balances(report, seen)
    if seen.tls:
        ends = seen.tls.certificate_ends_at
        text = f"{seen.tls.version}; the certificate ends at {rfc3339(ends)}." if ends else seen.tls.version
        yield tag("p", f"TLS handshake: {seen.tls.fault or text}")
    if seen.ledger:
        yield tag("p", f"Ledger: {seen.ledger.fault or f'{len(seen.ledger.rows)} bookings of this run'}.")
    about = [name for finding in result.findings for name in finding.about]
    # Those that show the fault are open, so that they are read first and printed.
    shown = about[:_SHOWN_MAX]
    if seen.sent:
        yield tag("h4", "Sent and answered")
        for sent in _in_order(seen.sent.values()):
            yield request_details(report, sent, result.started_at, is_shown=sent.name in shown)
    for name, batch in seen.batches.items():
        summary = summary_of(batch, about)
        outcomes = ", ".join(f"{count} {OUTCOMES[outcome]}" for outcome, count in summary.outcomes.items())
        yield tag("h4", f"Batch: {name}")
        total = f"{summary.count} requests, {report.money(summary.amount)} in all: {outcomes or 'none'}."
        yield tag("p", f"{total} The slowest took {summary.slowest_ms:.0f} ms. Examples:")
        for sent in summary.examples:
            yield request_details(report, sent, result.started_at, is_shown=sent.name in shown)
    if seen.balance_reads:
        reads = [request_details(report, sent, result.started_at) for sent in _in_order(seen.balance_reads)]
        yield tag("details", tag("summary", f"Balance inquiries ({len(reads)})"), *reads, class_="reads")


def _in_order(requests: Iterable[Sent]) -> list[Sent]:
    return sorted(requests, key=lambda sent: sent.started_at)


def _balances(report: Report, seen: Observed) -> Iterator[Html]:
    if not any(seen.balances.values()):
        return
    yield tag("h4", "Balances")
    for index in sorted({index for reading in seen.balances.values() for index in reading}):
        parts, base = [], None
        for name, reading in seen.balances.items():
            if index not in reading:
                continue
            balance = reading[index]
            is_base = name in (BEFORE, RESUMED)
            change = "" if is_base or balance is None or base is None else f" ({report.change(balance - base)})"
            # Other scenarios are played during a pause, so a reading before it is no base.
            base = balance if is_base else base
            shown = "after the pause" if name == RESUMED else name
            parts.append(f"{shown} {report.money(balance)}{change}")
        yield tag("p", tag("code", seen.player_ids[index]), ": ", ", ".join(parts))
