"""The environment of a chaos run: Postgres, operators and daemons, with proxies between.

Each daemon reaches Postgres by a proxy of its own, so that it can be cut off alone; so do the
producers.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg

from predictu_dispatch.books_check.check import CURRENCY
from predictu_dispatch.core.operator_settings import JtiSource, SigningAlgorithm
from predictu_dispatch.demo.environment import create_database
from predictu_dispatch.demo.process import Process, reference_operator
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.embedded_postgres.binaries import free_port
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.chaos.answers import AnswerLog
from tests.chaos.proxy import Proxy, proxied
from tests.chaos.sealing import KEEP_EVERY_CHECKPOINT, KEY_FILE, SETTINGS
from tests.chaos.stepped_daemon import CLOCK_STEP_VARIABLE
from tests.chaos.traffic import PLAYERS
from tests.support.daemons import Daemon, Fleet
from tests.support.stepped_clock import SteppedClock, stepped_clock

DATABASE = "chaos"
CONNECTIONS_MAX = 100
LOGINS = {
    "chaos_producer": "predictu_producer",
    "chaos_daemon": "predictu_dispatcher",
    "chaos_auditor": "predictu_auditor",
}
GRANTLESS = "chaos_nobody"
"""A login without any grant."""
_POSTGRES = {
    "max_connections": str(CONNECTIONS_MAX),
    # What a publication needs.
    "wal_level": "logical",
}
_SMALL_QUEUE = {"max_notify_queue_pages": "64"}
"""Small enough to be filled; an older Postgres has 8 GB."""
_QUEUE_SETTING_SINCE = 17
NO_FAULTS: dict[str, float] = {}
MIXED_FAULTS = {
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
"""Credits and rollbacks are retried without end, because an exhausted one needs a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFixture:
    """How an operator is integrated, and its usual fault rates."""

    algorithm: SigningAlgorithm = "EdDSA"
    amount_format: str = "subunits"
    # The answers of one with `attempt` are compared with the audit one by one.
    jti: JtiSource = "attempt"
    fault_rates: dict[str, float] = field(default_factory=dict)


OPERATORS = {
    "op_good": OperatorFixture(),
    "op_flaky": OperatorFixture(fault_rates=MIXED_FAULTS),
    "op_decimal": OperatorFixture(algorithm="RS256", amount_format="decimal", jti="request_id"),
}


@dataclass(kw_only=True)
class Operator:
    """One reference operator behind a proxy."""

    operator_id: str
    process: Process
    wallet: Path
    proxy: Proxy
    fault_rates: dict[str, float]
    session: aiohttp.ClientSession
    admin_url: str = ""
    # One injection at a time kills and starts it.
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    answers: AnswerLog

    async def start(self) -> None:
        """Start it; after a kill on the same port and with the same wallet."""
        await self.process.start()
        self.admin_url = json.loads(await self.process.first_line())["admin_url"]
        await self.post_admin("faults", self.fault_rates)

    async def set_fault_rates(self, fault_rates: dict[str, float]) -> None:
        """Set the rates, also those of the next start."""
        self.fault_rates = fault_rates
        await self.post_admin("faults", fault_rates)

    async def post_admin(self, route: str, content: object) -> None:
        async with self.session.post(f"{self.admin_url}/_admin/{route}", json=content) as answer:
            answer.raise_for_status()


@dataclass(kw_only=True)
class ChaosEnvironment:
    """Everything that faults are injected into."""

    folder: Path
    postgres: EmbeddedPostgres
    clock: SteppedClock
    session: aiohttp.ClientSession
    fleet: Fleet
    stack: AsyncExitStack
    producers_proxy: Proxy
    operators: list[Operator] = field(default_factory=list)
    daemon_proxies: dict[str, Proxy] = field(default_factory=dict)
    # One injection at a time stops and starts Postgres.
    postgres_busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    _started: int = 0

    @property
    def daemons(self) -> list[Daemon]:
        return [daemon for daemon in self.fleet.daemons if daemon.process.poll() is None]

    @property
    def socket(self) -> str:
        return f"{self.postgres.folder}/run/.s.PGSQL.{self.postgres.port}"

    @property
    def postgres_proxies(self) -> list[Proxy]:
        return [self.producers_proxy, *self.daemon_proxies.values()]

    def dsn(self, login: str, proxy: Proxy) -> str:
        return f"postgresql://{quote(login)}@127.0.0.1:{proxy.port}/{DATABASE}?sslmode=disable"

    async def start_daemon(
        self, fault: str = "", *, clock_step_s: str | None = None, stderr: int | None = None
    ) -> Daemon:
        """Start another daemon, with a new name; it may fail."""
        clock = {} if clock_step_s is None else {CLOCK_STEP_VARIABLE: clock_step_s}
        self._started += 1
        name = f"chaos-{self._started}"
        self.daemon_proxies[name] = proxy = await self.stack.enter_async_context(proxied(self.socket))
        return self.fleet.spawn(
            name,
            fault=fault,
            module="tests.chaos.stepped_daemon" if clock else "predictu_dispatch",
            environment=clock,
            stderr=stderr,
            database={"dsn": self.dsn("chaos_daemon", proxy), "pool_size": 6},
            daemon={"poll_interval_s": 0.2, "drain_s": 3.0},
            audit=SETTINGS,
        )

    async def stop_daemons(self) -> None:
        """Stop every daemon, and wait until all have drained and exited."""
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            await daemon.exited()

    @property
    def ended_early(self) -> set[str]:
        """The daemons that were killed, and those that stopped before everything was settled."""
        return {
            daemon.instance
            for daemon in self.fleet.daemons
            if daemon.process.poll() == -signal.SIGKILL or "drain.timed_out" in daemon.log_text
        }

    def proxy_of(self, daemon: Daemon) -> Proxy:
        return self.daemon_proxies[daemon.instance]

    async def restart_postgres(self, *, kill: bool, after_s: float) -> None:
        """Kill or stop Postgres, and start it again after a while on the same data."""
        async with self.postgres_busy:
            await asyncio.to_thread(self.postgres.kill if kill else self.postgres.halt)
            await asyncio.sleep(after_s)
            await asyncio.to_thread(self.postgres.restart)

    async def owner(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection without a proxy."""
        return await asyncpg.connect(self.postgres.dsn(DATABASE))


@asynccontextmanager
async def open_environment(folder: Path, *, seed: int) -> AsyncIterator[ChaosEnvironment]:
    """A new environment without daemons; everything is stopped after the block."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)))
        # Files survive kill -9 in the system's cache, so nothing needs to reach the disk.
        clock = stack.enter_context(stepped_clock())
        is_queue_small = int(clock.postgres().version.partition(".")[0]) >= _QUEUE_SETTING_SINCE
        postgres = clock.postgres(_POSTGRES | (_SMALL_QUEUE if is_queue_small else {}))
        await asyncio.to_thread(postgres.start)
        stack.callback(postgres.stop)
        await create_database(postgres, DATABASE, LOGINS)
        await _prepare(postgres)
        create_key_file(folder / KEY_FILE, "EdDSA")
        producers_proxy = await stack.enter_async_context(proxied(f"{postgres.folder}/run/.s.PGSQL.{postgres.port}"))
        fleet = Fleet(folder=folder, dsn="", session=session)
        stack.callback(fleet.end)
        environment = ChaosEnvironment(
            folder=folder,
            postgres=postgres,
            clock=clock,
            session=session,
            fleet=fleet,
            stack=stack,
            producers_proxy=producers_proxy,
        )
        for number, (operator_id, fixture) in enumerate(OPERATORS.items()):
            environment.operators.append(await _operator(environment, operator_id, fixture, seed=seed + number))
        yield environment


async def _prepare(postgres: EmbeddedPostgres) -> None:
    owner = await asyncpg.connect(postgres.dsn(DATABASE))
    try:
        await owner.execute(f"create role {GRANTLESS} login")
        await owner.execute(KEEP_EVERY_CHECKPOINT)
    finally:
        await owner.close()


async def _operator(
    environment: ChaosEnvironment, operator_id: str, fixture: OperatorFixture, *, seed: int
) -> Operator:
    folder = environment.folder
    key = create_key_file(folder / f"{operator_id}.pem", fixture.algorithm)
    port = free_port()
    answers = AnswerLog()
    proxy = await environment.stack.enter_async_context(proxied(("127.0.0.1", port), answers=answers))
    process = reference_operator(
        operator_id,
        folder=folder,
        port=port,
        public_key=key.public_pem(),
        algorithm=fixture.algorithm,
        amount_format=fixture.amount_format,
        fault_seed=seed,
    )
    environment.stack.push_async_callback(process.close)
    operator = Operator(
        operator_id=operator_id,
        process=process,
        wallet=folder / f"{operator_id}.sqlite",
        proxy=proxy,
        fault_rates=dict(fixture.fault_rates),
        answers=answers,
        session=environment.session,
    )
    await operator.start()
    await operator.post_admin(
        "players",
        [{"player_id": player_id, "currency": CURRENCY, "balance": balance} for player_id, balance in PLAYERS.items()],
    )
    environment.fleet.write_operator(
        f"http://127.0.0.1:{proxy.port}/predictu",
        operator_id=operator_id,
        amount_format=fixture.amount_format,
        signing={"key_file": f"../{operator_id}.pem", "algorithm": fixture.algorithm, "jti": fixture.jti},
        interactive=_LANE | {"deadline_s": 4.0},
        settlement=_LAST_LANE,
        rollback={"recheck_s": 0.5},
        circuit={"failure_threshold": 30, "open_s": 0.5},
        health={"ping_interval_s": 2.0},
        statuses={
            "rejected": [
                *("BET_ROLLED_BACK", "BET_ALREADY_PLACED", "BET_ALREADY_SETTLED", "BET_MISMATCH", "WALLET_LIMIT")
            ],
            "retry": ["BAD_REQUEST"],
        },
    )
    return operator
