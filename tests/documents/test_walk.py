"""A newcomer's walk: deploy/README.md, then every block of sql/README.md in order, as written.

The operator is the real reference operator and the daemon a real one. Not run here is what changes
the machine: packages, systemd and the database's roles; tests/walkthrough/walk.sh does that.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from predictu_dispatch.embedded_postgres.watcher import Watcher
from tests.support.code_blocks import ROOT, code_under, examples
from tests.support.daemons import Fleet, until
from tests.support.market import README
from tests.support.postgres import Database
from tests.support.schema_dump import find_pg_dump
from tests.support.typescript import HAS_NODE, build_application

DEPLOY = "deploy/README.md"
PROGRAM = "/opt/predictu-dispatch/bin/predictu-dispatch"
PLACED_WITHOUT_NODE = {"b-0": "open", "b-1": "closed", "b-2": "closed", "b-3": "open"}
PLACED = PLACED_WITHOUT_NODE | {"b-4": "open"}
FIRST_BALANCE, STAKE, WIN = 100_000, 1250, 2312
WAIT_S = 60.0

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, as deploy/README.md does")


def psql() -> str:
    pg_dump = find_pg_dump()
    program = shutil.which("psql") or (str(pg_dump.with_name("psql")) if pg_dump else None)
    if program is None:
        pytest.skip("needs psql; on Debian: apt install postgresql-client")
    return program


@dataclass(kw_only=True)
class Walk:
    """A machine as far as the walk needs it: its folders are below `root`."""

    root: Path
    database: Database
    owner: asyncpg.Connection[asyncpg.Record]
    ports: dict[str, int]

    def here(self, text: str) -> str:
        """Moves the text's folders below `root`, and its ports to free ones."""
        text = text.replace("~/", f"{self.root}/root/")
        for folder in ("/etc/", "/opt/", "/var/"):
            text = text.replace(f" {folder}", f" {self.root}{folder}").replace(f">{folder}", f">{self.root}{folder}")
            text = text.replace(f"={folder}", f"={self.root}{folder}")
        for port, free in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        return text

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREDICTU_")}
        path = f"{self.root}/bin:{sys.prefix}/bin:{os.environ['PATH']}"
        config = f"{self.root}/etc/predictu-dispatch/dispatcher.toml"
        packages = str(ROOT / "sql" / "clients" / "python" / "src")
        return kept | {
            "PATH": path,
            "PREDICTU_DISPATCH_CONFIG": config,
            "PRODUCER_DSN": self.database.producer,
            "PYTHONPATH": packages,
        }

    async def run(self, *command: str, stdin: str = "") -> str:
        """Runs the command; returns what it printed. Fails if its exit code is not 0."""
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            input=stdin,
            cwd=self.root / "etc/predictu-dispatch/operators",
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{stdin}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    async def sh(self, block: str) -> str:
        return await self.run("bash", "-eu", stdin=self.here(block))

    async def sql(self, block: str) -> str:
        return await self.run(psql(), "--set=ON_ERROR_STOP=1", "--no-psqlrc", self.database.producer, stdin=block)

    async def sql_errors(self, block: str) -> str:
        """Runs statements that fail; returns what psql printed, with the SQLSTATEs."""
        command = f"{psql()} --no-psqlrc --set=VERBOSITY=sqlstate '{self.database.producer}' 2>&1"
        return await self.run("sh", "-c", command, stdin=block)

    async def until_all_final(self) -> None:
        async def nothing_is_left() -> bool:
            return not await self.owner.fetchval(
                "select exists (select from predictu_dispatch.callback"
                " where method <> 'PING' and state in ('waiting', 'ready', 'in_flight'))"
            )

        await until("every callback is final", nothing_is_left)

    async def placements(self) -> dict[str, str]:
        """Returns the state of the placement of each bet."""
        rows = await self.owner.fetch("select bet_id, state from predictu_dispatch.callback where method = 'BET_MAKE'")
        return {row["bet_id"]: row["state"] for row in rows}

    async def bets(self) -> dict[str, str]:
        rows = await self.owner.fetch("select bet_id, state from predictu_dispatch.bet")
        return {row["bet_id"]: row["state"] for row in rows}


def free_ports(*ports: str) -> dict[str, int]:
    """Returns for each of the ports another one that nobody listens on."""
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in ports]
        return {port: one.getsockname()[1] for port, one in zip(ports, opened, strict=True)}


@pytest.fixture
async def walk(tmp_path: Path, database: Database) -> AsyncIterator[Walk]:
    """The machine after sections 1 and 3 of the guide."""
    share = tmp_path / "opt/predictu-dispatch/share/predictu-dispatch"
    for folder in (share, tmp_path / "etc/predictu-dispatch/operators", tmp_path / "etc/profile.d", tmp_path / "root"):
        folder.mkdir(parents=True)
    for file in ("config/dispatcher.toml", "config/operators/op_example.toml.example"):
        shutil.copy(ROOT / file, share)
    for file, dsn in (("etc/predictu-dispatch/dsn", database.dispatcher), ("root/oncall.dsn", database.operations)):
        (tmp_path / file).touch(mode=0o600)
        (tmp_path / file).write_text(dsn, encoding="utf-8")
    # Stands for systemd; the test starts the program.
    stub = tmp_path / "bin" / "systemd-run"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/started\n', encoding="utf-8")
    stub.chmod(0o755)
    owner = await asyncpg.connect(database.owner, command_timeout=WAIT_S)
    await owner.execute("create schema authorization test_producer")
    try:
        yield Walk(root=tmp_path, database=database, owner=owner, ports=free_ports("8080", "8081"))
    finally:
        owner.terminate()


@asynccontextmanager
async def started_operator(walk: Walk) -> AsyncIterator[None]:
    """Runs what the guide gave to systemd-run."""
    words = shlex.split((walk.root / "started").read_text(encoding="utf-8"))
    arguments = words[words.index(str(walk.root) + PROGRAM) + 1 :]
    arguments += ["--listen", f"127.0.0.1:{walk.ports['8080']}"]  # Its default port may be in use.
    (walk.root / "var/lib/reference-operator").mkdir(parents=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "predictu_dispatch", *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    guarded = walk.root / ".operator"
    guarded.mkdir()
    watcher = Watcher(guarded)
    watcher.watch(process.pid)
    try:
        yield
    finally:
        watcher.forget()
        process.kill()
        await process.wait()
        watcher.close()


@asynccontextmanager
async def deployed(walk: Walk) -> AsyncIterator[aiohttp.ClientSession]:
    """Follows deploy/README.md from its section 2 to the first PING."""
    for block in code_under(DEPLOY, "2. Configure", "sh"):
        await walk.sh(block)
    *operator, players = code_under(DEPLOY, "4. Add the first operator", "sh")
    for block in operator:
        await walk.sh(block)
    check, _, ping, _ = code_under(DEPLOY, "5. Start the daemon and send a PING", "sh")
    async with started_operator(walk), aiohttp.ClientSession() as session:
        assert '"created": 1' in await walk.sh(players)
        assert "no faults" in await walk.sh(check)
        fleet = Fleet(folder=walk.root / "etc/predictu-dispatch", dsn=walk.database.dispatcher, session=session)
        try:
            await fleet.start("walk-1")
            assert "is delivered" in await walk.sh(ping)
            yield session
        finally:
            await asyncio.to_thread(fleet.end)


async def test_each_block_of_the_two_guides_works_in_order_and_its_bet_is_placed(walk: Walk, tmp_path: Path) -> None:
    printed: list[str] = []
    sources: dict[str, str] = {}
    async with deployed(walk) as session:
        for example in [*examples("README.md"), *examples(README)]:
            match example.heading, example.language:
                case "Retention", _:
                    break
                case "The view ledger", _:
                    continue  # With another login, by test_producer_examples.py.
                case "Errors", "sql":
                    expected = re.findall(r"-- (\w{5})$", example.code, flags=re.MULTILINE)
                    assert re.findall(r"ERROR:  (\w{5})", await walk.sql_errors(example.code)) == expected
                case "TypeScript (node-postgres)", "ts" if HAS_NODE:
                    sources[("main.ts" if sources else "buy.ts")] = example.code
                    if len(sources) == 1:
                        continue
                    program = await asyncio.to_thread(build_application, tmp_path / "typescript", sources)
                    printed.append(await walk.run("node", str(program / "main.js")))
                case _, "sql":
                    printed.append(await walk.sql(example.code))
                case _, "python":
                    (tmp_path / "buy.py").write_text(example.code, encoding="utf-8")
                    printed.append(await walk.run(sys.executable, str(tmp_path / "buy.py")))
                case _:
                    continue
            await walk.until_all_final()
            assert set((await walk.placements()).values()) <= {"delivered"}, example.code
        bets = PLACED if HAS_NODE else PLACED_WITHOUT_NODE
        assert await walk.bets() == bets
        bought = [line for text in printed for line in text.splitlines() if "is bought" in line]
        assert bought == [f"{bet} is bought" for bet in ("b-3", "b-4") if bet in bets]
        assert any("applied" in text and "delivered" in text for text in printed)
        # All players' balances, in the reference operator's own books.
        async with session.get(f"http://127.0.0.1:{walk.ports['8081']}/_admin/ledger") as answer:
            ledger = await answer.json()
        assert ledger["balanced"] is True
        # Of the bets b-2 was returned.
        staked = STAKE * (len(bets) - 1)
        assert [wallet["balance"] for wallet in ledger["balances"]] == [FIRST_BALANCE - staked + WIN]
