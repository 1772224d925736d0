"""The environment: database, operators and daemon as real processes on 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from predictu_dispatch.books_check.check import CURRENCY
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.demo.fixtures import (
    AUDIT_KEY_FILE,
    OPERATORS,
    PLAYERS,
    FaultRates,
    OperatorFixture,
    dispatcher_toml,
    operator_toml,
)
from predictu_dispatch.demo.process import DemoError, Process, reference_operator
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.binaries import free_port
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres

DATABASE: Final = "predictu_demo"
LOGINS: Final = {
    "demo_producer": "predictu_producer, predictu_importer",
    "demo_daemon": "predictu_dispatcher",
    "demo_support": "predictu_support",
    "demo_auditor": "predictu_auditor",
    "demo_person": "predictu_support, predictu_operations, predictu_auditor, predictu_reconciler",
    "demo_second_person": "predictu_reconciler",
}
_READY_TIMEOUT_S: Final = 30.0
_READY_POLL_S: Final = 0.05


@dataclass(slots=True, kw_only=True)
class Operator:
    """One reference operator and its admin address."""

    fixture: OperatorFixture
    process: Process
    wallet: Path
    callback_url: str
    signing_key: SigningKey
    admin_url: str = ""

    async def start(self) -> None:
        """Start the operator; after a kill on the same port and with the same wallet."""
        await self.process.start()
        self.admin_url = json.loads(await self.process.first_line())["admin_url"]


class Environment:
    """Everything that the demo starts; `announce` shows a sentence on the screen at once."""

    def __init__(
        self, folder: Path, postgres: EmbeddedPostgres, http: aiohttp.ClientSession, announce: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.config = folder / "config" / "dispatcher.toml"
        self.postgres = postgres
        self.http = http
        self.http_port = free_port()
        self.audit_key = b""
        """The public key of the audit's logs."""
        self.operators: dict[str, Operator] = {}
        self.announce = announce
        command = [sys.executable, "-m", "predictu_dispatch", "run", "--config", str(self.config)]
        self.daemon = Process("daemon", command, folder=folder, prints_first_line=False)

    def dsn(self, login: str) -> str:
        return self.postgres.dsn(DATABASE, login)

    async def start_operators(self, *, fault_seed: int) -> None:
        """Start all three with their players, and write the configuration files."""
        self.operators = {fixture.operator_id: self._operator(fixture, fault_seed) for fixture in OPERATORS}
        await asyncio.gather(*(operator.start() for operator in self.operators.values()))
        players = [
            {"player_id": player_id, "currency": CURRENCY, "balance": balance} for player_id, balance in PLAYERS.items()
        ]
        for operator_id in self.operators:
            await self._post_admin(operator_id, "players", players)
        self.audit_key = create_key_file(self.config.with_name(AUDIT_KEY_FILE), "EdDSA").ed25519_public_key
        self.config.write_text(dispatcher_toml(dsn=self.dsn("demo_daemon"), http_port=self.http_port))

    def _operator(self, fixture: OperatorFixture, fault_seed: int) -> Operator:
        name = fixture.operator_id
        files = self.config.parent / "operators"
        files.mkdir(parents=True, exist_ok=True)
        key_file = files / "keys" / f"{name}.pem"
        signing_key = create_key_file(key_file, fixture.algorithm)
        # A restarted operator needs the same port.
        port = free_port()
        callback_url = f"http://127.0.0.1:{port}/predictu"
        (files / f"{name}.toml").write_text(
            operator_toml(fixture, callback_url=callback_url, key_file=key_file.relative_to(files))
        )
        process = reference_operator(
            name,
            folder=self.folder,
            port=port,
            public_key=signing_key.public_pem(),
            algorithm=fixture.algorithm,
            amount_format=fixture.amount_format,
            fault_seed=fault_seed,
        )
        return Operator(
            fixture=fixture,
            process=process,
            wallet=self.folder / f"{name}.sqlite",
            callback_url=callback_url,
            signing_key=signing_key,
        )

    async def set_fault_rates(self, operator_id: str, rates: FaultRates) -> None:
        """From the next callback on, this share of callbacks to the operator fails."""
        await self._post_admin(operator_id, "faults", rates)

    async def _post_admin(self, operator_id: str, route: str, content: object) -> None:
        url = f"{self.operators[operator_id].admin_url}/_admin/{route}"
        async with self.http.post(url, json=content) as answer:
            if not answer.ok:
                raise DemoError(f"{url} answered {answer.status}: {await answer.text()}")

    async def start_daemon(self) -> None:
        """Start the daemon and wait until /readyz answers 200."""
        await self.daemon.start()
        give_up_at_s = time.monotonic() + _READY_TIMEOUT_S
        while not await self._daemon_is_ready():
            if not self.daemon.is_running or time.monotonic() > give_up_at_s:
                raise self.daemon.failure("did not become ready")
            await asyncio.sleep(_READY_POLL_S)

    async def _daemon_is_ready(self) -> bool:
        try:
            async with self.http.get(f"http://127.0.0.1:{self.http_port}/readyz") as answer:
                return answer.ok
        except aiohttp.ClientError:
            return False

    async def stop_daemon(self) -> None:
        """Stop the daemon. Raises DemoError if it does not exit with 0."""
        if code := await self.daemon.stop():
            raise self.daemon.failure(f"exited with {code}")

    async def close(self) -> None:
        """End all processes at once."""
        processes = (self.daemon, *(operator.process for operator in self.operators.values()))
        await asyncio.gather(*(process.close() for process in processes))


async def create_database(postgres: EmbeddedPostgres, name: str, logins: Mapping[str, str]) -> None:
    """Create a database with its schema, and the logins with their roles."""
    owner = await asyncpg.connect(postgres.dsn())
    try:
        await owner.execute(f"create database {name} template template0 encoding 'UTF8'")
        await migrate(postgres.dsn(name))
        for login, role in logins.items():
            await owner.execute(f"create role {login} login; grant {role} to {login}")
    finally:
        await owner.close()


@asynccontextmanager
async def open_environment(
    folder: Path, postgres: EmbeddedPostgres, *, fault_seed: int, announce: Callable[[str], None]
) -> AsyncIterator[Environment]:
    """Everything runs inside the block; no process is left after it."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)))
        environment = Environment(folder, postgres, http, announce)
        stack.push_async_callback(environment.close)
        await create_database(postgres, DATABASE, LOGINS)
        await environment.start_operators(fault_seed=fault_seed)
        await environment.start_daemon()
        yield environment
