"""`flat-*`: our throughput with and without a backlog, history, a snapshot or more operators."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.backlog import fill
from tests.bench.bench_environment import EMPTY, BenchEnvironment, free_gb
from tests.bench.findings import Findings
from tests.bench.history import write_history
from tests.bench.json_lines import JsonLinesProcess
from tests.bench.meter import Reading
from tests.bench.rounds import in_turn
from tests.bench.scenarios import Operator
from tests.bench.workload import CALLBACKS_PER_BET, OPERATORS, enqueue_bets, write_operators
from tests.support.daemons import until

_AT_LEAST = 0.90
"""Required ratio of with / without."""
_DEAD_DUE = 1_000_000
_PAST_CALLBACKS = 5_000_000
_SHARE = 10
"""Without --full, the sizes are divided by this."""
_SNAPSHOT_CALLBACKS, _SNAPSHOT_CALLBACKS_FULL = 60_000, 400_000
_OPERATORS = 500
_DEAD = "op_dead"
_CIRCUIT_TIMEOUT_S = 60.0
_AUDIT_BODY_BYTES, _AUDIT_BODY_BYTES_SMALL = 600, 100
"""Body size of a realistic audit row of about 1 kB including its index."""
_PAST_GB_PER_MILLION = 6.0
"""Peak disk space for a million callbacks of history with audit rows and WAL."""


@dataclass(kw_only=True)
class _Lasting:
    """A side that keeps its database over all rounds, because it is too large to copy."""

    environment: BenchEnvironment
    database: str
    files: Path
    rounds: int = field(default=0)

    async def measure(self) -> Reading:
        self.rounds += 1
        async with self.environment.owner(self.database) as owner:
            since = await owner.fetchval("select clock_timestamp()")
            await enqueue_bets(owner, self.environment.bets, prefix=f"bet-{self.rounds}-")
            await owner.execute("vacuum analyze")
            await owner.execute("checkpoint")
        return await self.environment.deliver(self.files, self.database, self.environment.bets, since=since)


async def _compare(
    environment: BenchEnvironment,
    part: str,
    name: str,
    *,
    without: Callable[[], Awaitable[Reading]],
    with_it: Callable[[], Awaitable[Reading]],
    notes: Sequence[str] = (),
) -> Findings:
    environment.say(name)
    rounds = await in_turn(environment, {"without": without, "with": with_it}, base="without")
    ratio = rounds.ratio("with", "without", at_least=_AT_LEAST)
    return Findings(
        part=part,
        title=f"throughput with and without {name}",
        figures=[replace(ratio, name=f"with / without {name}")],
        rates=rounds.rows(),
        notes=[*notes, *rounds.all_notes],
    )


async def dead_backlog(environment: BenchEnvironment) -> Findings:
    due = environment.plan.scaled(_DEAD_DUE if environment.plan.full else _DEAD_DUE // _SHARE)
    sink = await JsonLinesProcess.start("tests.bench.sink")
    try:
        port = await sink.ask(do="open", manner="never", delay_s=0.0)
        alive = environment.files("work", environment.receiver.url)
        files = environment.files("flat-dead", environment.receiver.url)
        # The circuit opens within a second; then one PING runs every open_s.
        slow = {"attempt_timeout_s": 1.0, "connect_timeout_s": 1.0}
        write_operators(files, {_DEAD: f"http://127.0.0.1:{port}/predictu"}, interactive=slow, settlement=slow)
        without = _Lasting(environment=environment, database=await environment.clone(EMPTY, "flat_alive"), files=alive)
        with_it = _Lasting(environment=environment, database=await environment.clone(EMPTY, "flat_dead"), files=files)
        async with environment.owner(with_it.database) as owner:
            await environment.introduce(files, with_it.database)
            await fill(owner, Operator(operator_id=_DEAD, settlements_due=due))
            async with environment.daemons(files, with_it.database):
                await until("the circuit opens", partial(_is_open, owner), within_s=_CIRCUIT_TIMEOUT_S)
        return await _compare(
            environment,
            "flat-dead",
            f"{due:,} settlements due for a dead operator",
            without=without.measure,
            with_it=with_it.measure,
        )
    finally:
        await sink.close()


async def _is_open(owner: Any) -> bool:
    return bool(
        await owner.fetchval("select circuit <> 'closed' from predictu_dispatch.operator where operator_id = $1", _DEAD)
    )


async def history(environment: BenchEnvironment) -> Findings:
    callbacks = environment.plan.scaled(_PAST_CALLBACKS if environment.plan.full else _PAST_CALLBACKS // _SHARE)
    files = environment.files("work", environment.receiver.url)
    needed_gb = callbacks / 1e6 * _PAST_GB_PER_MILLION
    left_gb = free_gb(environment.postgres.folder)
    body_bytes = _AUDIT_BODY_BYTES if left_gb > needed_gb else _AUDIT_BODY_BYTES_SMALL
    without = _Lasting(environment=environment, database=await environment.clone(EMPTY, "flat_new"), files=files)
    with_it = _Lasting(environment=environment, database=await environment.clone(EMPTY, "flat_old"), files=files)
    async with environment.owner(with_it.database) as owner:
        note = await write_history(owner, callbacks, body_bytes=body_bytes, operators=OPERATORS)
        environment.say(note)
        await owner.execute("vacuum analyze")
    name = f"{callbacks:,} callbacks of history"
    return await _compare(
        environment, "flat-history", name, without=without.measure, with_it=with_it.measure, notes=[note]
    )


async def snapshot(environment: BenchEnvironment) -> Findings:
    callbacks = environment.plan.scaled(_SNAPSHOT_CALLBACKS_FULL if environment.plan.full else _SNAPSHOT_CALLBACKS)
    bets = callbacks // CALLBACKS_PER_BET
    full = await environment.filled("flat_full", bets=bets)
    files = environment.files("work", environment.receiver.url)

    async def without() -> Reading:
        async with environment.copy(full, "flat_round") as database:
            return await environment.deliver(files, database, bets)

    async def with_it() -> Reading:
        async with (
            environment.copy(full, "flat_round") as database,
            environment.owner(database) as reader,
            reader.transaction(isolation="repeatable_read", readonly=True),
        ):
            # The first statement takes the snapshot, not BEGIN.
            await reader.fetchval("select count(*) from predictu_dispatch.operator")
            return await environment.deliver(files, database, bets)

    name = f"a snapshot open over {callbacks:,} deliveries"
    return await _compare(environment, "flat-snapshot", name, without=without, with_it=with_it)


async def many_operators(environment: BenchEnvironment) -> Findings:
    full = await environment.filled("flat_full", bets=environment.bets)
    many = environment.files("flat-many", environment.receiver.url)
    idle = [f"op_idle_{number:03}" for number in range(_OPERATORS - len(OPERATORS))]

    async def deliver(files: Path) -> Reading:
        async with environment.copy(full, "flat_round") as database:
            return await environment.deliver(files, database, environment.bets)

    sink = await JsonLinesProcess.start("tests.bench.sink")
    try:
        # They are pinged like all others, at another address, so that their PINGs are not counted
        # as work.
        port = await sink.ask(do="open", manner="answer", delay_s=0.0)
        write_operators(many, dict.fromkeys(idle, f"http://127.0.0.1:{port}/predictu"))
        return await _compare(
            environment,
            "flat-operators",
            f"{_OPERATORS} operators of which {len(OPERATORS)} have work",
            without=partial(deliver, environment.files("work", environment.receiver.url)),
            with_it=partial(deliver, many),
        )
    finally:
        await sink.close()
