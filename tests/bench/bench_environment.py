"""The environment of all parts: Postgres with fsync, nginx, template databases and daemons."""

import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.backlog import Connection, owner_of
from tests.bench.cpu_clock import CpuClock, own_s
from tests.bench.isolation_environment import LOGINS
from tests.bench.meter import Crew, Meter, Reading
from tests.bench.receiver import Receiver
from tests.bench.workload import CALLBACKS_PER_BET, OPERATORS, check_done, enqueue_bets, write_operators
from tests.support.daemons import Daemon, Fleet

EMPTY = "ours_empty"
"""Template database: our schema and the operators."""
_SECTIONS: dict[str, Any] = {
    # Production values instead of the faster ones in tests/support; only draining is shortened.
    "daemon": {"poll_interval_s": 0.5, "drain_s": 2.0},
    "log": {"level": "info", "format": "json"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Rounds and amount of work. `scale` multiplies the work.

    `full` uses the full sizes of flat-* and memory. `before` is the commit of the part `before`.
    """

    rounds: int
    scale: float
    full: bool
    seed: int
    before: str = ""

    def scaled(self, count: int) -> int:
        return max(1, round(count * self.scale))


class BenchEnvironment:
    """The servers and databases of the whole benchmark."""

    def __init__(
        self,
        postgres: EmbeddedPostgres,
        receiver: Receiver,
        *,
        folder: Path,
        session: aiohttp.ClientSession,
        plan: Plan,
        say: Callable[[str], None],
    ) -> None:
        self.postgres = postgres
        self.receiver = receiver
        self.folder = folder
        self.session = session
        self.plan = plan
        self.say = say
        self._instances = 0

    @property
    def bets(self) -> int:
        """Bets of one round: some seconds of work."""
        return self.plan.scaled(10_000)

    async def prepare(self) -> None:
        """Create the template database with schema and operators, and the login roles."""
        async with self.owner("postgres") as owner:
            await owner.execute(f"create database {EMPTY} template template0 encoding 'UTF8'")
            await migrate(self.postgres.dsn(EMPTY))
            for login, group in LOGINS.items():
                await owner.execute(f"create role {login} login; grant {group} to {login}")
        await self.introduce(self.files("work", self.receiver.url), EMPTY)

    def files(self, name: str, url: str, *, operators: Sequence[str] = OPERATORS, **sections: Any) -> Path:
        """Write a configuration folder with these operators at one address."""
        folder = self.folder / name
        return write_operators(folder, dict.fromkeys(operators, url), **sections)

    async def introduce(self, files: Path, database: str) -> None:
        """Register the operators in the database by starting a daemon."""
        async with self.daemons(files, database) as (daemon,):
            await daemon.ready()

    async def filled(self, name: str, *, bets: int, template: str = EMPTY, operators: Sequence[str] = OPERATORS) -> str:
        """Create a template database with `bets` enqueued bets; returns its name."""
        await self.clone(template, name)
        async with self.owner(name) as owner:
            await enqueue_bets(owner, bets, prefix="bet-", operators=operators)
            await owner.execute("vacuum analyze")
        return name

    async def clone(self, template: str, name: str) -> str:
        """Copy the template and wait for the checkpoint; returns the copy's name."""
        async with self.owner("postgres") as owner:
            await owner.execute(f"create database {name} template {template}")
            await owner.execute("checkpoint")
        return name

    @asynccontextmanager
    async def copy(self, template: str, name: str) -> AsyncIterator[str]:
        """A copy of the template for one round, dropped afterwards; yields its name."""
        await self.clone(template, name)
        try:
            yield name
        finally:
            await self.drop(name)

    async def drop(self, *names: str) -> None:
        async with self.owner("postgres") as owner:
            for name in names:
                await owner.execute(f"drop database {name} with (force)")

    async def clear(self) -> None:
        """Drop every database except the template."""
        async with self.owner("postgres") as owner:
            left = "select datname from pg_database where not datistemplate and datname <> all($1)"
            names = [row["datname"] for row in await owner.fetch(left, ["postgres", EMPTY])]
        await self.drop(*names)

    def owner(self, database: str) -> AbstractAsyncContextManager[Connection]:
        return owner_of(self.postgres, database)

    @asynccontextmanager
    async def daemons(self, files: Path, database: str, *, count: int = 1) -> AsyncIterator[list[Daemon]]:
        """Start daemons; afterwards stop them and delete their logs."""
        fleet = Fleet(folder=files, dsn=self.postgres.dsn(database, "bench_daemon"), session=self.session)
        try:
            for _ in range(count):
                self._instances += 1
                fleet.spawn(f"bench-{self._instances}", **_SECTIONS)
            yield fleet.daemons
            for daemon in fleet.daemons:
                daemon.terminate()
            for daemon in fleet.daemons:
                await daemon.exited()
        finally:
            fleet.end()
            for daemon in fleet.daemons:
                daemon.log.unlink()

    async def deliver(
        self,
        files: Path,
        database: str,
        bets: int,
        *,
        daemons: int = 1,
        since: Any = None,
        operators: Sequence[str] = OPERATORS,
        receiver: Receiver | None = None,
    ) -> Reading:
        """Deliver everything that is enqueued, and check it. Raises BrokenRoundError."""
        meter = Meter(receiver or self.receiver, self.session)
        await meter.start()
        async with self.owner(database) as owner, self.daemons(files, database, count=daemons) as running:
            crew = Crew(
                workers=tuple(daemon.process.pid for daemon in running),
                store=(self.postgres_pid,),
                is_alive=lambda: all(daemon.process.poll() is None for daemon in running),
                output=lambda: running[0].log_text[-1000:],
                wal_bytes=wal_counter(owner),
            )
            reading = await meter.measure(bets * CALLBACKS_PER_BET, crew)
            await check_done(owner, bets, since=since, operators=operators)
            # Sum of all label values over all daemons.
            metrics: defaultdict[str, float] = defaultdict(float)
            for daemon in running:
                for name, samples in (await daemon.metrics()).items():
                    metrics[name] += sum(samples.values())
            return replace(reading, metrics=metrics)

    def clock(self, *pids: int) -> Callable[[], float]:
        """A function that returns the cores used by other processes since this call."""
        clock = CpuClock(known=[*pids, self.postgres_pid, self.receiver.pid])
        began_own_s, began_s = own_s(), time.monotonic()

        def others() -> float:
            own_cores = (own_s() - began_own_s) / (time.monotonic() - began_s)
            return max(0.0, clock.cores().get("others", 0.0) - own_cores)

        return others

    @property
    def postgres_pid(self) -> int:
        assert self.postgres.pid is not None
        return self.postgres.pid


def wal_counter(owner: Connection) -> Callable[[], Awaitable[int]]:
    """A function that returns the bytes of WAL that the server has written so far."""

    async def wal_bytes() -> int:
        return int(await owner.fetchval("select pg_current_wal_lsn() - '0/0'::pg_lsn"))

    return wal_bytes


def free_gb(folder: Path) -> float:
    """Free disk space at a folder, in 10^9 bytes."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize / 1e9
