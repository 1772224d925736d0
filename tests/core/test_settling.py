"""What becomes of reports whose settle failed."""

from __future__ import annotations

import pytest

from predictu_dispatch.core.database import DatabaseUnavailable, Refused
from predictu_dispatch.core.settling import REPEATS_MAX, Remedy, is_about_content, remedy


@pytest.mark.parametrize("reports", [1, 100])
@pytest.mark.parametrize("repeats", [0, REPEATS_MAX, 10_000])
def test_without_a_session_nothing_was_executed_and_no_report_is_at_fault(reports: int, repeats: int) -> None:
    refused = DatabaseUnavailable("the login is refused", sqlstate="28000", without_session=True)
    assert remedy(refused, reports=reports, repeats=repeats) is Remedy.REPEAT


@pytest.mark.parametrize("sqlstate", ["", "40P01", "53100", "58P01", "57P02"])
def test_a_statement_that_keeps_failing_is_never_repeated_unchanged_for_ever(sqlstate: str) -> None:
    failed = DatabaseUnavailable("failed", sqlstate=sqlstate)
    assert remedy(failed, reports=100, repeats=REPEATS_MAX - 1) is Remedy.REPEAT
    assert remedy(failed, reports=100, repeats=REPEATS_MAX) is Remedy.ONE_BY_ONE
    assert remedy(failed, reports=1, repeats=REPEATS_MAX) is Remedy.APART


@pytest.mark.parametrize("error", [Refused("XX001", "corrupt"), Refused("", "unreadable"), KeyError("new"), OSError()])
def test_whatever_else_happens_one_report_may_be_the_cause(error: Exception) -> None:
    assert remedy(error, reports=2, repeats=0) is Remedy.ONE_BY_ONE
    assert remedy(error, reports=1, repeats=0) is Remedy.APART


def test_a_settle_that_takes_too_long_leaves_the_lane_at_once() -> None:
    slow = DatabaseUnavailable("no answer in time", has_timed_out=True)
    assert {remedy(slow, reports=count, repeats=0) for count in (1, 100)} == {Remedy.APART}


def test_only_data_errors_are_about_the_content() -> None:
    assert is_about_content(Refused("22P05", "untranslatable character"))
    assert is_about_content(Refused("", "invalid input for query argument $1"))
    assert not is_about_content(Refused("42883", "function does not exist"))
    assert not is_about_content(DatabaseUnavailable("gone"))
