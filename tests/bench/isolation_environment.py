"""The environment of a comparison: a Postgres, a database per side, a daemon per segment.

Each side has its own database, because a backlog costs time even if it is idle. Each segment has
its own daemon: a suspended daemon would continue with expired leases, and a running one would use
the other side's
cores.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import aiohttp

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.backlog import count_due, fill, owner_of
from tests.bench.cpu_clock import CpuClock
from tests.bench.figures import ALONE, TROUBLED, Segment
from tests.bench.json_lines import JsonLinesProcess
from tests.bench.scenarios import ANSWER_S, Operator, Scenario
from tests.support.daemons import Daemon, Fleet

LOGINS = {"bench_producer": "predictu_producer", "bench_daemon": "predictu_dispatcher"}
_DAEMON_SECTIONS: dict[str, Any] = {
    # Production values instead of the faster ones in tests/support; only draining is shortened.
    "daemon": {"poll_interval_s": 0.5, "drain_s": 0.5},
    "log": {"level": "info", "format": "json"},
}
_REHEARSAL_S = 5.0
"""Callbacks of history, so that all segments have the same query plans."""
_OPERATOR_TOML = """\
operator_id = "{operator_id}"
callback_url = "http://127.0.0.1:{port}/predictu"
allow_insecure_http = true
allow_private_addresses = true
[signing]
key_file = "../{operator_id}.pem"
[circuit]
failure_threshold = {failure_threshold}
"""
_FAILURE_THRESHOLD = 10
"""The default."""
_FAILURE_THRESHOLD_NEVER = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Rate and duration of a segment; `warm_up_s` before it is not measured."""

    rate: float
    warm_up_s: float
    segment_s: float
    seed: int


@dataclass(kw_only=True)
class Side:
    """One side of a scenario: its operators, its database, and its configuration folder."""

    name: str
    operators: tuple[Operator, ...]
    database: str
    folder: Path
    daemons_started: int = 0


class IsolationEnvironment:
    """The server, the sink and the producer of the whole benchmark."""

    def __init__(
        self,
        postgres: EmbeddedPostgres,
        folder: Path,
        *,
        sink: JsonLinesProcess,
        producer: JsonLinesProcess,
        session: aiohttp.ClientSession,
    ) -> None:
        self._postgres = postgres
        self._folder = folder
        self._sink = sink
        self._producer = producer
        self._session = session

    async def prepare(self) -> None:
        """Create the template database with the schema, and the login roles."""
        async with owner_of(self._postgres, "postgres") as owner:
            await owner.execute("create database bench template template0 encoding 'UTF8'")
            await migrate(self._postgres.dsn("bench"))
            for login, group in LOGINS.items():
                await owner.execute(f"create role {login} login; grant {group} to {login}")

    @asynccontextmanager
    async def sides(self, scenario: Scenario, pace: Pace) -> AsyncIterator[tuple[Side, Side]]:
        """Both sides of a scenario, each with some history; drops their databases afterwards."""
        given = {ALONE: scenario.alone, TROUBLED: scenario.troubled}
        sides = [await self._side(scenario, name, operators) for name, operators in given.items()]
        for side in sides:
            # A daemon registers the operators. Some history avoids query plans for empty tables.
            async with self._running_daemon(side):
                await self._enqueue(scenario, side, rate=pace.rate, seconds=_REHEARSAL_S, seed=pace.seed)
        yield sides[0], sides[1]
        # Not after a failure: the server stops then, and connections may still be open.
        async with owner_of(self._postgres, "postgres") as owner:
            for side in sides:
                await owner.execute(f'drop database "{side.database}" with (force)')

    async def _side(self, scenario: Scenario, name: str, operators: tuple[Operator, ...]) -> Side:
        folder = self._folder / f"{scenario.name}-{name}"
        (folder / "operators").mkdir(parents=True)
        for operator in operators:
            create_key_file(folder / f"{operator.operator_id}.pem", "EdDSA")
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
        async with owner_of(self._postgres, "postgres") as owner:
            await owner.execute(f'create database "{side.database}" template bench')
        return side

    async def measure(self, scenario: Scenario, side: Side, pair: int, pace: Pace) -> Segment:
        """Run one segment: refill the backlog, start a daemon, warm up, measure."""
        async with owner_of(self._postgres, side.database) as owner:
            for operator in side.operators:
                await fill(owner, operator)
            # Earlier writes must not slow this segment.
            await owner.execute("vacuum analyze")
            await owner.execute("checkpoint")
            due_at_start = await count_due(owner, side.operators)
            async with self._running_daemon(side) as daemon:
                await self._sink.ask(do="forget")
                clock = CpuClock(
                    daemon=[daemon.process.pid],
                    postgres=[self._postgres.pid or 0],
                    tools=[self._sink.pid, self._producer.pid],
                )
                # Both sides of a pair have the same schedule.
                seconds, seed = pace.warm_up_s + pace.segment_s, pace.seed + pair
                enqueued = await self._enqueue(scenario, side, rate=pace.rate, seconds=seconds, seed=seed)
                cores = clock.cores()
                due_at_end = await count_due(owner, side.operators)
                counted = enqueued[round(pace.rate * pace.warm_up_s) :]
                arrived_at_s = await self._sink.times("arrivals", [row[0] for row in counted])
                if min(arrived_at_s) == inf:
                    raise RuntimeError(f"nothing arrived; the end of the daemon's log:\n{daemon.log_text[-2000:]}")
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

    async def _enqueue(self, scenario: Scenario, side: Side, **schedule: float) -> list[list[Any]]:
        """The requests that the producer enqueued; see producer.py."""
        enqueued: list[list[Any]] = await self._producer.ask(
            dsn=self._postgres.dsn(side.database, "bench_producer"),
            operator_ids=scenario.measured,
            method=scenario.method,
            **schedule,
        )
        return enqueued

    @asynccontextmanager
    async def _running_daemon(self, side: Side) -> AsyncIterator[Daemon]:
        fleet = Fleet(folder=side.folder, dsn=self._postgres.dsn(side.database, "bench_daemon"), session=self._session)
        side.daemons_started += 1
        try:
            daemon = await fleet.start(f"bench-{side.daemons_started}", **_DAEMON_SECTIONS)
            yield daemon
            daemon.terminate()
            await daemon.exited()
        finally:
            fleet.end()


@asynccontextmanager
async def open_isolation_environment(postgres: EmbeddedPostgres, folder: Path) -> AsyncIterator[IsolationEnvironment]:
    """A prepared environment; ends its child processes afterwards."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        children = {}
        for name in ("sink", "producer"):
            children[name] = await JsonLinesProcess.start(f"tests.bench.{name}")
            stack.push_async_callback(children[name].close)
        environment = IsolationEnvironment(postgres, folder, session=session, **children)
        await environment.prepare()
        yield environment
