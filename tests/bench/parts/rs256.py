"""`rs256`: latency of interactive callbacks while others are signed with RS256."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from tests.bench.bench_environment import EMPTY, BenchEnvironment
from tests.bench.findings import Figure, Findings, disturbed, ratios
from tests.bench.json_lines import JsonLinesProcess
from tests.bench.latencies import RATE, LatencyProbe, Segment, measure_in_turn
from tests.bench.workload import OPERATORS, write_operators

_BACKGROUND_RATE = 200.0
"""Four times the measured rate."""
_EDDSA, _RS256 = "op_back_eddsa", "op_back_rs256"


async def measure(environment: BenchEnvironment) -> Findings:
    title = f"{RATE:g} BALANCE a second at EdDSA operators, from commit to arrival, beside {_BACKGROUND_RATE:g} others"
    findings = Findings(part="rs256", title=title)
    async with AsyncExitStack() as stack:
        children = []
        for name in ("sink", "producer", "producer"):
            children.append(await JsonLinesProcess.start(f"tests.bench.{name}"))
            stack.push_async_callback(children[-1].close)
        sink, producer, background = children
        probe = LatencyProbe(environment, sink)
        files = environment.files("rs256", await probe.open())
        write_operators(files, {_EDDSA: await probe.open()})
        write_operators(files, {_RS256: await probe.open()}, algorithm="RS256")
        database = await environment.clone(EMPTY, "rs256_work")
        await environment.introduce(files, database)
        dsn = environment.postgres.dsn(database, "bench_producer")

        async def ask(who: JsonLinesProcess, operator_ids: Sequence[str], rate: float, seed: int) -> list[list[object]]:
            enqueued: list[list[object]] = await who.ask(
                dsn=dsn, operator_ids=operator_ids, method="BALANCE", rate=rate, seconds=probe.seconds, seed=seed
            )
            return enqueued

        async def beside(others_of: Sequence[str], seed: int) -> Segment:
            async with environment.daemons(files, database) as (daemon,):
                await daemon.ready()
                await probe.forget()
                others = probe.clock(daemon.process.pid, producer.pid, background.pid)
                async with asyncio.TaskGroup() as asked:
                    measured = asked.create_task(ask(producer, OPERATORS, RATE, seed))
                    if others_of:
                        asked.create_task(ask(background, others_of, _BACKGROUND_RATE, seed + 1))
                cores = others()
                return Segment(latencies_ms=await probe.arrivals_ms(measured.result()), others_cores=cores)

        sides = {
            "alone": partial(beside, ()),
            "beside EdDSA": partial(beside, (_EDDSA,)),
            "beside RS256": partial(beside, (_RS256,)),
        }
        segments, notes = await measure_in_turn(environment, sides)
    p99 = {name: side.figure(0.99) for name, side in segments.items()}
    for name, side in segments.items():
        findings.figures += [side.figure(0.5), p99[name], side.pooled_figure(0.99)]
    findings.figures += [
        Figure(name=f"p99 beside RS256 / {name}", values=ratios(p99["beside RS256"].values, p99[name].values))
        for name in ("alone", "beside EdDSA")
    ]
    findings.notes += notes + disturbed(s.others_cores for side in segments.values() for s in side.segments)
    return findings
