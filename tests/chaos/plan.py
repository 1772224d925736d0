"""What the fault_injector does and when: drawn from a seed beforehand, so that the same seed does the same again."""

import random
from dataclasses import dataclass

WEIGHTS = {
    "kill a daemon": 6,
    "kill a daemon at a fault point": 10,
    "freeze a daemon past its leases": 5,
    "stop a daemon": 3,
    "start a daemon with a wrong clock": 2,
    "reload every daemon": 2,
    "kill Postgres": 2,
    "restart Postgres": 1,
    "cut Postgres connections": 4,
    "Postgres behind a black hole": 3,
    "Postgres far away": 2,
    "Postgres cut after some bytes": 3,
    "Postgres drips": 1,
    "an operator cut after some bytes": 4,
    "an operator behind a black hole": 4,
    "an operator far away": 3,
    "an operator drips": 2,
    "an operator refuses connections": 3,
    "kill an operator": 3,
    "an operator's weather": 6,
    "somebody holds bets": 3,
    "somebody takes every connection": 1,
}
"""How often each comes, beside the others."""
_PAUSE_S = (0.3, 2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act: its name, when it begins after the start, for how long it lasts, and draws of its own."""

    name: str
    at_s: float
    lasts_s: float
    seed: int


def plan(seed: int, seconds: float) -> list[Act]:
    """The acts of one run, each of every kind at least once where there is time for it."""
    draws = random.Random(seed)
    first = list(WEIGHTS)
    draws.shuffle(first)
    acts: list[Act] = []
    at_s = 1.0
    while at_s < seconds:
        name = first.pop() if first else draws.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        lasts_s = draws.uniform(0.2, 4.0)
        acts.append(Act(name=name, at_s=at_s, lasts_s=lasts_s, seed=draws.getrandbits(32)))
        at_s += draws.uniform(*_PAUSE_S)
    return acts
