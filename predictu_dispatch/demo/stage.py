"""The stage: database, operators and daemon as real processes on 127.0.0.1, and the hand that pulls their plugs."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.demo.cast import CURRENCY, ROLES, Role, Weather, dispatcher_toml, operator_toml
from predictu_dispatch.demo.child import Child, DemoError
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.location import free_port
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres

DATABASE: Final = "predictu_demo"
LOGINS: Final = {
    "demo_platform": "predictu_producer",
    "demo_daemon": "predictu_dispatcher",
    "demo_support": "predictu_support",
}
"""Each part logs in as itself and may do what its role may do; in life, with a password or a certificate."""
_READY_TIMEOUT_S: Final = 30.0
_READY_POLL_S: Final = 0.05


@dataclass(slots=True, kw_only=True)
class Operator:
    """One reference operator: its process, and the side door for trials."""

    role: Role
    child: Child
    wallet: Path
    callback_url: str
    signing_key: SigningKey
    admin_url: str = ""

    async def start(self) -> None:
        """It answers; after a kill on the same port and with the same wallet."""
        await self.child.start()
        self.admin_url = json.loads(await self.child.first_line())["admin_url"]


class Stage:
    """Everything that was started; `notices` say what was killed and what came back, for the live view."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, http: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.postgres = postgres
        self.http = http
        self.http_port = free_port()
        self.operators: dict[str, Operator] = {}
        self.notices: list[str] = []
        self.began_s = time.monotonic()
        self.daemon = Child(
            "daemon",
            [sys.executable, "-m", "predictu_dispatch", "run", "--config", str(self.config)],
            folder=folder,
            announces_itself=False,
        )

    @property
    def config(self) -> Path:
        """The daemon's configuration file."""
        return self.folder / "config" / "dispatcher.toml"

    def dsn(self, login: str) -> str:
        """The way in for one of LOGINS."""
        return self.postgres.dsn(DATABASE, login)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stage was opened."""
        return time.monotonic() - self.began_s

    def note(self, text: str) -> None:
        """The live view shows this, with the time."""
        self.notices.append(f"{self.elapsed_s:5.1f} s  {text}")

    async def start_daemon(self) -> None:
        """The daemon is ready: its /readyz says so."""
        await self.daemon.start()
        give_up_at_s = time.monotonic() + _READY_TIMEOUT_S
        while not await self._daemon_is_ready():
            if not self.daemon.is_running or time.monotonic() > give_up_at_s:
                raise self.daemon.failure("did not become ready")
            await asyncio.sleep(_READY_POLL_S)

    async def change_weather(self, operator_id: str, weather: Weather) -> None:
        """From the next callback on, this operator spoils these shares of them."""
        await self._admin(operator_id, "faults", weather)

    async def _admin(self, operator_id: str, route: str, content: object) -> None:
        url = f"{self.operators[operator_id].admin_url}/_admin/{route}"
        async with self.http.post(url, json=content) as answer:
            if not answer.ok:
                raise DemoError(f"{url} answered {answer.status}: {await answer.text()}")

    async def _daemon_is_ready(self) -> bool:
        try:
            async with self.http.get(f"http://127.0.0.1:{self.http_port}/readyz") as answer:
                return answer.ok
        except aiohttp.ClientError:
            return False

    async def prepare_database(self) -> None:
        """Schema and login roles are there."""
        owner = await asyncpg.connect(self.postgres.dsn())
        try:
            await owner.execute(f"create database {DATABASE} template template0 encoding 'UTF8'")
            await migrate(self.postgres.dsn(DATABASE))
            for login, group in LOGINS.items():
                await owner.execute(f"create role {login} login; grant {group} to {login}")
        finally:
            await owner.close()

    async def start_operators(self, *, fault_seed: int) -> None:
        """All three answer, have their players, and their files are written for the daemon."""
        self.operators = {role.operator_id: self._operator(role, fault_seed) for role in ROLES}
        await asyncio.gather(*(operator.start() for operator in self.operators.values()))
        for operator_id, operator in self.operators.items():
            players = [
                {"player_id": player_id, "currency": CURRENCY, "balance": balance}
                for player_id, balance in operator.role.players.items()
            ]
            await self._admin(operator_id, "players", players)
        self.config.write_text(dispatcher_toml(dsn=self.dsn("demo_daemon"), http_port=self.http_port))

    def _operator(self, role: Role, fault_seed: int) -> Operator:
        name = role.operator_id
        files = self.config.parent / "operators"
        files.mkdir(parents=True, exist_ok=True)
        key_file = files / "keys" / f"{name}.pem"
        signing_key = create_key_file(key_file, role.algorithm)
        public_key = self.folder / f"{name}.public.pem"
        public_key.write_bytes(signing_key.public_pem())
        # Its port must still be its own when it comes back, so the system must not give it to an outgoing connection.
        address = f"127.0.0.1:{free_port()}"
        callback_url = f"http://{address}/predictu"
        (files / f"{name}.toml").write_text(
            operator_toml(role, callback_url=callback_url, key_file=key_file.relative_to(files))
        )
        wallet = self.folder / f"{name}.sqlite"
        command = [
            *(sys.executable, "-m", "predictu_dispatch.reference_operator", "--operator-id", name),
            *("--database", str(wallet), "--public-key", str(public_key), "--algorithm", role.algorithm),
            *("--amount-format", role.amount_format, "--listen", address, "--admin-listen", "127.0.0.1:0"),
            *("--fault-seed", str(fault_seed), "--log", "json"),
        ]
        child = Child(name, command, folder=self.folder, announces_itself=True)
        return Operator(role=role, child=child, wallet=wallet, callback_url=callback_url, signing_key=signing_key)

    async def stop_all(self) -> None:
        """The daemon drains and ends, then the operators. Raises DemoError where one did not end by itself and well."""
        codes = {"daemon": await self.daemon.stop()}
        operators = self.operators.values()
        stopped = await asyncio.gather(*(operator.child.stop() for operator in operators))
        codes |= {operator.role.operator_id: code for operator, code in zip(operators, stopped, strict=True)}
        if wrong := {name: code for name, code in codes.items() if code != 0}:
            raise DemoError(f"these did not stop with exit code 0: {wrong}; see their logs in {self.folder}")

    async def start_again(self) -> None:
        """What stop_all() stopped runs again, on the same data."""
        await asyncio.gather(*(operator.start() for operator in self.operators.values()))
        await self.start_daemon()

    def children(self) -> Iterable[Child]:
        """All processes but the database's, in the order in which they must end."""
        return [self.daemon, *(operator.child for operator in self.operators.values())]


@asynccontextmanager
async def open_stage(folder: Path, postgres: EmbeddedPostgres, *, fault_seed: int) -> AsyncIterator[Stage]:
    """Everything runs inside the block; afterwards no process is left, whatever happened in it."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)))
        stage = Stage(folder, postgres, http)

        async def close_children() -> None:
            for child in stage.children():
                await child.close()

        stack.push_async_callback(close_children)
        await stage.prepare_database()
        await stage.start_operators(fault_seed=fault_seed)
        await stage.start_daemon()
        yield stage
