"""`latency`: from commit to the operator's first byte, and a producer's wait for the outcome."""

import json
from contextlib import AsyncExitStack
from functools import partial
from math import inf
from typing import Any

from tests.bench.bench_environment import EMPTY, BenchEnvironment
from tests.bench.contenders import OnPostgres
from tests.bench.findings import Figure, Findings, disturbed, ratios
from tests.bench.json_lines import JsonLinesProcess
from tests.bench.latencies import RATE, LatencyProbe, MeasureSegment, Segment, Side, measure_in_turn
from tests.bench.parts.throughput import peers
from tests.bench.scenarios import ANSWER_S
from tests.bench.workload import OPERATORS

_P50_AT_MOST = 0.7
"""Required ratio of ours / peer."""
_P99_BELOW_MS = 10.0
_WAIT_BELOW_MS = 6.0
"""Limits in ms."""
_OURS, _PEER = "ours", "pgqueuer"
_DATABASE = "latency_ours"
_WAIT = "producer's wait"


async def measure(environment: BenchEnvironment) -> Findings:
    findings = Findings(part="latency", title=f"{RATE:g} a second on an open schedule")
    async with AsyncExitStack() as stack:
        children = {}
        for name in ("sink", "producer", "waiting_producer"):
            children[name] = await JsonLinesProcess.start(f"tests.bench.{name}")
            stack.push_async_callback(children[name].close)
        probe = LatencyProbe(environment, children["sink"])
        environment.say("from the commit of the enqueue to the first byte at the operator")
        await _pickup(environment, findings, probe, children["producer"])
        environment.say("a producer's wait for the outcome of a BET_MAKE, without the operator's own time")
        await _wait(environment, findings, probe, children["waiting_producer"])
    return findings


async def _pickup(
    environment: BenchEnvironment, findings: Findings, probe: LatencyProbe, producer: JsonLinesProcess
) -> None:
    url = await probe.open()
    await environment.clone(EMPTY, _DATABASE)
    sides: dict[str, MeasureSegment] = {_OURS: partial(_ours, environment, probe, producer, url)}
    for peer in await peers(environment, findings, _PEER):
        assert isinstance(peer, OnPostgres)
        sides[_PEER] = partial(_peer, probe, peer, environment.postgres.dsn(await peer.install()), url)
    segments, notes = await measure_in_turn(environment, sides)
    ours = segments[_OURS]
    for side in segments.values():
        findings.figures += [side.figure(0.5), side.figure(0.99)]
    theirs = segments.get(_PEER)
    both = (ours.figure(0.5).values, theirs.figure(0.5).values) if theirs else ((), ())
    findings.figures += [
        Figure(name=f"ours / {_PEER}, median", values=ratios(*both), at_most=_P50_AT_MOST),
        ours.pooled_figure(0.99, below=_P99_BELOW_MS),
        *([theirs.pooled_figure(0.99)] if theirs else []),
    ]
    findings.notes += notes + _disturbed(*segments.values())
    findings.bars["latencies"] = [side.bar for side in segments.values()]


async def _ours(
    environment: BenchEnvironment, probe: LatencyProbe, producer: JsonLinesProcess, url: str, seed: int
) -> Segment:
    async with environment.daemons(environment.files("latency", url), _DATABASE) as (daemon,):
        await daemon.ready()
        await probe.forget()
        others = probe.clock(daemon.process.pid, producer.pid)
        enqueued = await producer.ask(
            dsn=environment.postgres.dsn(_DATABASE, "bench_producer"),
            operator_ids=OPERATORS,
            method="BALANCE",
            rate=RATE,
            seconds=probe.seconds,
            seed=seed,
        )
        cores = others()
        return Segment(latencies_ms=await probe.arrivals_ms(enqueued), others_cores=cores)


async def _peer(probe: LatencyProbe, peer: OnPostgres, dsn: str, url: str, seed: int) -> Segment:
    await probe.forget()
    with peer.work(dsn, url) as worker:
        others = probe.clock(worker.pid)
        printed = await peer.run("enqueue", dsn, str(RATE), str(probe.seconds), str(seed))
        cores = others()
        return Segment(latencies_ms=await probe.arrivals_ms(json.loads(printed)), others_cores=cores)


async def _wait(
    environment: BenchEnvironment, findings: Findings, probe: LatencyProbe, producer: JsonLinesProcess
) -> None:
    url = await probe.open(delay_s=ANSWER_S)
    files = environment.files("latency-wait", url)
    database = await environment.clone(EMPTY, "latency_wait")

    async def wait(seed: int) -> Segment:
        async with environment.daemons(files, database) as (daemon,):
            await daemon.ready()
            await probe.forget()
            others = probe.clock(daemon.process.pid, producer.pid)
            placed = await producer.ask(
                dsn=environment.postgres.dsn(database, "bench_producer"),
                operator_ids=OPERATORS,
                rate=RATE,
                seconds=probe.seconds,
                seed=seed,
            )
            cores = others()
            return Segment(latencies_ms=await _without_the_operator(probe, placed), others_cores=cores)

    segments, notes = await measure_in_turn(environment, {_WAIT: wait})
    findings.figures += [segments[_WAIT].figure(0.5, below=_WAIT_BELOW_MS), segments[_WAIT].figure(0.99)]
    findings.notes += notes + _disturbed(*segments.values())
    findings.bars["latencies"].append(segments[_WAIT].bar | {"name": "ours, to the outcome,\nwithout operator's time"})


async def _without_the_operator(probe: LatencyProbe, placed: list[list[Any]]) -> tuple[float, ...]:
    """Time from each commit to its outcome, without the operator's own time."""
    rows = probe.counted(placed)
    request_ids = [row[0] for row in rows]
    arrived_at_s = await probe.sink.times("arrivals", request_ids)
    answered_at_s = await probe.sink.times("answers", request_ids)
    return tuple(
        inf if known_at_s is None or answered == inf else (known_at_s - committed_s - (answered - arrived)) * 1000
        for (_, committed_s, known_at_s), arrived, answered in zip(rows, arrived_at_s, answered_at_s, strict=True)
    )


def _disturbed(*sides: Side) -> list[str]:
    return disturbed(segment.others_cores for side in sides for segment in side.segments)
