"""Known failures: `--expect FILE` names scenarios that may fail, each with a reason and a last day.

An expected failure that passes now, or is past its last day, fails the run: a list that nobody
corrects would hide the next fault.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError

from predictu_dispatch.certification.result import ScenarioResult
from predictu_dispatch.certification.run_verdict import ExpectedFailure
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.core.section import Section
from predictu_dispatch.core.settings import shown
from predictu_dispatch.edge.config.files import ConfigError, Fault, faults_of, read_toml

_WORKS: Final = (ScenarioVerdict.PASSED, ScenarioVerdict.WARNING)


class Expected(Section):
    """One `[[expected]]` table."""

    scenario: str = Field(min_length=1, max_length=200, description="the id of a scenario; certify --list prints them")
    reason: str = Field(min_length=1, max_length=1000, description="why it fails, as 1 to 1000 characters")
    until: dt.date = Field(description="the last day on which it may fail, as a date without quotes such as 2027-01-31")


class _ExpectedFile(Section):
    # TOML gives a list, so the tuple is not strict; its items are.
    expected: tuple[Expected, ...] = Field(
        default=(), strict=False, max_length=1000, description="tables [[expected]], each with another scenario"
    )


def read_expected(file: Path, known: Collection[str]) -> tuple[Expected, ...]:
    """Return the expected failures of a file; raises ConfigError with all faults.

    `known` are the ids of all scenarios.
    """
    given: dict[str, Any] = read_toml(file)
    try:
        expected = _ExpectedFile.model_validate(given).expected
    except ValidationError as error:
        raise ConfigError(faults_of(error, _ExpectedFile, given, file)) from None
    faults: list[Fault] = []
    seen: set[str] = set()
    for number, one in enumerate(expected):
        allowed = ""
        if one.scenario not in known:
            near = difflib.get_close_matches(one.scenario, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "certify --list prints them"
            allowed = f"no scenario has this id; {hint}"
        elif one.scenario in seen:
            allowed = "is listed twice; remove one"
        seen.add(one.scenario)
        if allowed:
            key = f"expected[{number}].scenario"
            faults.append(Fault(file=str(file), key=key, value=shown(one.scenario), allowed=allowed))
    if faults:
        raise ConfigError(tuple(faults))
    return expected


def judged(
    expected: Sequence[Expected], results: Sequence[ScenarioResult], today: dt.date
) -> tuple[ExpectedFailure, ...]:
    """Judge the expected failures of the scenarios that were chosen; the others do not count."""
    verdicts = {one.scenario.id: one.verdict for one in results}
    return tuple(
        ExpectedFailure(
            scenario=one.scenario,
            reason=one.reason,
            until=one.until,
            problem=_problem(one, verdicts[one.scenario], today),
        )
        for one in expected
        if one.scenario in verdicts
    )


def _problem(one: Expected, verdict: ScenarioVerdict, today: dt.date) -> str:
    if verdict in _WORKS:
        return f"{one.scenario} no longer fails: remove it from the expected failures"
    if today > one.until:
        return f"{one.scenario} was expected to fail until {one.until} only: fix it, or agree on a later day"
    return ""
