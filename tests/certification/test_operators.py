"""Correct operators that differ pass, and every balance is as before by their own books."""

import asyncio
import os
from pathlib import Path

import pytest

from predictu_dispatch.certification.run_verdict import why_not_passed
from predictu_dispatch.certification.scenario import Group, ScenarioVerdict
from predictu_dispatch.certification.scenarios import ALL
from tests.certification.example_operators import need
from tests.certification.mutants.mutant import Certificate
from tests.certification.operators import (
    DIFFERENT,
    GO,
    NODE,
    REFERENCE,
    CorrectOperator,
    slow_behind_a_proxy,
    wrongly_found,
)
from tests.certification.playing import SCENARIOS, described, hastened, played, verdicts
from tests.certification.sandbox import UNTOUCHED, changed_operator

_IS_FULL = os.environ.get("TEST_SIZE") == "full"
_AT_ONCE = (REFERENCE, *DIFFERENT[:-1])
_SLOW = DIFFERENT[-1]


async def _check(operator: CorrectOperator, folder: Path) -> None:
    """Play the whole suite in an empty folder; nothing is found and no money is gone."""
    # An operator that is correct answers the same after a shorter pause.
    scenarios = ALL if _IS_FULL else [hastened(each, 20.0) for each in ALL]
    async with operator.start(folder) as sandbox:
        result = await played(sandbox, scenarios)
        assert not wrongly_found(operator, result), f"{operator.name}\n{described(result)}"
        assert not why_not_passed(result), f"{operator.name}\n{described(result)}"
        assert all(player.net == 0 for player in result.reversal.players)
        if operator not in (NODE, GO):
            assert sandbox.balances() == UNTOUCHED


def _named(name: str) -> CorrectOperator:
    return next(operator for operator in DIFFERENT if operator.name == name)


# With TEST_SIZE=full all of them, at once, because a run mostly waits for a pause of 70 s.
@pytest.mark.parametrize(
    "operators", [_AT_ONCE] if _IS_FULL else [(REFERENCE,), (_named("decimal"),), (_named("own-status-names"),)]
)
async def test_correct_operators_that_differ_pass_the_whole_suite(
    tmp_path: Path, operators: tuple[CorrectOperator, ...]
) -> None:
    for operator in operators:
        (tmp_path / operator.name).mkdir()
    await asyncio.gather(*(_check(operator, tmp_path / operator.name) for operator in operators))


@pytest.mark.parametrize("operator", [pytest.param(NODE, marks=need("node")), pytest.param(GO, marks=need("go"))])
@pytest.mark.skipif(not _IS_FULL, reason="75 s each; TEST_SIZE=full, and `make certification` plays them too")
async def test_operators_in_other_languages_pass_the_whole_suite(tmp_path: Path, operator: CorrectOperator) -> None:
    await _check(operator, tmp_path)


@pytest.mark.skipif(not _IS_FULL, reason="5 minutes; TEST_SIZE=full, and `make certification` plays it too")
async def test_a_slow_operator_behind_a_proxy_that_closes_every_connection_passes(tmp_path: Path) -> None:
    await _check(_SLOW, tmp_path)


async def test_behind_a_proxy_that_closes_every_connection_only_its_scenario_warns(tmp_path: Path) -> None:
    short = [hastened(each, 20.0) for each in SCENARIOS.values() if each.group not in (Group.LOAD, Group.LEDGER)]
    async with slow_behind_a_proxy(tmp_path, delay_s=0.0) as sandbox:
        result = await played(sandbox, short)
    assert not wrongly_found(_SLOW, result), described(result)
    assert not why_not_passed(result), described(result)
    assert [one.scenario.id for one in result.results if one.findings] == ["connection-keep-alive"]


async def test_over_tls_nothing_is_found_in_the_connection(tmp_path: Path) -> None:
    connection = [each for each in SCENARIOS.values() if each.group is Group.CONNECTION]
    async with changed_operator(tmp_path, certificate=Certificate()) as sandbox:
        result = await played(sandbox, connection)
    assert [one.verdict for one in result.results] == [ScenarioVerdict.PASSED] * len(connection), described(result)


async def test_a_certificate_that_ends_soon_warns(tmp_path: Path) -> None:
    async with changed_operator(tmp_path, certificate=Certificate(days=20)) as sandbox:
        result = await played(sandbox, [SCENARIOS["connection-tls"]])
    assert verdicts(result) == {"connection-tls": ScenarioVerdict.WARNING}, described(result)
