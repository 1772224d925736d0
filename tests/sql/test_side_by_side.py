"""Two releases side by side: which daemon may run on which schema."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest

from predictu_dispatch.edge.postgres import migrations as edge
from predictu_dispatch.edge.postgres.migrations import SchemaError, migrate
from predictu_dispatch.edge.postgres.sql_files import Migration, migrations, query
from tests.support.environment import Environment
from tests.support.harness import (
    EARLIER_REPORT_FIELDS,
    REPORT_FIELDS,
    Harness,
    connected,
    delivered,
    settle_as_before,
)
from tests.support.postgres import Database, Server, drop_database

OURS = len(migrations())
EXPAND = "alter table predictu_dispatch.callback add column of_the_next_release text;"
CONTRACT = "alter table predictu_dispatch.callback drop column of_the_next_release;"


@pytest.fixture
def next_release(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[list[str]]]:
    """Runs `migrate` as a later release does, which has these files beside ours."""

    async def run(*sqls: str) -> list[str]:
        later = tuple(
            Migration(version=OURS + n, name=f"{OURS + n:04d}_later.sql", sql=sql) for n, sql in enumerate(sqls, 1)
        )
        with monkeypatch.context() as patched:
            patched.setattr(edge, "migrations", lambda: (*migrations(), *later))
            return (await migrate(database.owner)).migrations

    return run


def compatible(sql: str, version: int = OURS) -> str:
    return f"-- compatible_from: {version:04d}\n{sql}"


async def won(environment: Environment, bet_id: str) -> None:
    """A bet went through the daemons from its placement to its end."""
    await environment.harness.place(bet_id)
    await environment.harness.end("BET_WIN", bet_id)
    await environment.until_all_final()
    assert (await environment.harness.bet(bet_id))["state"] == "closed"


def test_every_migration_declares_which_releases_may_run_on_it() -> None:
    """Its first line is `-- compatible_from: NNNN`; its own number if no earlier release may."""
    assert [one.name for one in migrations() if not one.sql.startswith("-- compatible_from: ")] == []
    assert all(one.compatible_from <= one.version for one in migrations())


@pytest.mark.parametrize("is_alone", [True, False], ids=["settle_one", "settle"])
async def test_a_daemon_from_before_the_signatures_settles_on_this_schema(harness: Harness, *, is_alone: bool) -> None:
    """It reports 33 fields; settle_one() takes each of them as a parameter."""
    lease = await harness.lease(await harness.place())
    sent = delivered(lease, reason="a reason", response_body=b"whole", url="https://wallet.example.com", total_ms=3.5)
    if is_alone:
        statement = query("settle_one").replace(", $34, $35, $36, $37, $38", "")
        assert await harness.daemon.fetchval(statement, *(sent[field] for field in EARLIER_REPORT_FIELDS))
    else:
        [change] = await settle_as_before(harness.daemon, sent)
        assert (change["cause"], change["state"]) == ("settled", "delivered")
    row = await harness.owner.fetchrow("select * from predictu_dispatch.attempt_record")
    assert row is not None
    assert {name: row[name] for name in ("report_id", "reason", "response_body", "url", "total_ms")} == {
        name: sent[name] for name in ("report_id", "reason", "response_body", "url", "total_ms")
    }
    assert {row[name] for name in REPORT_FIELDS if name not in EARLIER_REPORT_FIELDS} == {None}
    assert [change["cause"] for change in await settle_as_before(harness.daemon, sent)] == ["repeated"]


async def test_a_daemon_does_not_start_on_the_previous_schema_and_names_the_command(
    postgres: Server, environment: Environment
) -> None:
    name = f"predictu_test_{secrets.token_hex(6)}"
    async with connected(postgres.maintenance_dsn, 1) as [owner]:
        await owner.execute(f"create database {name} encoding 'UTF8' template template0")
    try:
        await migrate(postgres.dsn(name))
        async with connected(postgres.dsn(name), 1) as [owner]:
            await owner.execute("delete from predictu_dispatch.schema_migration where version = $1", OURS)
        # With the owner's rights, so that nothing but the schema is missing.
        environment.fleet.dsn = postgres.dsn(name)
        daemon = environment.fleet.spawn("host-1")
        assert await daemon.exited() == 1
        assert f"the schema lacks {migrations()[-1].name}; run `predictu-dispatch migrate` first" in daemon.log_text
        assert "Traceback" not in daemon.log_text
    finally:
        await drop_database(postgres, name)


async def test_an_old_daemon_runs_on_and_starts_again_on_a_newer_compatible_schema(
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


async def test_an_old_daemon_does_not_start_on_a_newer_incompatible_schema(
    environment: Environment, next_release: Callable[..., Awaitable[list[str]]]
) -> None:
    await next_release(compatible(EXPAND), compatible(CONTRACT, OURS + 1))
    daemon = environment.fleet.spawn("host-1")
    assert await daemon.exited() == 1
    assert f"the schema is at version {OURS + 2}, this release knows version {OURS} at most" in daemon.log_text
    assert "install the newer release" in daemon.log_text
    assert "Traceback" not in daemon.log_text


async def test_migrate_refuses_a_migration_that_running_daemons_cannot_follow(
    environment: Environment, database: Database, next_release: Callable[..., Awaitable[list[str]]]
) -> None:
    """Expand may be done while it runs; contract waits until the last old daemon is replaced."""
    old = await environment.fleet.start("host-1")
    for breaking in (CONTRACT, compatible(CONTRACT, OURS + 1)):
        with pytest.raises(SchemaError, match=r"_later\.sql needs daemons .*host-1 \(host .*, process \d+\)"):
            await next_release(compatible(EXPAND), breaking)
    await next_release(compatible(EXPAND))
    with pytest.raises(SchemaError, match="replace or stop them first"):
        await next_release(compatible(EXPAND), compatible(CONTRACT, OURS + 1))
    await won(environment, "meanwhile")
    old.terminate()
    assert await old.exited() == 0
    async with connected(database.owner, 1) as [owner]:
        # What the heartbeat of a daemon of the next release writes.
        await owner.execute(
            "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, schema_version)"
            " values ('host-1', gen_random_uuid(), 'h', 1, '2', $1)",
            OURS + 1,
        )
    assert await next_release(compatible(EXPAND), compatible(CONTRACT, OURS + 1)) == [f"{OURS + 2:04d}_later.sql"]


async def test_migrate_gives_up_soon_if_an_open_transaction_locks_a_table(
    environment: Environment,
    database: Database,
    next_release: Callable[..., Awaitable[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every later transaction would queue behind it."""
    monkeypatch.setattr(edge, "_TRIES_MAX", 3)
    await environment.fleet.start("host-1")
    async with connected(database.producer, 1) as [producer]:
        async with producer.transaction():
            await producer.execute("select predictu_dispatch.enqueue_callback('op_abc123', 'PING', '{}')")
            with pytest.raises(SchemaError, match=r"keeps a table locked .*; nothing was changed"):
                async with asyncio.timeout(20):
                    await next_release(compatible(EXPAND))
        await won(environment, "after")
        assert await next_release(compatible(EXPAND))
