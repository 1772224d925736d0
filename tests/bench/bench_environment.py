"""Where all parts are measured: one Postgres with fsync, one nginx, databases to be cloned, daemons as they ship."""

import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.backlog import Connection
from tests.bench.cpu_clock import CpuClock, own_s
from tests.bench.meter import Crew, Meter, Reading
from tests.bench.receiver import Receiver
from tests.bench.stage import LOGINS
from tests.bench.work import CALLBACKS_PER_BET, OPERATORS, check_done, play_bets, write_operators
from tests.support.daemons import Daemon, Fleet

EMPTY = "ours_empty"
"""The database to be cloned: our schema, and the operators of the work."""
_SECTIONS: dict[str, Any] = {
    # The values of a production daemon, where tests/support has quicker ones; only stopping is hurried.
    "daemon": {"poll_interval_s": 0.5, "drain_s": 2.0},
    "log": {"level": "info", "format": "json"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often and how much. `scale` is a share of the usual work, to try things out; `full`: the sizes of issue 4."""

    rounds: int
    scale: float
    full: bool
    seed: int

    def scaled(self, count: int) -> int:
        return max(1, round(count * self.scale))


class BenchEnvironment:
    """Everything that lives as long as the benchmark."""

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
        """Of one round: some seconds of work."""
        return self.plan.scaled(10_000)

    async def prepare(self) -> None:
        """The server has our schema in a database to be cloned, and our login roles; the operators are known."""
        async with self.owner("postgres") as owner:
            await owner.execute(f"create database {EMPTY} template template0 encoding 'UTF8'")
            await migrate(self.postgres.dsn(EMPTY))
            for login, group in LOGINS.items():
                await owner.execute(f"create role {login} login; grant {group} to {login}")
        await self.introduce(self.files("work", self.receiver.url), EMPTY)

    def files(self, name: str, url: str, *, operators: Sequence[str] = OPERATORS, **sections: Any) -> Path:
        """A folder of daemons' files, with these operators at one address."""
        folder = self.folder / name
        return write_operators(folder, dict.fromkeys(operators, url), **sections)

    async def introduce(self, files: Path, database: str) -> None:
        """The database knows these operators: a daemon has started there."""
        async with self.daemons(files, database) as (daemon,):
            await daemon.ready()

    async def filled(self, name: str, *, bets: int, template: str = EMPTY, operators: Sequence[str] = OPERATORS) -> str:
        """A database to be cloned, with so many bets enqueued. Its name."""
        await self.clone(template, name)
        async with self.owner(name) as owner:
            await play_bets(owner, bets, prefix="bet-", operators=operators)
            await owner.execute("vacuum analyze")
        return name

    async def clone(self, template: str, name: str) -> str:
        """A fresh copy; its writing is over. Its name."""
        async with self.owner("postgres") as owner:
            await owner.execute(f"create database {name} template {template}")
            await owner.execute("checkpoint")
        return name

    @asynccontextmanager
    async def copy(self, template: str, name: str) -> AsyncIterator[str]:
        """A fresh copy for a round; afterwards it is gone. Its name."""
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
        """What a part has left is gone: only the database to be cloned stays."""
        async with self.owner("postgres") as owner:
            left = "select datname from pg_database where not datistemplate and datname <> all($1)"
            names = [row["datname"] for row in await owner.fetch(left, ["postgres", EMPTY])]
        await self.drop(*names)

    @asynccontextmanager
    async def owner(self, database: str) -> AsyncIterator[Connection]:
        owner = await asyncpg.connect(self.postgres.dsn(database))
        try:
            yield owner
        finally:
            owner.terminate()

    @asynccontextmanager
    async def daemons(self, files: Path, database: str, *, count: int = 1) -> AsyncIterator[list[Daemon]]:
        """Daemons have been started, and are asked to stop afterwards; what they logged goes."""
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
        """One round of ours: what is enqueued is delivered and looked through. Raises BrokenRoundError."""
        meter = Meter(receiver or self.receiver, self.session)
        await meter.start()
        async with self.owner(database) as owner, self.daemons(files, database, count=daemons) as running:
            crew = Crew(
                workers=tuple(daemon.process.pid for daemon in running),
                store=(self.postgres_pid,),
                is_alive=lambda: all(daemon.process.poll() is None for daemon in running),
                said=lambda: running[0].log_text[-1000:],
                wal_bytes=wal_counter(owner),
            )
            reading = await meter.measure(bets * CALLBACKS_PER_BET, crew)
            await check_done(owner, bets, since=since, operators=operators)
            # A metric is the sum of its labels' figures, over all daemons.
            metrics: defaultdict[str, float] = defaultdict(float)
            for daemon in running:
                for name, samples in (await daemon.metrics()).items():
                    metrics[name] += sum(samples.values())
            return replace(reading, metrics=metrics)

    def clock(self, *pids: int) -> Callable[[], float]:
        """Says how many cores others have used since, other than these processes, Postgres, nginx and ourselves."""
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
    """Says how many bytes of WAL the server has written since it was made."""

    async def wal_bytes() -> int:
        return int(await owner.fetchval("select pg_current_wal_lsn() - '0/0'::pg_lsn"))

    return wal_bytes


def free_gb(folder: Path) -> float:
    """What is left on the disk below a folder, in 10^9 bytes."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize / 1e9
