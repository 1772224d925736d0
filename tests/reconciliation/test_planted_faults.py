"""Planted faults are found, and nothing else. `make reconcile` plants many more."""

from pathlib import Path

from predictu_dispatch.core.difference_classes import DifferenceClass
from tests.reconciliation.history import played_history
from tests.reconciliation.planted import prove
from tests.reconciliation.score import Score

_FAULTS = 100


async def test_every_planted_fault_is_found_and_nothing_else(tmp_path: Path) -> None:
    """The command and the naive classifier agree in every item of a history of real daemons."""
    folder = tmp_path / "environment"
    folder.mkdir()
    score = Score()
    async with played_history(
        folder,
        seed=1,
        seconds=6.0,
        bets_per_s=25.0,
        faults=False,
        log=lambda _: None,
        operator_ids=("op_flaky",),
    ) as history:
        await prove(history, 1, _FAULTS, folder, score)
    assert not score.faults
    assert sum(tally.planted for tally in score.classes.values()) > _FAULTS / 2
    assert len([name for name, tally in score.classes.items() if tally.planted]) > len(DifferenceClass) / 2
