"""`cores`: one, two and three daemons of one host on the same work."""

import os
from dataclasses import replace
from functools import partial

from tests.bench.bench_environment import BenchEnvironment
from tests.bench.findings import Figure, Findings, shown
from tests.bench.meter import Reading
from tests.bench.rounds import in_turn

_DAEMONS = (1, 2, 3)
_AT_LEAST = 1.15
"""Required ratio of two daemons to one, unless they use all cores."""
_CORES_AT_LEAST = 0.95
"""All cores count as used from this share of them."""


async def measure(environment: BenchEnvironment) -> Findings:
    full = await environment.filled("cores_full", bets=environment.bets)
    files = environment.files("work", environment.receiver.url)

    async def with_daemons(count: int) -> Reading:
        async with environment.copy(full, "cores_round") as database:
            return await environment.deliver(files, database, environment.bets, daemons=count)

    names = {f"{count} daemon{'s' * (count > 1)}": partial(with_daemons, count) for count in _DAEMONS}
    rounds = await in_turn(environment, names, base="1 daemon")
    cores = {
        name: Figure(
            name=f"{name}: in use by daemons, Postgres and nginx",
            values=rounds.values(name, lambda reading: reading.cores),
            unit="cores",
        )
        for name in names
    }
    ratios = {name: rounds.ratio(name, "1 daemon") for name in list(names)[1:]}
    required, used_up = replace(ratios["2 daemons"], at_least=_AT_LEAST), _CORES_AT_LEAST * (os.cpu_count() or 1)
    in_use = replace(cores["2 daemons"], at_least=used_up)
    # One of the two limits applies.
    if required.is_kept or not in_use.is_kept:
        ratios["2 daemons"] = required
    else:
        cores["2 daemons"] = in_use
    note = f"Required of 2 daemons: at least {shown(_AT_LEAST)} of 1 daemon, or {shown(used_up)} cores in use."
    return Findings(
        part="cores",
        title="several daemons of one host on the same work",
        figures=[*ratios.values(), *cores.values()],
        rates=rounds.rows(),
        notes=[note, *rounds.all_notes],
    )
