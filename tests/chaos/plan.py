"""The plan of a run: which faults are injected and when, drawn from a seed before the run."""

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
    "Postgres with latency": 2,
    "Postgres cut after some bytes": 3,
    "Postgres with low bandwidth": 1,
    "an operator cut after some bytes": 4,
    "an operator behind a black hole": 4,
    "an operator with latency": 3,
    "an operator with low bandwidth": 2,
    "an operator refuses connections": 3,
    "kill an operator": 3,
    "an operator fails more often": 6,
    "a transaction locks bets": 3,
    "a client takes every connection": 1,
}
"""The relative frequency of each kind."""
_PAUSE_S = (0.3, 2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """One fault to inject: its kind, start, duration, and a seed."""

    kind: str
    at_s: float
    duration_s: float
    seed: int


def plan(seed: int, seconds: float) -> list[Injection]:
    """The injections of one run; each kind occurs at least once if there is time."""
    rng = random.Random(seed)
    first = list(WEIGHTS)
    rng.shuffle(first)
    injections: list[Injection] = []
    at_s = 1.0
    while at_s < seconds:
        kind = first.pop() if first else rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        duration_s = rng.uniform(0.2, 4.0)
        injections.append(Injection(kind=kind, at_s=at_s, duration_s=duration_s, seed=rng.getrandbits(32)))
        at_s += rng.uniform(*_PAUSE_S)
    return injections
