"""Our sessions have the settings that we rely on, whatever a database has as its defaults."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.edge.postgres.session import AT_START
from tests.sql.test_catalogue import FOREIGN_DEPENDENCIES
from tests.support.bulk import place_many, until_heartbeats
from tests.support.command_line import command_line_for
from tests.support.daemons import Daemon, until
from tests.support.defaults import make_hostile
from tests.support.environment import Environment, open_environment
from tests.support.harness import OPERATOR, Connection, connected
from tests.support.heartbeats import NAMES, FleetMember, Limits, fleet_members, shares, total
from tests.support.pgbouncer import PooledFleet, find_pgbouncer
from tests.support.postgres import Database, Server, cloned_database
from tests.support.schema_dump import SCHEMA_FILE, dump_schema, find_pg_dump

LEVELS = ("repeatable read", "serializable")
LIMIT = 8
VERSION_17 = 17
LIMITS: Limits = (10, 3, 60.0)
FLEET = ("host-1", "host-2", "host-3", "host-4")
CORE = [f"tests/sql/{name}.py" for name in ("test_bets", "test_races", "test_settle_one", "test_shares")]
"""What runs again with hostile defaults: the money, with concurrent producers and daemons."""


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Connection]:
    async with connected(database.owner, 1) as [owner]:
        yield owner


async def keeps_its_limit(environment: Environment) -> list[Daemon]:
    """Four daemons deliver forty bets; the operator never has more than its limit at once."""
    interactive = {"max_in_flight": LIMIT, "attempt_timeout_s": 60.0, "deadline_s": 120.0}
    environment.fleet.write_operator(environment.operator.url, interactive=interactive)
    environment.operator.hold()
    await place_many(environment, 40)
    daemons = await environment.fleet.start_all(*FLEET)
    await environment.until_in_flight(LIMIT)
    # Nobody takes more with the next heartbeats.
    await until_heartbeats(environment, *FLEET)
    await environment.until_in_flight(LIMIT)
    environment.operator.release()
    await environment.until_all_final()
    assert await environment.bets() == {"open": 40}
    assert environment.operator.faults == await environment.audit_faults() == []
    return daemons


@pytest.mark.parametrize("level", LEVELS)
async def test_limits_hold_and_commands_work_with_hostile_defaults(
    database: Database, owner: Connection, tmp_path: Path, level: str
) -> None:
    newer = {"transaction_timeout": "500"} if owner.get_server_version().major >= VERSION_17 else {}
    await make_hostile(owner, database.name, default_transaction_isolation=f"'{level}'", **newer)
    async with open_environment(tmp_path, database) as environment:
        daemons = await keeps_its_limit(environment)
        (tmp_path / "desk").mkdir()
        desk = command_line_for(tmp_path / "desk", database.operations)
        for command in (["status"], ["pause", OPERATOR, "--reason", "a test"], ["resume", OPERATOR]):
            code, _, errors = await desk.run(*command)
            assert (code, errors) == (0, "")
        assert [line for one in daemons for line in one.lines() if line["level"] not in ("info", "debug")] == []


async def test_changed_defaults_reach_no_running_daemon(environment: Environment, database: Database) -> None:
    """It gets new connections meanwhile, as after a failover."""
    daemon = await environment.fleet.start("host-1")
    await make_hostile(environment.harness.owner, database.name)
    ended = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'predictu-dispatch%'"
    assert await environment.harness.owner.fetch(ended)
    await environment.harness.place("b1")
    await environment.until_all_final()
    assert await environment.bets() == {"open": 1}
    await until("it is ready", daemon.is_ready)
    assert daemon.process.poll() is None


@pytest.mark.parametrize("ignored", ["", ", ".join(AT_START)])
async def test_limits_hold_with_hostile_defaults_behind_a_pooler(
    database: Database, owner: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: str
) -> None:
    """It refuses the settings that clients ask for, or ignores them."""
    find_pgbouncer()
    monkeypatch.setattr("tests.support.environment.Fleet", PooledFleet)
    monkeypatch.setattr("tests.support.pgbouncer.IGNORED", ignored)
    # The pooler's own idle sessions would end at once.
    calm = dict.fromkeys(("idle_session_timeout", "idle_in_transaction_session_timeout", "statement_timeout"), "'2s'")
    await make_hostile(owner, database.name, **calm)
    async with open_environment(tmp_path, database) as environment:
        await keeps_its_limit(environment)


@pytest.mark.parametrize("level", LEVELS)
async def test_shares_never_exceed_the_limit_even_in_sessions_without_our_settings(
    database: Database, owner: Connection, level: str
) -> None:
    """Daemons of the first release do not set theirs: an old snapshot raises 40001."""
    await owner.execute(f"alter database {database.name} set default_transaction_isolation = '{level}'")
    connections = await asyncio.gather(*(asyncpg.connect(database.dispatcher) for _ in NAMES))
    refused = 0

    async def send_heartbeats(daemon: FleetMember) -> None:
        nonlocal refused
        for _ in range(25):
            try:
                await daemon.heartbeat()
            except asyncpg.SerializationError:
                refused += 1

    try:
        work = asyncio.gather(*map(send_heartbeats, fleet_members(connections, LIMITS)))
        while not work.done():
            table = (await shares(owner))["op_a"]
            assert all(total(table.values(), kind) <= LIMITS[kind] for kind in range(3)), table
        await work
    finally:
        for connection in connections:
            connection.terminate()
    assert refused > 0


async def test_migrate_makes_the_same_schema_with_hostile_defaults(postgres: Server) -> None:
    pg_dump = find_pg_dump()
    if pg_dump is None:
        pytest.skip("no pg_dump: install the extra `demo`")
    async with cloned_database(postgres, "template0") as empty, connected(empty.owner, 1) as [owner]:
        await make_hostile(owner, empty.name)
        await migrate(empty.owner)
        await owner.execute(f"alter database {empty.name} reset all")
        assert dump_schema(empty.owner, pg_dump) == SCHEMA_FILE.read_text(encoding="utf-8")
        assert await owner.fetch(FOREIGN_DEPENDENCIES) == []


@pytest.mark.parametrize("level", LEVELS)
def test_the_core_suite_passes_with_hostile_defaults(level: str) -> None:
    """In a process of its own, because the defaults are those of every database of a run."""
    folder = Path(__file__).parents[3]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *CORE]
    run = subprocess.run(
        command, cwd=folder, env={**os.environ, "TEST_DEFAULTS": level}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-5_000:]
