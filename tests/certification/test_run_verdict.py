"""A run passes only if nothing failed unexpectedly and every balance is as before."""

from __future__ import annotations

from datetime import date

import pytest

from predictu_dispatch.certification.result import RunResult
from predictu_dispatch.certification.run_verdict import ExpectedFailure, may_have_certificate, why_not_passed
from tests.certification import made_results as made

AT_ONCE = "repetition-at-once"
KNOWN = ExpectedFailure(scenario=AT_ONCE, reason="fixed in our next release", until=date(2027, 1, 31))
PASSES_NOW = ExpectedFailure(
    scenario="money-balance", reason="", until=date(2027, 1, 31), problem="money-balance no longer fails: remove it"
)


def test_a_run_without_a_failure_passes_and_may_have_a_certificate() -> None:
    warned = made.run(made.passed("money-balance", "Balance"), made.batch_with_a_fault(), made.skipped())

    assert why_not_passed(warned) == ()
    assert may_have_certificate(warned)
    assert not may_have_certificate(made.run(made.passed("money-balance", "Balance"), is_whole_suite=False))


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (made.run(made.failed_twice_debited()), "1 scenario failed: repetition-at-once."),
        (made.run(made.review_of_hostile_answer()), "1 scenario must be reviewed: order-two-ends."),
        (
            made.run(made.skipped(), stopped="the request cap is reached"),
            "The run was stopped: the request cap is reached.",
        ),
        (made.run(made.skipped()), "No scenario was played: each one was skipped, for the reason that it gives."),
        (made.run(unresolved=("bet b: no answer",)), "Not undone: bet b: no answer."),
        (made.run(net=-500), "Player p-1 has 5.00 EUR less than before the run."),
        (made.run(net=7), "Player p-1 has 0.07 EUR more than before the run."),
        (made.run(net=None), "The balance of player p-1 could not be read, so the run's effect on it is unknown."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_reason_is_one_sentence_and_prevents_a_certificate(result: RunResult, sentence: str) -> None:
    assert why_not_passed(result) == (sentence,)
    assert not may_have_certificate(result)


def test_an_expected_failure_passes_without_a_certificate_until_it_has_a_problem() -> None:
    result = made.run(made.failed_twice_debited())

    assert why_not_passed(result, [KNOWN]) == ()
    assert not may_have_certificate(result, [KNOWN])
    assert why_not_passed(made.good_run(), [PASSES_NOW]) == (
        "Expected failure: money-balance no longer fails: remove it.",
    )
    assert not may_have_certificate(made.good_run(), [PASSES_NOW])


def test_only_the_first_of_many_failures_are_named() -> None:
    failed = [made.failed_twice_debited()] * 7
    assert why_not_passed(made.run(*failed))[0] == f"7 scenarios failed: {', '.join([AT_ONCE] * 5)} and 2 more."
