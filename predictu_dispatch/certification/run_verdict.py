"""Decides whether a run passed: the exit code, the certificate and the reports follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from predictu_dispatch.certification.observation import money
from predictu_dispatch.certification.result import PlayerMoney, RunResult, ScenarioResult
from predictu_dispatch.certification.scenario import ScenarioVerdict

FAILING: Final = frozenset({ScenarioVerdict.FAILED, ScenarioVerdict.REVIEW})
"""The verdicts that fail a run, unless the failure is expected."""
_IDS_MAX: Final = 5
"""The most scenarios that a sentence names."""
UNRESOLVED_SHOWN_MAX: Final = 10
"""The most bets that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFailure:
    """A known failure from the file that --expect names, judged after the run."""

    scenario: str
    reason: str
    until: date
    problem: str = ""
    """Why it fails the run, as part of a sentence; "" while the scenario fails and in time."""


def is_expected(result: ScenarioResult, expected: Sequence[ExpectedFailure]) -> bool:
    """Return True if the scenario fails, and a known failure says that it may."""
    return result.verdict in FAILING and any(
        known.scenario == result.scenario.id and not known.problem for known in expected
    )


def why_not_passed(result: RunResult, expected: Sequence[ExpectedFailure] = ()) -> tuple[str, ...]:
    """Return why the run did not pass, a sentence each; nothing if it passed."""
    return tuple(_reasons(result, expected))


def may_have_certificate(result: RunResult, expected: Sequence[ExpectedFailure] = ()) -> bool:
    """Return True if every scenario was played or skipped for a need, and none failed."""
    is_clean = not any(each.verdict in FAILING for each in result.results)
    return result.is_whole_suite and is_clean and not why_not_passed(result, expected)


def _reasons(result: RunResult, expected: Sequence[ExpectedFailure]) -> Iterator[str]:
    if result.stopped:
        yield f"The run was stopped: {result.stopped.rstrip('.')}."
    elif result.results and not result.played:
        yield "No scenario was played: each one was skipped, for the reason that it gives."
    for verdict, verb in ((ScenarioVerdict.FAILED, "failed"), (ScenarioVerdict.REVIEW, "must be reviewed")):
        ids = [
            each.scenario.id for each in result.results if each.verdict is verdict and not is_expected(each, expected)
        ]
        if ids:
            yield f"{len(ids)} {'scenario' if len(ids) == 1 else 'scenarios'} {verb}: {_listed(ids)}."
    for known in expected:
        if known.problem:
            yield f"Expected failure: {known.problem.rstrip('.')}."
    unresolved = result.reversal.unresolved
    yield from (f"Not undone: {sentence.rstrip('.')}." for sentence in unresolved[:UNRESOLVED_SHOWN_MAX])
    if (more := len(unresolved) - UNRESOLVED_SHOWN_MAX) > 0:
        yield f"Not undone: {more} more."
    for player in result.reversal.players:
        yield from _reason_of(player, result)


def _listed(ids: Sequence[str]) -> str:
    more = len(ids) - _IDS_MAX
    return f"{', '.join(ids[:_IDS_MAX])}{f' and {more} more' if more > 0 else ''}"


def _reason_of(player: PlayerMoney, result: RunResult) -> Iterator[str]:
    if player.net is None:
        if not result.stopped:
            # After a stop it is a consequence, and the first sentence has the cause.
            yield f"The balance of player {player.player_id} could not be read, so the run's effect on it is unknown."
    elif player.net:
        amount = money(abs(player.net), result.currency, result.digits)
        yield f"Player {player.player_id} has {amount} {'more' if player.net > 0 else 'less'} than before the run."
