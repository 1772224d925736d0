"""Each bug of a wallet is failed by the scenario that was made for it."""

from pathlib import Path

import pytest

from predictu_dispatch.certification import recording
from predictu_dispatch.certification.reversal import Patience
from predictu_dispatch.certification.scenario import ScenarioVerdict
from tests.certification.mutants import MUTANTS, Mutant
from tests.certification.playing import (
    SCENARIOS,
    described,
    mutant_running,
    played,
    scenarios_for,
    verdicts,
)

_SPEED = 20.0
"""Pauses of 70 s are 3.5 s, and what remembers for 60 s remembers for 3 s."""
_PATIENCE = Patience(tries=5, first_delay_s=0.05, delay_max_s=0.5, limit_s=60.0)


def test_every_mutant_has_a_name_and_a_scenario_of_its_own_kind() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 35
    assert {mutant.scenario for mutant in MUTANTS} <= set(SCENARIOS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_a_mutant_is_failed_by_the_scenario_made_for_it(
    tmp_path: Path, mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PUT_OFF_S_MAX", recording.PUT_OFF_S_MAX / _SPEED)
    async with mutant_running(mutant, tmp_path, speed=_SPEED) as sandbox:
        result = await played(sandbox, scenarios_for(mutant, speed=_SPEED), patience=_PATIENCE)
        assert verdicts(result)[mutant.scenario] is ScenarioVerdict.FAILED, (
            f"{mutant.wrong} Nothing finds it.\n{described(result)}"
        )
        if not mutant.hides_balances:
            # What the report says of the money is true by the operator's own books.
            books = sandbox.balances()
            for player in result.reversal.players:
                assert player.after in (None, books[player.player_id]), described(result)
