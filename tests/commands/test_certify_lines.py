"""What `certify` prints of a run: its progress, and how much of its failures."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from predictu_dispatch.certification.result import UNREACHED, UNREACHED_FIX, PlayerMoney, Reversal, ScenarioResult
from predictu_dispatch.certification.scenario import Finding, ScenarioVerdict
from predictu_dispatch.commands.certify.lines import Progress, print_clean_line, print_summary
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.verdict import Judgement, Verdict
from tests.certification import made_results as made


def _skipped(scenario_id: str, reason: str) -> ScenarioResult:
    one = made.skipped(reason)
    return replace(one, scenario=replace(one.scenario, id=scenario_id))


def _failed(scenario_id: str) -> ScenarioResult:
    one = made.failed_twice_debited()
    return replace(one, scenario=replace(one.scenario, id=scenario_id))


def test_scenarios_that_are_skipped_for_one_reason_are_counted_after_the_first() -> None:
    reason = "the run was stopped: balances cannot be read: player test-1: answer: HTTP 401, status UNAUTHORIZED"
    results = [
        _skipped("connection-tls", "no TLS"),
        *(_skipped(f"money-{number}", reason) for number in range(60)),
        made.passed("order-two-wins", "A second win is not paid"),
        _skipped("load-sixteen", reason),
    ]
    progress = Progress()
    lines = [click.unstyle(line) for result in results for line in progress.lines(result)]
    assert [*lines, *progress.rest()] == [
        "SKIPPED  connection-tls: no TLS",
        "SKIPPED  money-0: the run was stopped: balances cannot be read: player test-1:",
        "         answer: HTTP 401, status UNAUTHORIZED",
        "SKIPPED  59 more for the same reason",
        f"PASSED   {'order-two-wins':<42}    0.2 s",
        "SKIPPED  load-sixteen: the run was stopped: balances cannot be read: player",
        "         test-1: answer: HTTP 401, status UNAUTHORIZED",
    ]


def test_ten_failures_are_printed_in_full_and_the_others_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    run = made.run(*(_failed(f"money-{number}") for number in range(12)))
    print_summary(run, (), ["12 scenarios failed."], repeat_line=lambda scenario_id: f"again {scenario_id}")
    stdout = capsys.readouterr().out
    assert "again money-9\n" in stdout
    assert "again money-10\n" not in stdout
    assert "FAILED money-11: " in stdout
    assert "2 failures are printed without details" in stdout


def test_a_scenario_that_could_not_be_played_is_printed_without_its_own_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = _failed("money-debit")
    obstacle = Finding(
        verdict=ScenarioVerdict.FAILED, expected="BALANCE", observed="401", advice="Compare.", is_obstacle=True
    )
    run = made.run(replace(failed, findings=(obstacle,)))
    print_summary(run, (), ["1 scenario failed."], repeat_line=lambda scenario_id: f"again {scenario_id}")
    stdout = capsys.readouterr().out
    assert "do:       Compare." in stdout
    assert failed.scenario.why[:20] not in stdout


def test_without_a_connection_a_failure_costs_nothing_that_was_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    not_sent = made.sent(
        "debit",
        exchange=Exchange(Evidence.NOT_SENT, 0.0, reason="connect_refused"),
        judgement=Judgement(Verdict.RETRY, reason="connect_refused"),
    )
    unreached = replace(made.passed("money-win", "A win", made.observed(not_sent)), verdict=ScenarioVerdict.FAILED)
    print_summary(made.run(unreached), (), ["1 scenario failed."], repeat_line=lambda scenario_id: scenario_id)
    stdout = " ".join(capsys.readouterr().out.split())
    assert f"cost: {UNREACHED} do: {UNREACHED_FIX}" in stdout
    assert unreached.scenario.why not in stdout


@pytest.mark.parametrize(
    ("unresolved", "before", "after", "is_printed"),
    [
        ((), 100, 100, False),
        ((), 100, 90, False),
        ((), None, None, False),
        ((), 100, None, True),
        (("bet b: no answer",), 100, 100, True),
    ],
)
def test_the_line_that_undoes_what_is_left_is_printed_only_if_something_may_be_left(
    capsys: pytest.CaptureFixture[str],
    unresolved: tuple[str, ...],
    before: int | None,
    after: int | None,
    *,
    is_printed: bool,
) -> None:
    player = PlayerMoney(player_id="p-1", before=before, after=after)
    reversal = Reversal(rolled_back=0, compensated=0, unresolved=unresolved, players=(player,))
    print_clean_line(reversal, "predictu-dispatch certify op_a --clean RUN")
    assert ("\n  predictu-dispatch certify op_a --clean RUN\n" in capsys.readouterr().out) == is_printed
