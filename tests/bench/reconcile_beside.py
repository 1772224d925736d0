"""What a daemon delivers beside a reconciliation of a large day in the same database.

Two ways: as fast as it can, when it needs both cores itself and everything else takes some of
them; and at a fixed rate, when there is room for both.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench.bench_environment import BenchEnvironment
from tests.bench.figures import percentile
from tests.bench.findings import Figure, ratios, shown
from tests.bench.json_lines import JsonLinesProcess
from tests.bench.meter import BrokenRoundError, Reading
from tests.bench.reconcile_runs import ReconcileBench
from tests.bench.rounds import in_turn
from tests.bench.workload import OPERATORS, enqueue_bets

RATIO_AT_LEAST = 0.97
_RATE = 500.0
"""Callbacks a second at the fixed rate: a quarter of what the daemon can."""
_WARM_UP_S, _SEGMENT_S = 3.0, 15.0
_NICE = 19
"""As in deploy/predictu-dispatch-reconcile@.service."""
_ALONE = "alone"
SIDES = (_ALONE, "reading", "classifying")
"""What the reconciliation does meanwhile."""


@dataclass(kw_only=True)
class Beside:
    """The daemon's side of the measurement."""

    environment: BenchEnvironment
    bench: ReconcileBench
    notes: list[str] = field(default_factory=list)
    _rounds: int = 0

    @asynccontextmanager
    async def reconciling(self, phase: str) -> AsyncIterator[None]:
        """A reconciliation that is in this phase at the beginning; it is killed at the end."""
        if phase == _ALONE:
            yield
            return
        running = await self.bench.start(nice=_NICE)
        async with self.environment.owner(self.bench.database) as owner:
            if not await running.reached(phase, owner):
                raise BrokenRoundError(f"the reconciliation ended before it was {phase}")
            yield
            row = await running.session(owner)
            at_end = row["phase"] if row is not None else "over"
            if at_end != phase:
                self.notes.append(f"a reconciliation was {phase} at the beginning of a round and {at_end} at its end")
            await running.killed()
            if row is not None:
                await owner.execute("select pg_terminate_backend($1, 10000)", row["pid"])
            await running.session_gone(owner)

    async def deliver(self, files: Path, phase: str) -> Reading:
        """Deliver as fast as possible."""
        self._rounds += 1
        async with self.environment.owner(self.bench.database) as owner:
            since = await owner.fetchval("select clock_timestamp()")
            await enqueue_bets(owner, self.environment.bets, prefix=f"live-{self._rounds}-")
            await owner.execute("analyze predictu_dispatch.callback")
            await owner.execute("checkpoint")
        async with self.reconciling(phase):
            return await self.environment.deliver(files, self.bench.database, self.environment.bets, since=since)

    async def segment(
        self, children: dict[str, JsonLinesProcess], url: str, phase: str, seed: int
    ) -> tuple[float, ...]:
        """The latencies in ms of callbacks at the fixed rate, from commit to arrival."""
        sink, producer = children["sink"], children["producer"]
        async with self.environment.daemons(self.environment.files("steady", url), self.bench.database) as (daemon,):
            await daemon.ready()
            await sink.ask(do="forget")
            async with self.reconciling(phase):
                enqueued = await producer.ask(
                    dsn=self.environment.postgres.dsn(self.bench.database, "bench_producer"),
                    operator_ids=OPERATORS,
                    method="BALANCE",
                    rate=_RATE,
                    seconds=_WARM_UP_S + _SEGMENT_S,
                    seed=seed,
                )
            counted = enqueued[round(_RATE * _WARM_UP_S) :]
            arrived_at_s = await sink.times("arrivals", [row[0] for row in counted])
            return tuple((at_s - row[3]) * 1000 for row, at_s in zip(counted, arrived_at_s, strict=True))


async def at_full_speed(beside: Beside) -> list[Figure]:
    """The ratios of the daemon's rates with and without a reconciliation."""
    environment = beside.environment
    files = environment.files("work", environment.receiver.url)
    await environment.introduce(files, beside.bench.database)
    sides: dict[str, Callable[[], Awaitable[Reading]]] = {
        phase: partial(beside.deliver, files, phase) for phase in SIDES
    }
    rounds = await in_turn(environment, sides, base=_ALONE)
    beside.notes += rounds.notes
    figures = []
    for phase in SIDES[1:]:
        worker_s = ratios(
            rounds.values(phase, lambda one: one.worker_s), rounds.values(_ALONE, lambda one: one.worker_s)
        )
        figures += [
            Figure(
                name=f"rate at full speed, {phase} / alone",
                values=rounds.ratio(phase, _ALONE).values,
                at_least=RATIO_AT_LEAST,
            ),
            Figure(name=f"daemon's CPU for each callback, {phase} / alone", values=worker_s),
        ]
    return figures


async def at_fixed_rate(beside: Beside) -> list[Figure]:
    """The rate and the latencies at a fixed rate with and without a reconciliation."""
    environment = beside.environment
    measured: dict[str, list[tuple[float, ...]]] = {phase: [] for phase in SIDES}
    async with AsyncExitStack() as stack:
        children = {}
        for name in ("sink", "producer"):
            children[name] = await JsonLinesProcess.start(f"tests.bench.{name}")
            stack.push_async_callback(children[name].close)
        port = await children["sink"].ask(do="open", manner="answer", delay_s=0.02)
        url = f"http://127.0.0.1:{port}/predictu"
        await environment.introduce(environment.files("steady", url), beside.bench.database)
        for number in range(1, environment.plan.rounds + 1):
            for phase in SIDES:
                latencies = await beside.segment(children, url, phase, environment.plan.seed + number)
                measured[phase].append(latencies)
                p50, p99, most = (percentile(latencies, share) for share in (0.5, 0.99, 1.0))
                environment.say(f"{number:3}  {phase:11} p50 {p50:6.2f}  p99 {p99:7.2f}  max {most:7.2f} ms")
    figures = []
    for phase in SIDES:
        pooled = [one for latencies in measured[phase] for one in latencies]
        p50, p99 = percentile(pooled, 0.5), percentile(pooled, 0.99)
        beside.notes.append(f"at {_RATE:g}/s, {phase}: p50 {shown(p50)} ms, p99 {shown(p99)} ms of {len(pooled):,}")
        if phase != _ALONE:
            rate = ratios(*([_within_s(one) for one in measured[side]] for side in (phase, _ALONE)))
            figures.append(Figure(name=f"rate at {_RATE:g}/s, {phase} / alone", values=rate, at_least=RATIO_AT_LEAST))
    return figures


def _within_s(latencies_ms: tuple[float, ...]) -> float:
    """Callbacks a second that arrived within a second."""
    return sum(one <= 1000 for one in latencies_ms) / _SEGMENT_S
