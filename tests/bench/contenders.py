"""The contenders of `throughput`: our daemon and its peers, each with its own prefilled store."""

import asyncio
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from tests.bench.bench_environment import BenchEnvironment, wal_counter
from tests.bench.child_process import ChildProcess
from tests.bench.meter import Crew, Meter, Reading
from tests.bench.peers import Peer
from tests.bench.redis_server import RedisServer, redis_server
from tests.bench.workload import CALLBACKS_PER_BET

_COMMAND_TIMEOUT_S = 300.0
"""Filling takes up to a minute."""


class PeerMissingError(Exception):
    """A peer cannot run here; the message says why and what to do."""


class Contender(ABC):
    """One side of the comparison, run once per round."""

    name: str

    @abstractmethod
    async def prepare(self) -> int:
        """Prepare what all rounds share; returns the number of requests per round."""

    @abstractmethod
    async def measure(self) -> Reading:
        """Run one round. Raises BrokenRoundError."""


class Ours(Contender):
    name = "ours"

    def __init__(self, environment: BenchEnvironment) -> None:
        self._environment = environment
        self._files = environment.files("work", environment.receiver.url)
        self._full = ""

    @override
    async def prepare(self) -> int:
        self._full = await self._environment.filled("ours_full", bets=self._environment.bets)
        return self._environment.bets * CALLBACKS_PER_BET

    @override
    async def measure(self) -> Reading:
        async with self._environment.copy(self._full, "ours_round") as database:
            return await self._environment.deliver(self._files, database, self._environment.bets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A peer's job store for one round; `pids` are the store's processes."""

    address: str
    pids: tuple[int, ...] = ()
    # Without a count, a worker works until no job is left.
    count: tuple[str, ...] = ()
    wal_bytes: Callable[[], Awaitable[int]] | None = None


class Scripted(Contender):
    """A peer without a store, with `count` jobs."""

    def __init__(self, environment: BenchEnvironment, peer: Peer, python: Path, count: int) -> None:
        self.name = peer.name
        self._environment = environment
        self._command = (str(python), str(peer.script))
        self._count = count

    @override
    async def prepare(self) -> int:
        return self._count

    @override
    async def measure(self) -> Reading:
        meter = Meter(self._environment.receiver, self._environment.session)
        async with self._fresh_store() as store:
            await meter.start()
            with self.work(store.address, self._environment.receiver.url, *store.count) as worker:
                crew = Crew(
                    workers=(worker.pid,),
                    store=store.pids,
                    is_alive=lambda: worker.is_alive,
                    output=lambda: worker.output,
                    wal_bytes=store.wal_bytes,
                )
                return await meter.measure(self._count, crew)

    def work(self, *arguments: str) -> ChildProcess:
        log = self._environment.folder / f"{self.name}.log"
        log.unlink(missing_ok=True)
        return ChildProcess([*self._command, "work", *arguments], log=log)

    async def run(self, *arguments: str) -> bytes:
        """Run another of its commands; returns its output.

        Raises RuntimeError with the output if it fails.
        """
        process = await asyncio.create_subprocess_exec(
            *self._command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            printed, complained = await asyncio.wait_for(process.communicate(), _COMMAND_TIMEOUT_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"{self.name} {arguments[0]} failed: {complained.decode(errors='replace')[-2000:]}")
        return printed

    @asynccontextmanager
    async def _fresh_store(self) -> AsyncIterator[Store]:
        yield Store(address="-", count=(str(self._count),))


class OnPostgres(Scripted):
    """A peer with its jobs in a database of our Postgres."""

    async def install(self) -> str:
        """Create a database with the peer's schema; returns its name."""
        database = f"peer_{self.name.lower()}"
        await self._environment.clone("template0", database)
        await self.run("prepare", self._environment.postgres.dsn(database))
        return database

    @override
    async def prepare(self) -> int:
        self._full = await self.install()
        await self.run("fill", self._environment.postgres.dsn(self._full), str(self._count))
        async with self._environment.owner(self._full) as owner:
            await owner.execute("vacuum analyze")
        return self._count

    @override
    @asynccontextmanager
    async def _fresh_store(self) -> AsyncIterator[Store]:
        async with (
            self._environment.copy(self._full, f"{self._full}_round") as database,
            self._environment.owner(database) as owner,
        ):
            yield Store(
                address=self._environment.postgres.dsn(database),
                pids=(self._environment.postgres_pid,),
                wal_bytes=wal_counter(owner),
            )


class OnRedis(Scripted):
    """A peer with its jobs in Redis, with a new server for each round."""

    @override
    async def prepare(self) -> int:
        program = redis_server()
        if program is None:
            raise PeerMissingError(f"{self.name} needs redis-server; on Debian: apt-get install redis-server")
        self._program = program
        self._full = self._environment.folder / f"{self.name.lower()}-full"
        with RedisServer(program, self._full) as server:
            await self.run("prepare", server.url)
            await self.run("fill", server.url, str(self._count))
        return self._count

    @override
    @asynccontextmanager
    async def _fresh_store(self) -> AsyncIterator[Store]:
        folder = self._full.with_name(f"{self.name.lower()}-round")
        shutil.copytree(self._full, folder)
        try:
            with RedisServer(self._program, folder) as server:
                yield Store(address=server.url, pids=(server.pid,))
        finally:
            shutil.rmtree(folder)
