"""Everything a chaos run is played with, as real processes: Postgres, operators, daemons, and a proxy before each.

Each daemon has a proxy of its own before Postgres, so that it alone can be cut off; the producers have one as well.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg

from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.demo.process import Process
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.location import free_port
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.chaos.proxy import Proxy, proxied
from tests.chaos.stepped_daemon import CLOCK_STEP_VARIABLE
from tests.chaos.traffic import CURRENCY, PLAYERS
from tests.support.daemons import Daemon, Fleet

DATABASE = "chaos"
CONNECTIONS_MAX = 100
LOGINS = {"chaos_producer": "predictu_producer", "chaos_daemon": "predictu_dispatcher"}
CALM: dict[str, float] = {}
STORMY = {
    "reset": 0.05,
    "reset_after_apply": 0.08,
    "error_before_apply": 0.04,
    "error_after_apply": 0.08,
    "stall_before_apply": 0.02,
    "stall_after_apply": 0.04,
    "unavailable": 0.03,
    "not_json": 0.03,
    "duplicate": 0.05,
    "stall_s": 1.5,
}
_LANE = {
    "attempt_timeout_s": 1.0,
    "connect_timeout_s": 0.5,
    "max_attempts": 4,
    "initial_delay_s": 0.1,
    "max_delay_s": 0.5,
    "max_in_flight": 16,
}
_LAST_LANE = _LANE | {"deadline_s": 0, "max_attempts": 10_000, "max_delay_s": 1.0}
"""Credits and rollbacks are tried for as long as it takes: what is given up would need a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """How an operator is integrated, and its weather."""

    algorithm: SigningAlgorithm = "EdDSA"
    amount_format: str = "subunits"
    weather: dict[str, float] = field(default_factory=dict)


OPERATORS = {
    "op_calm": Character(),
    "op_stormy": Character(weather=STORMY),
    "op_decimal": Character(algorithm="RS256", amount_format="decimal"),
}


@dataclass(kw_only=True)
class Operator:
    """One reference operator, behind a proxy; what it does to callbacks is its weather."""

    operator_id: str
    child: Process
    wallet: Path
    proxy: Proxy
    weather: dict[str, float]
    session: aiohttp.ClientSession
    admin_url: str = ""
    # It is killed and started by one at a time.
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """It answers, on the same port and with the same wallet as before."""
        await self.child.start()
        self.admin_url = json.loads(await self.child.first_line())["admin_url"]
        await self.change_weather(self.weather)

    async def change_weather(self, weather: dict[str, float]) -> None:
        await self.tell("faults", weather)

    async def tell(self, route: str, content: object) -> None:
        async with self.session.post(f"{self.admin_url}/_admin/{route}", json=content) as answer:
            answer.raise_for_status()


@dataclass(kw_only=True)
class World:
    """What a fault_injector may lay hands on."""

    folder: Path
    postgres: EmbeddedPostgres
    session: aiohttp.ClientSession
    fleet: Fleet
    stack: AsyncExitStack
    producers_line: Proxy
    operators: list[Operator] = field(default_factory=list)
    lines: dict[str, Proxy] = field(default_factory=dict)
    # Postgres is killed and started by one at a time.
    postgres_busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    _started: int = 0

    @property
    def daemons(self) -> list[Daemon]:
        """Those that were started and have not been ended by anybody."""
        return [daemon for daemon in self.fleet.daemons if daemon.process.poll() is None]

    @property
    def socket(self) -> str:
        return f"{self.postgres.folder}/run/.s.PGSQL.{self.postgres.port}"

    @property
    def every_line(self) -> list[Proxy]:
        return [self.producers_line, *self.lines.values()]

    def dsn(self, login: str, line: Proxy) -> str:
        return f"postgresql://{quote(login)}@127.0.0.1:{line.port}/{DATABASE}?sslmode=disable"

    async def start_daemon(self, fault: str = "", *, clock_step_s: str | None = None) -> Daemon:
        """A daemon more, with a name nobody had; whether it becomes ready is its own business."""
        wrong = {} if clock_step_s is None else {CLOCK_STEP_VARIABLE: clock_step_s}
        self._started += 1
        name = f"chaos-{self._started}"
        self.lines[name] = line = await self.stack.enter_async_context(proxied(self.socket))
        return self.fleet.spawn(
            name,
            fault=fault,
            module="tests.chaos.stepped_daemon" if wrong else "predictu_dispatch",
            environment=wrong,
            database={"dsn": self.dsn("chaos_daemon", line), "pool_size": 6},
            daemon={"poll_interval_s": 0.2, "drain_s": 3.0},
        )

    async def stop_daemons(self) -> None:
        """All of them have finished what they had begun, and ended."""
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            await daemon.exited()

    def line_of(self, daemon: Daemon) -> Proxy:
        return self.lines[daemon.instance]

    async def restart_postgres(self, *, kill: bool, after_s: float) -> None:
        """Gone, by kill -9 or in order, and back after a while, with what it had on disk."""
        async with self.postgres_busy:
            await asyncio.to_thread(self.postgres.kill if kill else self.postgres.halt)
            await asyncio.sleep(after_s)
            await asyncio.to_thread(self.postgres.restart)

    async def owner(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A way in that goes round every proxy."""
        return await asyncpg.connect(self.postgres.dsn(DATABASE))


@asynccontextmanager
async def open_world(folder: Path, *, seed: int) -> AsyncIterator[World]:
    """The world before anything has happened in it, without daemons; afterwards nothing of it is left."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)))
        # What is killed by kill -9 leaves its files to the system, so nothing needs to reach the disk.
        postgres = EmbeddedPostgres(fsync=False, settings={"max_connections": str(CONNECTIONS_MAX)})
        await asyncio.to_thread(postgres.start)
        stack.callback(postgres.stop)
        await _prepare(postgres)
        producers_line = await stack.enter_async_context(proxied(f"{postgres.folder}/run/.s.PGSQL.{postgres.port}"))
        fleet = Fleet(folder=folder, dsn="", session=session)
        stack.callback(fleet.end)
        world = World(
            folder=folder, postgres=postgres, session=session, fleet=fleet, stack=stack, producers_line=producers_line
        )
        for number, (operator_id, character) in enumerate(OPERATORS.items()):
            world.operators.append(await _operator(world, operator_id, character, seed=seed + number))
        yield world


async def _prepare(postgres: EmbeddedPostgres) -> None:
    owner = await asyncpg.connect(postgres.dsn())
    try:
        await owner.execute(f"create database {DATABASE} template template0 encoding 'UTF8'")
        await migrate(postgres.dsn(DATABASE))
        for login, group in LOGINS.items():
            await owner.execute(f"create role {login} login; grant {group} to {login}")
    finally:
        await owner.close()


async def _operator(world: World, operator_id: str, character: Character, *, seed: int) -> Operator:
    folder = world.folder
    key = create_key_file(folder / f"{operator_id}.pem", character.algorithm)
    public_key = folder / f"{operator_id}.public.pem"
    public_key.write_bytes(key.public_pem())
    wallet = folder / f"{operator_id}.sqlite"
    port = free_port()
    command = [
        *(sys.executable, "-m", "predictu_dispatch.reference_operator", "--operator-id", operator_id),
        *("--database", str(wallet), "--public-key", str(public_key), "--algorithm", character.algorithm),
        *("--amount-format", character.amount_format),
        *("--listen", f"127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0"),
        *("--fault-seed", str(seed), "--log", "json"),
    ]
    proxy = await world.stack.enter_async_context(proxied(("127.0.0.1", port)))
    child = Process(operator_id, command, folder=folder, prints_first_line=True)
    world.stack.push_async_callback(child.close)
    operator = Operator(
        operator_id=operator_id,
        child=child,
        wallet=wallet,
        proxy=proxy,
        weather=dict(character.weather),
        session=world.session,
    )
    await operator.start()
    await operator.tell(
        "players",
        [{"player_id": player_id, "currency": CURRENCY, "balance": balance} for player_id, balance in PLAYERS.items()],
    )
    world.fleet.write_operator(
        f"http://127.0.0.1:{proxy.port}/predictu",
        operator_id=operator_id,
        amount_format=character.amount_format,
        signing={"key_file": f"../{operator_id}.pem", "algorithm": character.algorithm},
        interactive=_LANE | {"deadline_s": 4.0},
        settlement=_LAST_LANE,
        rollback={"recheck_s": 0.5},
        circuit={"failure_threshold": 30, "open_s": 0.5},
        health={"ping_interval_s": 2.0},
        statuses={
            "rejected": [
                *("BET_ROLLED_BACK", "BET_ALREADY_PLACED", "BET_ALREADY_SETTLED", "BET_MISMATCH", "WALLET_LIMIT")
            ]
        },
    )
    return operator
