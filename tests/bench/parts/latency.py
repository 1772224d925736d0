"""`latency`: from commit to the operator's first byte, and a producer's wait for the outcome."""

import json
from contextlib import AsyncExitStack
from functools import partial
from math import inf
from typing import Any

from tests.bench.bench_environment import EMPTY, BenchEnvironment
from tests.bench.contenders import OnPostgres
from tests.bench.findings import Figure, Findings, disturbed, ratios
from tests.bench.lines import Asked
from tests.bench.parts.throughput import peers
from tests.bench.scenarios import ANSWER_S
from tests.bench.watch import RATE, Side, Watch, Watched, Watches, watch_in_turn
from tests.bench.work import OPERATORS

_P99_BELOW_MS = 10.0
_WAIT_BELOW_MS = 6.0
"""Limits in ms."""
_OURS, _PEER = "ours", "pgqueuer"
_DATABASE = "latency_ours"
_WAIT = "producer's wait"


async def play(environment: BenchEnvironment) -> Findings:
    findings = Findings(part="latency", title=f"{RATE:g} a second on an open schedule")
    async with AsyncExitStack() as stack:
        children = {}
        for name in ("sink", "producer", "waiting_producer"):
            children[name] = await Asked.start(f"tests.bench.{name}")
            stack.push_async_callback(children[name].close)
        watch = Watch(environment, children["sink"])
        environment.say("from the commit of the enqueue to the first byte at the operator")
        await _pickup(environment, findings, watch, children["producer"])
        environment.say("a producer's wait for the outcome of a BET_MAKE, without the operator's own time")
        await _wait(environment, findings, watch, children["waiting_producer"])
    return findings


async def _pickup(environment: BenchEnvironment, findings: Findings, watch: Watch, producer: Asked) -> None:
    url = await watch.open()
    await environment.clone(EMPTY, _DATABASE)
    sides: dict[str, Side] = {_OURS: partial(_ours, environment, watch, producer, url)}
    for peer in await peers(environment, findings, _PEER):
        assert isinstance(peer, OnPostgres)
        sides[_PEER] = partial(_peer, watch, peer, environment.postgres.dsn(await peer.install()), url)
    watched, notes = await watch_in_turn(environment, sides)
    ours = watched[_OURS]
    for side in watched.values():
        findings.figures += [side.figure(0.5), side.figure(0.99)]
    theirs = watched.get(_PEER)
    both = (ours.figure(0.5).values, theirs.figure(0.5).values) if theirs else ((), ())
    findings.figures += [
        Figure(name=f"ours / {_PEER}, median", values=ratios(*both), at_most=1.0),
        ours.pooled_figure(0.99, below=_P99_BELOW_MS),
        *([theirs.pooled_figure(0.99)] if theirs else []),
    ]
    findings.notes += notes + _disturbed(*watched.values())
    findings.bars["latencies"] = [side.bar for side in watched.values()]


async def _ours(environment: BenchEnvironment, watch: Watch, producer: Asked, url: str, seed: int) -> Watched:
    async with environment.daemons(environment.files("latency", url), _DATABASE) as (daemon,):
        await daemon.ready()
        await watch.forget()
        others = watch.clock(daemon.process.pid, producer.pid)
        enqueued = await producer.ask(
            dsn=environment.postgres.dsn(_DATABASE, "bench_producer"),
            operator_ids=OPERATORS,
            method="BALANCE",
            rate=RATE,
            seconds=watch.seconds,
            seed=seed,
        )
        cores = others()
        return Watched(latencies_ms=await watch.arrivals_ms(enqueued), others_cores=cores)


async def _peer(watch: Watch, peer: OnPostgres, dsn: str, url: str, seed: int) -> Watched:
    await watch.forget()
    with peer.work(dsn, url) as worker:
        others = watch.clock(worker.pid)
        printed = await peer.run("enqueue", dsn, str(RATE), str(watch.seconds), str(seed))
        cores = others()
        return Watched(latencies_ms=await watch.arrivals_ms(json.loads(printed)), others_cores=cores)


async def _wait(environment: BenchEnvironment, findings: Findings, watch: Watch, producer: Asked) -> None:
    url = await watch.open(delay_s=ANSWER_S)
    files = environment.files("latency-wait", url)
    database = await environment.clone(EMPTY, "latency_wait")

    async def wait(seed: int) -> Watched:
        async with environment.daemons(files, database) as (daemon,):
            await daemon.ready()
            await watch.forget()
            others = watch.clock(daemon.process.pid, producer.pid)
            placed = await producer.ask(
                dsn=environment.postgres.dsn(database, "bench_producer"),
                operator_ids=OPERATORS,
                rate=RATE,
                seconds=watch.seconds,
                seed=seed,
            )
            cores = others()
            return Watched(latencies_ms=await _without_the_operator(watch, placed), others_cores=cores)

    watched, notes = await watch_in_turn(environment, {_WAIT: wait})
    findings.figures += [
        watched[_WAIT].figure(0.5, below=_WAIT_BELOW_MS),
        watched[_WAIT].figure(0.99),
    ]
    findings.notes += notes + _disturbed(*watched.values())
    findings.bars["latencies"].append(watched[_WAIT].bar | {"name": "ours, to the outcome,\nwithout operator's time"})


async def _without_the_operator(watch: Watch, placed: list[list[Any]]) -> tuple[float, ...]:
    """Time from each commit to its outcome, without the operator's own time."""
    rows = watch.counted(placed)
    request_ids = [row[0] for row in rows]
    arrived_at_s = await watch.moments("arrivals", request_ids)
    answered_at_s = await watch.moments("answers", request_ids)
    return tuple(
        inf if known_at_s is None or answered == inf else (known_at_s - committed_s - (answered - arrived)) * 1000
        for (_, committed_s, known_at_s), arrived, answered in zip(rows, arrived_at_s, answered_at_s, strict=True)
    )


def _disturbed(*sides: Watches) -> list[str]:
    return disturbed(segment.others_cores for side in sides for segment in side.segments)
