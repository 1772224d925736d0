"""What `certify` prints: a line for each scenario, the summary, and the result of --clean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from predictu_dispatch.certification.observation import money
from predictu_dispatch.certification.result import PlayerMoney, Reversal, RunResult, ScenarioResult
from predictu_dispatch.certification.run_verdict import FAILING, UNRESOLVED_SHOWN_MAX, ExpectedFailure, is_expected
from predictu_dispatch.certification.scenario import Finding, Group, Scenario, ScenarioVerdict
from predictu_dispatch.commands.certify.targets import Chosen
from predictu_dispatch.commands.output import Styled, count, joined, print_line, print_wrapped, styled, wrapped

COLOURS: Final = {
    ScenarioVerdict.PASSED: "green",
    ScenarioVerdict.WARNING: "yellow",
    ScenarioVerdict.REVIEW: "yellow",
    ScenarioVerdict.FAILED: "red",
}
_ID_COLUMNS: Final = 42
_FAILURES_MAX: Final = 10
"""How many failures are printed in full."""
_INDENT: Final = "  "
_NAMES: Final = {
    ScenarioVerdict.PASSED: "passed",
    ScenarioVerdict.FAILED: "failed",
    ScenarioVerdict.REVIEW: "to review",
    ScenarioVerdict.WARNING: "with a warning",
    ScenarioVerdict.SKIPPED: "skipped",
}


class Progress:
    """The lines of scenarios that have ended; those that are skipped for one reason are counted."""

    def __init__(self) -> None:
        self._reason = ""
        self._more = 0

    def lines(self, result: ScenarioResult) -> Iterator[Styled]:
        """Return what to print when this scenario has ended."""
        if result.verdict is ScenarioVerdict.SKIPPED and result.reason == self._reason:
            self._more += 1
            return
        yield from self.rest()
        if result.verdict is ScenarioVerdict.SKIPPED:
            self._reason = result.reason
            text = f"{result.verdict:<7}  {result.scenario.id}: {result.reason}"
            yield from map(styled, wrapped(text, hanging=" " * 9))
        else:
            verdict = styled(f"{result.verdict:<7}", colour=COLOURS.get(result.verdict), bold=result.verdict in FAILING)
            yield joined(verdict, f"  {result.scenario.id:<{_ID_COLUMNS}} {result.duration_s:6.1f} s")

    def rest(self) -> Iterator[Styled]:
        """Return what is left to print when another line comes, or the run has ended."""
        if self._more:
            yield styled(f"{ScenarioVerdict.SKIPPED:<7}  {self._more} more for the same reason")
        self._reason, self._more = "", 0


def print_summary(
    result: RunResult,
    expected: Sequence[ExpectedFailure],
    reasons: Sequence[str],
    *,
    repeat_line: Callable[[str], str],
) -> None:
    """Print what was found, what it costs, what to do, and what the run left at each player."""
    print_line()
    failing = [one for one in result.results if one.verdict in FAILING]
    for one in failing[:_FAILURES_MAX]:
        _print_failure(one, expected, repeat_line(one.scenario.id))
    if more := failing[_FAILURES_MAX:]:
        for one in more:
            _print_title(one)
        print_wrapped(
            f"{count(len(more), 'failure')} are printed without details: correct those above first, because later"
            " failures are often their consequences. index.html has all."
        )
        print_line()
    for one in result.results:
        if one.verdict is ScenarioVerdict.WARNING:
            _print_title(one)
            _print_findings(one)
            _print_field("do", one.fix)
            print_line()
    # `reasons` has what is not undone.
    _print_reversal(replace(result.reversal, unresolved=()), result.currency, result.digits)
    took_s = (result.ended_at - result.started_at).total_seconds()
    print_wrapped(
        f"{count(len(result.results), 'scenario')} in {took_s:.0f} s, {count(result.requests_sent, 'request')}:"
        f" {counts_text(result)}"
    )
    if known := [one.scenario.id for one in failing if is_expected(one, expected)]:
        print_wrapped(f"{count(len(known), 'known failure')}: {', '.join(known)}.", indent=_INDENT)
    for reason in reasons:
        print_wrapped(reason, indent=_INDENT)
    verdict = "NOT PASSED" if reasons else "PASSED"
    print_line(styled(verdict, colour="red" if reasons else "green", bold=True))


def print_reports(written: Sequence[Path], why_no_certificate: str, notes: Sequence[str]) -> None:
    """Print where the reports are, and the certificate or why there is none."""
    for note in notes:
        print_wrapped(f"Note: {note}")
    if written:
        print_wrapped(f"Reports in {written[0].parent}: {', '.join(file.name for file in written)}")
    if why_no_certificate:
        print_wrapped(f"No certificate: {why_no_certificate.rstrip('.')}.")


def print_cleaned(run: str, reversal: Reversal, chosen: Chosen) -> None:
    """Print what --clean did."""
    print_line(f"Run {run}:")
    _print_reversal(reversal, chosen.target.currency, chosen.target.digits)
    for sentence in reversal.unresolved[:UNRESOLVED_SHOWN_MAX]:
        print_wrapped(f"Not undone: {sentence}", hanging=_INDENT, colour="red")
    if (more := len(reversal.unresolved) - UNRESOLVED_SHOWN_MAX) > 0:
        print_wrapped(f"Not undone: {more} more; --json lists all.", colour="red")
    print_clean_line(reversal, chosen.line("--clean", run))


def print_clean_line(reversal: Reversal, line: str) -> None:
    """Print the line that undoes what is left, or may be."""
    # Without a balance of the beginning, nothing was booked.
    is_unknown = any(player.net is None and player.before is not None for player in reversal.players)
    if reversal.unresolved or is_unknown:
        print_line("To undo what is left, when the operator answers:")
        print_line(f"{_INDENT}{line}")


def counts_text(result: RunResult) -> str:
    """How many scenarios have each verdict, without those that none has."""
    counts = {verdict: result.count(verdict) for verdict in _NAMES}
    return ", ".join(f"{number} {_NAMES[verdict]}" for verdict, number in counts.items() if number)


def _print_failure(result: ScenarioResult, expected: Sequence[ExpectedFailure], again: str) -> None:
    _print_title(result)
    for known in expected:
        if is_expected(result, [known]):
            _print_field("known", f"{known.reason} (until {known.until})")
    _print_findings(result)
    _print_field("cost", result.cost)
    _print_field("do", result.fix)
    # A line to copy is not wrapped.
    print_line(f"{_INDENT}again:    {again}")
    print_line()


def _print_title(result: ScenarioResult) -> None:
    print_wrapped(
        f"{result.verdict} {result.scenario.id}: {result.scenario.title}",
        hanging=_INDENT,
        colour=COLOURS.get(result.verdict),
        bold=True,
    )


def _print_findings(result: ScenarioResult) -> None:
    for finding in result.findings:
        _print_field("observed", finding.observed)
        _print_field("expected", finding.expected)
        _print_field("do", finding.advice)


def _print_field(name: str, text: str) -> None:
    if not text:
        return
    head = f"{_INDENT}{name + ':':<10}"
    print_wrapped(text, indent=head, hanging=" " * len(head))


def _print_reversal(reversal: Reversal, currency: str, digits: int) -> None:
    print_wrapped(
        f"Undone: {count(reversal.rolled_back, 'bet')} rolled back,"
        f" {count(reversal.compensated, 'bet')} placed and ended to undo wins and losses."
    )
    for player in reversal.players:
        text = player_text(player, currency, digits)
        print_wrapped(text, hanging=_INDENT, colour=None if player.net == 0 else "red")


def player_text(player: PlayerMoney, currency: str, digits: int) -> str:
    """A player's money before and after the run, and the difference."""
    before, after, net = (
        "unknown" if amount is None else money(amount, currency, digits)
        for amount in (player.before, player.after, player.net)
    )
    return f"Player {player.player_id}: {before} before, {after} after, net effect {net}"


def scenario_lines(scenarios: Sequence[Scenario]) -> Iterator[Styled]:
    """The lines of --list: each group with its scenarios."""
    for group in Group:
        if members := [one for one in scenarios if one.group is group]:
            yield styled(group, bold=True)
            for one in members:
                yield joined(f"{_INDENT}{one.id:<{_ID_COLUMNS}} {one.title}")


def result_json(result: RunResult, expected: Sequence[ExpectedFailure], reasons: Sequence[str]) -> dict[str, Any]:
    """The summary for --json; report.json has all that was sent and answered."""
    return {
        "run": result.run,
        "operator_id": result.operator_id,
        "url": result.url,
        "passed": not reasons,
        "why_not_passed": list(reasons),
        "counts": {verdict: result.count(verdict) for verdict in ScenarioVerdict},
        "scenarios": [
            {
                "id": one.scenario.id,
                "verdict": one.verdict,
                "expected": is_expected(one, expected),
                "seconds": round(one.duration_s, 3),
                "reason": one.reason,
                "findings": [_finding_json(finding) for finding in one.findings],
            }
            for one in result.results
        ],
        "requests": result.requests_sent,
        "stopped": result.stopped,
        "reversal": reversal_json(result.reversal),
    }


def reversal_json(reversal: Reversal) -> dict[str, Any]:
    """What was undone, for --json; money in subunits."""
    return {
        "rolled_back": reversal.rolled_back,
        "compensated": reversal.compensated,
        "unresolved": list(reversal.unresolved),
        "players": [
            {"player_id": one.player_id, "before": one.before, "after": one.after, "net": one.net}
            for one in reversal.players
        ],
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "verdict": finding.verdict,
        "expected": finding.expected,
        "observed": finding.observed,
        "advice": finding.advice,
    }
