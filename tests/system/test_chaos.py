"""A short run of the chaos harness with fixed seeds; `make chaos` is the long one. See tests/chaos/chaos.py."""

import pytest

from tests.chaos.chaos import Run, play
from tests.chaos.fault_injector import _ACTS
from tests.chaos.plan import WEIGHTS, plan

SECONDS = 30.0


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_is_killed_frozen_or_cut_the_money_is_right(seed: int) -> None:
    said: list[str] = []
    outcome = await play(Run(seed=seed, seconds=SECONDS, bets_per_s=8.0), said.append)
    assert outcome.verdict.faults == [], "\n".join([*outcome.histories, *said])
    # Otherwise nothing was tried.
    assert outcome.done.total() > SECONDS / 4
    assert outcome.verdict.bets > SECONDS
    assert outcome.verdict.duplicates > 0
    assert sum(count for act, count in outcome.done.items() if act.startswith("kill a daemon")) > 0


def test_a_seed_does_the_same_again_and_every_kind_of_act_is_played() -> None:
    assert plan(7, 60.0) == plan(7, 60.0)
    assert plan(7, 60.0) != plan(8, 60.0)
    assert {act.name for act in plan(7, 60.0)} == set(WEIGHTS) == set(_ACTS)
