"""Where a comparison is played: one Postgres with fsync, a database for each side, a daemon for each segment.

Each side has a database of its own, because a backlog that merely lies there has its price too, and `alone` must not
pay it. Each segment has a daemon of its own, because one that stands still while the other side is measured wakes up to
leases and timeouts that ran out, and one that goes on takes the cores from the other side.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TypeAlias

import aiohttp
import asyncpg

from predictu_dispatch.edge.embedded_postgres import EmbeddedPostgres
from predictu_dispatch.edge.keys import create_key_file
from predictu_dispatch.edge.migrations import migrate
from tests.bench.cpu_clock import CpuClock
from tests.bench.figures import ALONE, TROUBLED, Segment
from tests.bench.lines import Asked
from tests.bench.scenarios import ANSWER_S, Operator, Scenario
from tests.support.daemons import Daemon, Fleet

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LOGINS = {"bench_producer": "predictu_producer", "bench_daemon": "predictu_dispatcher"}
_DAEMON_SECTIONS = {
    # The values of a production daemon, where tests/support has quicker ones; only stopping is hurried.
    "daemon": {"poll_interval_s": 0.5, "drain_s": 0.5},
    "log": {"level": "info", "format": "json"},
}
_ARRIVAL_GRACE_S = 20.0
"""Above the interactive deadline_s of 15 s: what has not come by then never comes."""
_OPERATOR_TOML = """\
operator_id = "{operator_id}"
callback_url = "http://127.0.0.1:{port}/predictu"
allow_insecure_http = true
allow_private_addresses = true
[signing]
key_file = "../key.pem"
[circuit]
failure_threshold = {failure_threshold}
"""
_FAILURE_THRESHOLD = 10
"""The default of DESIGN.md 7."""
_FAILURE_THRESHOLD_NEVER = 10_000
# Written by the owner, guarded by the schema's own triggers: the functions would take minutes for so many.
_OPEN_BETS = """
    insert into predictu_dispatch.bet
        (operator_id, bet_id, state, player_id, currency, amount, placement_request_id, terminal_request_id)
    select $1, $2 || n, 'closing', 'p-' || n, 'EUR', 500, gen_random_uuid(), gen_random_uuid()
      from generate_series(1, $3::integer) n
"""
_SETTLE_BETS = """
    insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, params)
    select operator_id, terminal_request_id, case when random() < 0.5 then 'BET_WIN' else 'BET_LOSE' end, bet_id,
           'settlement', 'ready',
           jsonb_build_object('player_id', player_id, 'currency', 'EUR', 'amount', 900, 'bet_id', bet_id)
      from predictu_dispatch.bet
     where operator_id = $1 and starts_with(bet_id, $2)
"""
_ASK = """
    select count(predictu_dispatch.enqueue_callback($1, 'BALANCE',
               jsonb_build_object('player_id', 'p-' || n, 'currency', 'EUR'), null, 'infinity'))
      from generate_series(1, $2::integer) n
"""
_DUE = """
    select count(*) from predictu_dispatch.callback
     where operator_id = $1 and lane = $2 and state = 'ready' and due_at <= now()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast and for how long a segment is measured; `warm_up_s` comes before and does not count."""

    rate: float
    warm_up_s: float
    segment_s: float
    seed: int


@dataclass(kw_only=True)
class Side:
    """One side of a scenario: its operators, its database, and the folder of its daemons' files."""

    name: str
    operators: tuple[Operator, ...]
    database: str
    folder: Path
    daemons_started: int = 0


class Stage:
    """Everything that lives as long as the benchmark: the server, the sink and the producer."""

    def __init__(
        self, postgres: EmbeddedPostgres, folder: Path, *, sink: Asked, producer: Asked, session: aiohttp.ClientSession
    ) -> None:
        self._postgres = postgres
        self._folder = folder
        self._sink = sink
        self._producer = producer
        self._session = session

    async def prepare(self) -> None:
        """The server has our schema in a database to be cloned, and our login roles."""
        async with self._owner("postgres") as owner:
            await owner.execute("create database bench template template0 encoding 'UTF8'")
            await migrate(self._postgres.dsn("bench"))
            for login, group in LOGINS.items():
                await owner.execute(f"create role {login} login; grant {group} to {login}")

    @asynccontextmanager
    async def sides(self, scenario: Scenario) -> AsyncIterator[tuple[Side, Side]]:
        """Both sides of a scenario, known to the producers; their databases are gone afterwards."""
        given = {ALONE: scenario.alone, TROUBLED: scenario.troubled}
        sides = [await self._side(scenario, name, operators) for name, operators in given.items()]
        try:
            yield sides[0], sides[1]
        finally:
            async with self._owner("postgres") as owner:
                for side in sides:
                    await owner.execute(f'drop database "{side.database}" with (force)')

    async def _side(self, scenario: Scenario, name: str, operators: tuple[Operator, ...]) -> Side:
        folder = self._folder / f"{scenario.name}-{name}"
        (folder / "operators").mkdir(parents=True)
        create_key_file(folder / "key.pem", "EdDSA")
        for operator in operators:
            port = await self._sink.ask(do="open", manner=operator.manner, delay_s=ANSWER_S)
            (folder / "operators" / f"{operator.operator_id}.toml").write_text(
                _OPERATOR_TOML.format(
                    operator_id=operator.operator_id,
                    port=port,
                    failure_threshold=_FAILURE_THRESHOLD if operator.circuit_opens else _FAILURE_THRESHOLD_NEVER,
                ),
                encoding="utf-8",
            )
        side = Side(name=name, operators=operators, database=f"bench {scenario.name} {name}", folder=folder)
        async with self._owner("postgres") as owner:
            await owner.execute(f'create database "{side.database}" template bench')
        # Operators enter the database when a daemon starts.
        async with self._running_daemon(side):
            pass
        return side

    async def measure(self, scenario: Scenario, side: Side, pair: int, pace: Pace) -> Segment:
        """One segment: the backlog is brought up to its level, a daemon starts, warms up, and is measured."""
        async with self._owner(side.database) as owner:
            for operator in side.operators:
                await _fill(owner, operator)
            # Neither side is to pay for the writes of the time before.
            await owner.execute("vacuum analyze")
            await owner.execute("checkpoint")
            due_at_start = await _due(owner, side)
            async with self._running_daemon(side) as daemon:
                await self._sink.ask(do="forget")
                clock = CpuClock(
                    daemon=[daemon.process.pid],
                    postgres=[self._postgres.pid or 0],
                    tools=[self._sink.pid, self._producer.pid],
                )
                enqueued = await self._producer.ask(
                    dsn=self._postgres.dsn(side.database, "bench_producer"),
                    operator_ids=scenario.measured,
                    method=scenario.method,
                    rate=pace.rate,
                    seconds=pace.warm_up_s + pace.segment_s,
                    # The same schedule on both sides of a pair.
                    seed=pace.seed + pair,
                )
                cores = clock.cores()
                due_at_end = await _due(owner, side)
                counted = enqueued[round(pace.rate * pace.warm_up_s) :]
                arrived_at_s = await self._arrivals([row[0] for row in counted])
                if min(arrived_at_s) == inf:
                    raise RuntimeError(f"nothing arrived; the daemon's last words:\n{daemon.said[-2000:]}")
        return Segment(
            pair=pair,
            side=side.name,
            latencies_ms=tuple(
                (arrived_s - committed_s) * 1000
                for (_, _, _, committed_s), arrived_s in zip(counted, arrived_at_s, strict=True)
            ),
            enqueue_ms=tuple((committed_s - began_s) * 1000 for _, _, began_s, committed_s in counted),
            late_ms=tuple((began_s - scheduled_s) * 1000 for _, scheduled_s, began_s, _ in counted),
            cores=cores,
            due_at_start=due_at_start,
            due_at_end=due_at_end,
        )

    async def _arrivals(self, request_ids: list[str]) -> list[float]:
        """When each of them came; infinity where one never did."""
        give_up_at_s = time.monotonic() + _ARRIVAL_GRACE_S
        while True:
            arrived_at_s = await self._sink.ask(do="arrivals", request_ids=request_ids)
            if None not in arrived_at_s or time.monotonic() > give_up_at_s:
                return [inf if moment_s is None else moment_s for moment_s in arrived_at_s]
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def _running_daemon(self, side: Side) -> AsyncIterator[Daemon]:
        fleet = Fleet(folder=side.folder, dsn=self._postgres.dsn(side.database, "bench_daemon"), session=self._session)
        side.daemons_started += 1
        try:
            daemon = await fleet.start(f"bench-{side.daemons_started}", **_DAEMON_SECTIONS)
            yield daemon
            daemon.ask_to_stop()
            await daemon.exited()
        finally:
            fleet.end()

    @asynccontextmanager
    async def _owner(self, database: str) -> AsyncIterator[Connection]:
        owner = await asyncpg.connect(self._postgres.dsn(database))
        try:
            yield owner
        finally:
            owner.terminate()


@asynccontextmanager
async def open_stage(postgres: EmbeddedPostgres, folder: Path) -> AsyncIterator[Stage]:
    """The stage is ready; afterwards its children have ended."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        children = {}
        for name in ("sink", "producer"):
            children[name] = await Asked.start(f"tests.bench.{name}")
            stack.push_async_callback(children[name].close)
        stage = Stage(postgres, folder, session=session, **children)
        await stage.prepare()
        yield stage


async def _due(owner: Connection, side: Side) -> int:
    """Settlements that are due, of the operators that are to have some."""
    whose = [operator.operator_id for operator in side.operators if operator.settlements_due]
    return sum([await owner.fetchval(_DUE, operator_id, "settlement") for operator_id in whose])


async def _fill(owner: Connection, operator: Operator) -> None:
    """What is due for the operator is at its level again."""
    missing = operator.settlements_due - (await owner.fetchval(_DUE, operator.operator_id, "settlement"))
    if operator.settlements_due and missing > 0:
        bets = f"adopted-{time.monotonic_ns()}-"
        async with owner.transaction():
            await owner.execute(_OPEN_BETS, operator.operator_id, bets, missing)
            await owner.execute(_SETTLE_BETS, operator.operator_id, bets)
    missing = operator.interactive_due - (await owner.fetchval(_DUE, operator.operator_id, "interactive"))
    if operator.interactive_due and missing > 0:
        await owner.execute(_ASK, operator.operator_id, missing)
