"""The schema comes up to date once, whole or not at all, and has the shape that others rely on."""

import asyncio
import dataclasses
import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from predictu_dispatch.edge.postgres import migrations as edge
from predictu_dispatch.edge.postgres.migrations import SchemaError, applied_migrations, migrate, require_schema
from predictu_dispatch.edge.postgres.sql_files import migrations
from tests.support.harness import connected
from tests.support.postgres import Database, Server, drop_database

CONTRACT = {
    "callback": """request_id operator_id method bet_id lane state reason effect attempts params created_at due_at
        expires_at finished_at operator_status operator_transaction_id balance anomaly""",
    "attempt": """request_id operator_id method attempt evidence verdict reason instance started_at finished_at url
        key_id request_headers request_body response_status response_headers response_body response_truncated connect_ms
        first_byte_ms total_ms error""",
    "bet": """operator_id bet_id state player_id currency amount placement_request_id terminal_request_id created_at
        updated_at""",
    "operator": """operator_id enabled health circuit consecutive_failures last_success_at last_failure_at
        config_fingerprint updated_at""",
    "needs_review": "request_id operator_id method bet_id state effect amount since reason",
}
"""The relations of DESIGN.md 6 and the columns that each has at least."""
FUNCTIONS = {
    """enqueue_callback(operator_id text, method text, params jsonb, request_id uuid DEFAULT NULL::uuid,
        expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone) -> uuid""",
    "rollback_bet(operator_id text, bet_id text, reason text) -> uuid",
    """adopt_bet(operator_id text, bet_id text, player_id text, currency text, amount bigint,
        placement_request_id uuid) -> void""",
    """outcome(operator_id text, request_id uuid) -> TABLE(state text, reason text, effect text, operator_status text,
        operator_transaction_id text, balance bigint)""",
}
"""The functions of DESIGN.md 6 and 11, as Postgres prints them."""


@pytest.fixture
async def empty(postgres: Server) -> AsyncIterator[str]:
    """A database without our schema."""
    name = f"predictu_test_{secrets.token_hex(6)}"
    async with connected(postgres.maintenance_dsn, 1) as [owner]:
        await owner.execute(f"create database {name} encoding 'UTF8' template template0")
    yield postgres.dsn(name)
    await drop_database(postgres, name)


async def test_migrating_twice_is_harmless(empty: str) -> None:
    assert await migrate(empty) == [migration.name for migration in migrations()]
    assert await migrate(empty) == []
    async with connected(empty, 1) as [owner]:
        await require_schema(owner)
        assert list(await applied_migrations(owner)) == [migration.version for migration in migrations()]


async def test_of_two_that_migrate_at_once_one_does_it_and_the_other_waits(empty: str) -> None:
    applied = await asyncio.gather(*(migrate(empty) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]


async def test_a_migration_that_was_edited_after_it_was_applied_is_refused(empty: str) -> None:
    await migrate(empty)
    async with connected(empty, 1) as [owner]:
        await owner.execute("update predictu_dispatch.schema_migration set sha256 = 'other' where version = 2")
        with pytest.raises(SchemaError, match=r"0002_guards\.sql was applied with other content"):
            await migrate(empty)
        with pytest.raises(SchemaError, match="put the file back"):
            await require_schema(owner)


async def test_a_schema_newer_than_this_build_is_refused_with_both_versions(empty: str) -> None:
    await migrate(empty)
    async with connected(empty, 1) as [owner]:
        await owner.execute("insert into predictu_dispatch.schema_migration values (99, '0099_future.sql', 'x')")
        with pytest.raises(
            SchemaError, match=f"version 99, this build knows {len(migrations())} at most.*newer release"
        ):
            await migrate(empty)
        with pytest.raises(SchemaError, match="newer release"):
            await require_schema(owner)


async def test_a_database_without_our_schema_is_told_how_to_get_it(empty: str) -> None:
    """It may also be the wrong database, in which a migration would only make things worse."""
    async with connected(empty, 1) as [owner]:
        name = await owner.fetchval("select current_database()")
        with pytest.raises(SchemaError, match=f"^database {name} has no schema.* right one.*predictu-dispatch migrate"):
            await require_schema(owner)
        await migrate(empty)
        await owner.execute("delete from predictu_dispatch.schema_migration where version > 1")
        with pytest.raises(SchemaError, match=r"^the schema lacks 0002_guards\.sql.*predictu-dispatch migrate"):
            await require_schema(owner)


async def test_a_database_that_cannot_hold_unicode_is_refused(postgres: Server) -> None:
    name = f"predictu_test_{secrets.token_hex(6)}"
    async with connected(postgres.maintenance_dsn, 1) as [owner]:
        await owner.execute(f"create database {name} encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0")
    try:
        with pytest.raises(SchemaError, match=r"LATIN1.*UTF8"):
            await migrate(postgres.dsn(name))
        async with connected(postgres.dsn(name), 1) as [owner]:
            assert await owner.fetchval("select to_regnamespace('predictu_dispatch')") is None
    finally:
        await drop_database(postgres, name)


async def test_a_migration_that_fails_leaves_nothing_of_those_before_it(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    *whole, last = migrations()
    broken = dataclasses.replace(last, sql=last.sql + "\nselect no_such_function();")
    monkeypatch.setattr(edge, "migrations", lambda: (*whole, broken))
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await migrate(empty)
    async with connected(empty, 1) as [owner]:
        assert await owner.fetchval("select to_regnamespace('predictu_dispatch')") is None
    monkeypatch.undo()
    assert len(await migrate(empty)) == len(whole) + 1


async def test_every_primary_and_unique_key_begins_with_the_operator(database: Database) -> None:
    """So the schema can be distributed by operator (DESIGN.md 6); four tables have no key at all."""
    async with connected(database.owner, 1) as [owner]:
        keys = await owner.fetch(
            "select i.indexrelid::regclass::text as name, a.attname as first from pg_index i"
            "  join pg_class c on c.oid = i.indrelid and c.relnamespace = 'predictu_dispatch'::regnamespace"
            "  left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] where i.indisunique"
        )
        tables = await owner.fetch(
            "select relname from pg_class where relnamespace = 'predictu_dispatch'::regnamespace"
            "   and relkind in ('r', 'p') and not relispartition"
        )
    assert {"operator_pkey", "bet_pkey", "callback_pkey", "callback_of_bet", "attempt_decided"} <= {
        row["name"].removeprefix("predictu_dispatch.") for row in keys
    }
    assert {row["name"] for row in keys if row["first"] != "operator_id"} == set()
    of_operators = {"operator", "bet", "callback", "attempt", "share", "intervention"}
    of_operators |= {"request_tombstone", "bet_tombstone"}
    without_key = {"schema_migration", "daemon", "purge_cursor", "audit_purge_cursor"}
    assert {row["relname"] for row in tables} == of_operators | without_key


async def test_what_others_rely_on_is_there(database: Database) -> None:
    async with connected(database.owner, 1) as [owner]:
        for relation, columns in CONTRACT.items():
            rows = await owner.fetch(
                "select column_name from information_schema.columns"
                " where table_schema = 'predictu_dispatch' and table_name = $1",
                relation,
            )
            assert set(columns.split()) - {row["column_name"] for row in rows} == set(), relation
        rows = await owner.fetch(
            "select format('%s(%s) -> %s', proname, pg_get_function_arguments(oid), pg_get_function_result(oid))"
            "    as said from pg_proc where pronamespace = 'predictu_dispatch'::regnamespace and proname = any($1)",
            [function.partition("(")[0] for function in FUNCTIONS],
        )
        assert {row["said"] for row in rows} == {" ".join(function.split()) for function in FUNCTIONS}
        by = await owner.fetchval("select pg_get_partkeydef('predictu_dispatch.attempt'::regclass)")
        assert by == "RANGE (started_at)"
