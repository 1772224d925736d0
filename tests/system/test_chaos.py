"""A short chaos run with fixed seeds; `make chaos` is the long one."""

from pathlib import Path

import pytest

from tests.chaos.chaos import Run, play
from tests.chaos.fault_injector import KINDS, plan
from tests.chaos.mutants import MUTANTS
from tests.chaos.sealing import MUTANTS as MUTANT_CLAIMS

SECONDS = 30.0


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_books_are_right_after_random_faults(seed: int) -> None:
    log: list[str] = []
    outcome = await play(Run(seed=seed, seconds=SECONDS, bets_per_s=8.0), log.append)
    assert outcome.verdict.faults == [], "\n".join([*outcome.histories, *log])
    assert outcome.audit.entries > outcome.verdict.attempts
    assert outcome.audit.checkpoints > SECONDS
    # The run must have injected faults.
    assert outcome.injected.total() > SECONDS / 4
    assert outcome.verdict.bets > SECONDS
    assert outcome.verdict.duplicates > 0
    assert any(kind.startswith("kill a daemon") for kind in outcome.injected)
    if outcome.audit.missing:
        pytest.skip(f"everything holds, but nothing was checked with Go: {outcome.audit.missing}")
    assert outcome.audit.mutants == MUTANT_CLAIMS


def test_a_seed_repeats_its_plan_and_a_plan_has_every_kind_of_fault() -> None:
    assert plan(7, 60.0) == plan(7, 60.0)
    assert plan(7, 60.0) != plan(8, 60.0)
    assert {injection.kind for injection in plan(7, 60.0)} == KINDS.keys()


def test_every_mutant_still_fits_the_code_that_it_breaks() -> None:
    root = Path(__file__).parents[2]
    changes = [change for mutant in MUTANTS for change in mutant.changes()]
    assert [(file, old) for file, old, _ in changes if (root / file).read_text("utf-8").count(old) != 1] == []
