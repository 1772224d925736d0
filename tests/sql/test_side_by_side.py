"""Two releases beside each other: which daemon may run on which schema, and that `migrate` leaves none behind."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from predictu_dispatch.edge.postgres import migrations as edge
from predictu_dispatch.edge.postgres.migrations import SchemaError, migrate
from predictu_dispatch.edge.postgres.sql_files import Migration, migrations
from tests.support.environment import Environment, open_environment
from tests.support.harness import connected
from tests.support.postgres import Database, Server, drop_database

OURS = len(migrations())
EXPAND = "alter table predictu_dispatch.callback add column of_the_next_release text;"
CONTRACT = "alter table predictu_dispatch.callback drop column of_the_next_release;"


@pytest.fixture
async def environment(tmp_path: Path, database: Database) -> AsyncIterator[Environment]:
    async with open_environment(tmp_path, database) as environment:
        yield environment


@pytest.fixture
def next_release(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[list[str]]]:
    """Runs `migrate` as a later release does, which has these files beside ours."""

    async def run(*sqls: str) -> list[str]:
        later = tuple(
            Migration(version=OURS + n, name=f"{OURS + n:04d}_later.sql", sql=sql) for n, sql in enumerate(sqls, 1)
        )
        with monkeypatch.context() as patched:
            patched.setattr(edge, "migrations", lambda: (*migrations(), *later))
            return await migrate(database.owner)

    return run


def compatible(sql: str, version: int = OURS) -> str:
    return f"-- compatible_from: {version:04d}\n{sql}"


async def won(environment: Environment, bet_id: str) -> None:
    """A bet went through the daemons from its placement to its end."""
    await environment.harness.place(bet_id)
    await environment.harness.end("BET_WIN", bet_id)
    await environment.until_all_final()
    assert (await environment.harness.bet(bet_id))["state"] == "closed"


def test_every_new_migration_says_which_daemons_may_run_on_it() -> None:
    """The first line says `-- compatible_from: NNNN`; its own number where no earlier daemon may."""
    silent = [one.name for one in migrations() if one.version > 10 and "-- compatible_from: " not in one.sql[:30]]
    assert silent == []
    assert all(one.compatible_from <= one.version for one in migrations())


async def test_a_new_daemon_does_not_start_on_the_previous_schema_and_says_what_to_do(
    postgres: Server, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    *previous, last = migrations()
    name = f"predictu_test_{secrets.token_hex(6)}"
    async with connected(postgres.maintenance_dsn, 1) as [owner]:
        await owner.execute(f"create database {name} encoding 'UTF8' template template0")
    try:
        with monkeypatch.context() as patched:
            patched.setattr(edge, "migrations", lambda: tuple(previous))
            await migrate(postgres.dsn(name))
        # With the owner's rights: what is missing must be the schema and nothing else.
        environment.fleet.dsn = postgres.dsn(name)
        daemon = environment.fleet.spawn("host-1")
        assert await daemon.exited() == 1
        assert f"the schema lacks {last.name}; run `predictu-dispatch migrate` first" in daemon.log_text
        assert "Traceback" not in daemon.log_text
        assert await migrate(postgres.dsn(name)) == [last.name]
        (await environment.fleet.start("host-2")).kill()
    finally:
        await drop_database(postgres, name)


async def test_an_old_daemon_goes_on_and_starts_again_on_a_newer_schema_that_is_compatible(
    environment: Environment, next_release: Callable[..., Awaitable[list[str]]]
) -> None:
    first = await environment.fleet.start("host-1")
    await won(environment, "before")
    assert await next_release(compatible(EXPAND)) == [f"{OURS + 1:04d}_later.sql"]
    await won(environment, "meanwhile")
    # Rolled back, or crashed and started again: beside the one that ran all the time, and alone.
    await environment.fleet.start("host-2")
    first.terminate()
    assert await first.exited() == 0
    await won(environment, "after")
    assert await environment.audit_faults() == []
    rows = await environment.harness.owner.fetch("select distinct instance from predictu_dispatch.attempt")
    assert {row["instance"] for row in rows} == {"host-1", "host-2"}


async def test_an_old_daemon_does_not_start_on_a_newer_schema_that_is_not(
    environment: Environment, next_release: Callable[..., Awaitable[list[str]]]
) -> None:
    await next_release(compatible(EXPAND), compatible(CONTRACT, OURS + 1))
    daemon = environment.fleet.spawn("host-1")
    assert await daemon.exited() == 1
    assert f"the schema is at version {OURS + 2}, this build knows {OURS} at most" in daemon.log_text
    assert "install the newer release" in daemon.log_text
    assert "Traceback" not in daemon.log_text


async def test_migrate_leaves_no_running_daemon_behind(
    environment: Environment, database: Database, next_release: Callable[..., Awaitable[list[str]]]
) -> None:
    """Expand may be done while it runs; contract waits until the last old daemon is replaced."""
    old = await environment.fleet.start("host-1")
    for breaking in (CONTRACT, compatible(CONTRACT, OURS + 1)):
        with pytest.raises(SchemaError, match=r"_later\.sql is not for daemons .*host-1 \(host .*, process \d+\)"):
            await next_release(compatible(EXPAND), breaking)
    await next_release(compatible(EXPAND))
    with pytest.raises(SchemaError, match="replace or stop them first"):
        await next_release(compatible(EXPAND), compatible(CONTRACT, OURS + 1))
    await won(environment, "meanwhile")
    old.terminate()
    assert await old.exited() == 0
    async with connected(database.owner, 1) as [owner]:
        # What the daemon of the next release says of itself.
        await owner.execute(
            "insert into predictu_dispatch.daemon"
            " (instance, session_id, host, pid, version, schema_version, schema_version_said_by)"
            " select 'host-1', id, 'h', 1, '2', $1, id from gen_random_uuid() id",
            OURS + 1,
        )
    assert await next_release(compatible(EXPAND), compatible(CONTRACT, OURS + 1)) == [f"{OURS + 2:04d}_later.sql"]


async def test_a_daemon_that_does_not_say_what_it_knows_counts_as_the_oldest_that_may_run(
    database: Database, next_release: Callable[..., Awaitable[list[str]]]
) -> None:
    """One of a build before 0012; or one that took the place, and the name, of a newer one after a roll-back."""
    certain = max(one.compatible_from for one in migrations())
    async with connected(database.owner, 1) as [owner]:
        await owner.execute(
            "insert into predictu_dispatch.daemon"
            " (instance, session_id, host, pid, version, schema_version, schema_version_said_by)"
            " values ('host-1', gen_random_uuid(), 'h', 1, '1', 99, gen_random_uuid())"
        )
        with pytest.raises(SchemaError, match="host-1"):
            await next_release(compatible(EXPAND, certain + 1))
        assert await next_release(compatible(EXPAND, certain))


async def test_migrate_does_not_keep_everybody_waiting_for_a_transaction_that_was_left_open(
    environment: Environment,
    database: Database,
    next_release: Callable[..., Awaitable[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for a lock on a table is waited for by all that come after it."""
    monkeypatch.setattr(edge, "_LOCK_TIMEOUT_S", 1)
    await environment.fleet.start("host-1")
    async with connected(database.producer, 1) as [producer]:
        async with producer.transaction():
            await producer.execute("select predictu_dispatch.enqueue_callback('op_abc123', 'PING', '{}')")
            with pytest.raises(SchemaError, match=r"holds a table for longer than 1 s .*; nothing was changed"):
                async with asyncio.timeout(20):
                    await next_release(compatible(EXPAND))
        await won(environment, "after")
        assert await next_release(compatible(EXPAND))
