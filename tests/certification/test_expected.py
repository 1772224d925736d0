"""Expected failures: the file, and when one of them fails the run."""

import datetime as dt
from pathlib import Path

import pytest

from predictu_dispatch.certification.expected import judged, read_expected
from predictu_dispatch.certification.result import ScenarioResult
from predictu_dispatch.certification.run_verdict import ExpectedFailure
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.edge.config.files import ConfigError
from tests.certification import made_results as made

KNOWN = ("money-balance", "order-rollback-of-unknown", "repetition-at-once")
LAST_DAY = dt.date(2027, 1, 31)
GOOD = '[[expected]]\nscenario = "money-balance"\nreason = "their ticket 7"\nuntil = 2027-01-31\n'


def write(folder: Path, text: str) -> Path:
    (folder / "expected.toml").write_text(text)
    return folder / "expected.toml"


@pytest.mark.parametrize(
    ("verdict", "today", "problem"),
    [
        (ScenarioVerdict.FAILED, LAST_DAY, ""),
        (ScenarioVerdict.REVIEW, LAST_DAY, ""),
        (ScenarioVerdict.SKIPPED, LAST_DAY, ""),
        (ScenarioVerdict.PASSED, LAST_DAY, "money-balance no longer fails: remove it from the expected failures"),
        (ScenarioVerdict.WARNING, LAST_DAY, "money-balance no longer fails: remove it from the expected failures"),
        *(
            (
                verdict,
                LAST_DAY + dt.timedelta(days=1),
                "money-balance was expected to fail until 2027-01-31 only: fix it, or agree on a later day",
            )
            for verdict in (ScenarioVerdict.FAILED, ScenarioVerdict.REVIEW, ScenarioVerdict.SKIPPED)
        ),
    ],
)
def test_only_a_failure_in_time_is_expected(
    tmp_path: Path, verdict: ScenarioVerdict, today: dt.date, problem: str
) -> None:
    results = [ScenarioResult(scenario=made.scenario("money-balance"), verdict=verdict)]
    expected = read_expected(write(tmp_path, GOOD), KNOWN)
    assert judged(expected, results, today) == (
        ExpectedFailure(scenario="money-balance", reason="their ticket 7", until=LAST_DAY, problem=problem),
    )


def test_one_that_was_not_chosen_does_not_count(tmp_path: Path) -> None:
    results = [ScenarioResult(scenario=made.scenario("repetition-at-once"), verdict=ScenarioVerdict.PASSED)]
    assert judged(read_expected(write(tmp_path, GOOD), KNOWN), results, dt.date(2030, 1, 1)) == ()


def test_an_empty_file_expects_nothing(tmp_path: Path) -> None:
    assert read_expected(write(tmp_path, ""), KNOWN) == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            GOOD.replace("money-balance", "money-balanse"),
            'expected[0].scenario = "money-balanse": no scenario has this id; did you mean money-balance?',
        ),
        (
            GOOD.replace("money-balance", "x"),
            'expected[0].scenario = "x": no scenario has this id; certify --list prints them',
        ),
        (GOOD + GOOD, 'expected[1].scenario = "money-balance": is listed twice; remove one'),
        (
            GOOD.replace("2027-01-31", '"2027-01-31"'),
            (
                'expected[0].until = "2027-01-31": must be the last day on which it may fail, as a date without'
                " quotes such as 2027-01-31"
            ),
        ),
        (
            GOOD.replace("2027-01-31", "2027-01-31T10:00:00Z"),
            (
                "expected[0].until = 2027-01-31 10:00:00+00:00: must be the last day on which it may fail, as a date"
                " without quotes such as 2027-01-31"
            ),
        ),
        (
            GOOD.replace("until = 2027-01-31\n", ""),
            (
                "expected[0].until: is missing; must be the last day on which it may fail, as a date without quotes"
                " such as 2027-01-31"
            ),
        ),
        (
            GOOD.replace('"their ticket 7"', '""'),
            'expected[0].reason = "": must be why it fails, as 1 to 1000 characters',
        ),
        (GOOD + "untill = 1\n", "expected[0].untill = 1: unknown key; did you mean expected[0].until?"),
        ("expected = 1", "expected = 1: must be tables [[expected]], each with another scenario"),
        ("[[expected", "not valid TOML: "),
    ],
)
def test_a_malformed_file_is_refused_with_what_is_allowed(tmp_path: Path, text: str, fault: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        read_expected(file, KNOWN)
    [line] = map(str, raised.value.faults)
    assert line.startswith(f"{file}: {fault}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected\.toml: no such file or directory; must be a readable TOML file"):
        read_expected(tmp_path / "expected.toml", KNOWN)
