"""`cores`: one, two and three daemons of one host on the same work."""

from functools import partial

from tests.bench.bench_environment import BenchEnvironment
from tests.bench.findings import Findings
from tests.bench.meter import Reading
from tests.bench.rounds import in_turn

_DAEMONS = (1, 2, 3)


async def measure(environment: BenchEnvironment) -> Findings:
    full = await environment.filled("cores_full", bets=environment.bets)
    files = environment.files("work", environment.receiver.url)

    async def with_daemons(count: int) -> Reading:
        async with environment.copy(full, "cores_round") as database:
            return await environment.deliver(files, database, environment.bets, daemons=count)

    names = {f"{count} daemon{'s' * (count > 1)}": partial(with_daemons, count) for count in _DAEMONS}
    rounds = await in_turn(environment, names, base="1 daemon")
    return Findings(
        part="cores",
        title="several daemons of one host on the same work",
        figures=[*(rounds.ratio(name, "1 daemon") for name in list(names)[1:])],
        rates=rounds.rows(),
        notes=rounds.all_notes,
    )
