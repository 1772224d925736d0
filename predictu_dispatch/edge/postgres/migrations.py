"""Brings the schema up to date: forward only; running it twice, or two at once, is safe."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import asyncpg
from asyncpg import Connection
from asyncpg.pool import PoolConnectionProxy

from predictu_dispatch.edge.postgres.connections import Hosts
from predictu_dispatch.edge.postgres.errors import translated
from predictu_dispatch.edge.postgres.search_indexes import IndexNotBuiltError, build_indexes
from predictu_dispatch.edge.postgres.session import own_transaction
from predictu_dispatch.edge.postgres.sql_files import Migration, definitions, migrations

_KEY_OF_OLDER_RELEASES = 7_305_177_219_640_001
"""Key of the advisory lock that `migrate` of releases before 0003_locks.sql takes."""
_LOCK_TIMEOUT_S = 2
"""Less than the 2.5 s of a daemon's shares, so a wait delays daemons only briefly."""
_OTHER_RUN_MAX_S = 60
"""A concurrent run takes a few seconds."""
_TRY_TIMEOUT_S = 0.2
"""Less than Postgres's deadlock_timeout, so that a deadlock ends a try of `migrate` and no other
transaction. Others wait behind a try for at most this long."""
_TRY_PAUSE_S = 0.3
_TRIES_MAX = 20
_HOT_TABLES = ("operator", "bet", "callback", "attempt", "attempt_record", "share", "daemon")
"""In the order of a callback's path, mostly. 0013_evidence.sql renames `attempt`."""
_PARTITIONS_AHEAD = 2


class SchemaError(Exception):
    """The schema does not fit this build; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A migration that was applied to the database."""

    name: str
    sha256: str
    compatible_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The names of the migrations, functions, views and indexes that one run applied."""

    migrations: list[str]
    functions: list[str]
    indexes: list[str]


async def migrate(dsn: str, on_build: Callable[[list[str]], None] = lambda _: None) -> Changes:
    """Applies pending migrations and changed functions and views, then creates partitions.

    One transaction: concurrent runs wait for each other, also behind a transaction-pooling proxy,
    and a failed run changes nothing. The indexes of sql/indexes are built after it, each by itself;
    see search_indexes.py. The database of a newer compatible release is not changed.
    Raises SchemaError, also if a running daemon does not support the new schema, and the errors of
    core/database.py.
    """
    hosts = Hosts(dsn)
    with translated():
        connection = await hosts.connect(statement_cache_size=0)
        try:
            try:
                changes = await _migrate(connection)
            except (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError):
                # Without a table to lock, two first runs wait for each other where both create the
                # schema, and the one that waited fails.
                if not await _has_schema(connection):
                    raise
                changes = await _migrate(connection)
            is_newer = _is_newer(await applied_migrations(connection))
        finally:
            await connection.close(timeout=5)
        try:
            return changes if is_newer else replace(changes, indexes=await build_indexes(hosts, on_build))
        except IndexNotBuiltError as error:
            raise SchemaError(
                f"the schema is up to date, but an index was not built ({error}); run `predictu-dispatch migrate`"
                " again. Daemons may run; only `find`, `reconcile`, `statement` and sealing need the index"
            ) from error


def _is_newer(applied: Mapping[int, Applied]) -> bool:
    return max(applied, default=0) > len(migrations())


async def _migrate(connection: Connection | PoolConnectionProxy) -> Changes:
    try:
        async with own_transaction(connection):
            if await _has_schema(connection):
                await _wait_for_other_runs(connection)
            await _require_utf8(connection)
            applied = await applied_migrations(connection)
            pending = pending_migrations(applied)
            await _require_no_daemon_left_behind(connection, applied, pending)
            if applied and pending:
                await _lock_tables(connection)
            for migration in pending:
                await _apply(connection, migration)
            is_newer = _is_newer(applied)
            functions = [] if is_newer else await _apply_definitions(connection)
            if not is_newer:
                await connection.execute("select predictu_dispatch.prepare_partitions($1)", _PARTITIONS_AHEAD)
        return Changes(migrations=[migration.name for migration in pending], functions=functions, indexes=[])
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        raise SchemaError(
            f"another transaction keeps a table locked ({error}); nothing was changed. Try again; if it stays locked, "
            "look in pg_stat_activity for a transaction that was left open"
        ) from error
    except asyncpg.DependentObjectsStillExistError as error:
        raise SchemaError(
            f"objects that are not ours depend on what must be replaced ({error.detail}); nothing was changed. Drop"
            " those, run `predictu-dispatch migrate`, and create them again; never use cascade on ours"
        ) from error


async def _wait_for_other_runs(connection: Connection | PoolConnectionProxy) -> None:
    """Takes the lock of migrations, which only the owner may take; then sets the lock timeout."""
    lock_timeout = f"set local lock_timeout = '{_LOCK_TIMEOUT_S}s'"
    with contextlib.suppress(asyncpg.LockNotAvailableError):
        async with connection.transaction():
            # Any login may hold this one, so it is waited for no longer than such a run takes.
            await connection.execute(lock_timeout)
            await connection.execute("select pg_advisory_xact_lock($1)", _KEY_OF_OLDER_RELEASES)
    await connection.execute(f"set local lock_timeout = '{_OTHER_RUN_MAX_S}s'")
    await connection.execute("lock table predictu_dispatch.schema_migration in share row exclusive mode")
    # Other transactions, also the daemons', queue behind one that waits for a table's lock.
    await connection.execute(lock_timeout)


async def _lock_tables(connection: Connection | PoolConnectionProxy) -> None:
    """Locks all tables at once, before anything changes; else running settles would deadlock.

    A migration locks its tables in its own order, while a running transaction has some of them.
    Raises LockNotAvailableError if a transaction keeps one locked through all tries.
    """
    tables = await connection.fetchval(
        "select string_agg(format('%I.%I', n.nspname, c.relname), ', '"
        "                  order by array_position($1::text[], c.relname::text), c.relname)"
        "  from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'predictu_dispatch' and c.relkind in ('r', 'p') and not c.relispartition",
        list(_HOT_TABLES),
    )
    for tries in range(1, _TRIES_MAX + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = '{_TRY_TIMEOUT_S * 1000:.0f}ms'")
                await connection.execute(f"lock table {tables} in access exclusive mode")
                # The try's own setting must not outlive it.
                await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT_S}s'")
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if tries == _TRIES_MAX:
                raise
            await asyncio.sleep(_TRY_PAUSE_S)
        else:
            return


async def _has_schema(connection: Connection | PoolConnectionProxy) -> bool:
    found: bool = await connection.fetchval("select to_regclass('predictu_dispatch.schema_migration') is not null")
    return found


async def _require_utf8(connection: Connection | PoolConnectionProxy) -> None:
    encoding = await connection.fetchval("select current_setting('server_encoding')")
    if encoding != "UTF8":
        raise SchemaError(
            f"the database's encoding is {encoding}; create it with encoding 'UTF8', because callbacks are UTF-8"
        )


async def _apply(connection: Connection | PoolConnectionProxy, migration: Migration) -> None:
    # asyncpg cannot execute a text without a statement, such as a migration of functions only.
    await connection.execute(f"{migration.sql}\n;select;")
    await connection.execute(
        "insert into predictu_dispatch.schema_migration (version, name, sha256, compatible_from)"
        " values ($1, $2, $3, $4)",
        migration.version,
        migration.name,
        migration.sha256,
        migration.compatible_from,
    )


async def _apply_definitions(connection: Connection | PoolConnectionProxy) -> list[str]:
    """Applies the functions and views whose files have changed; returns their names."""
    # A body may call a function that is created after it.
    await connection.execute("set local check_function_bodies = off")
    rows = await connection.fetch("select name, sha256 from predictu_dispatch.schema_function")
    known = {row["name"]: row["sha256"] for row in rows}
    changed = [one for one in definitions() if known.get(one.name) != one.sha256]
    for definition in changed:
        await connection.execute(definition.statements)
    # Rows of removed files are deleted too, so that a restored file is applied again.
    outdated = [one.name for one in changed] + list(known.keys() - {one.name for one in definitions()})
    await connection.execute("delete from predictu_dispatch.schema_function where name = any ($1)", outdated)
    await connection.executemany(
        "insert into predictu_dispatch.schema_function (name, sha256) values ($1, $2)",
        [(one.name, one.sha256) for one in changed],
    )
    return [one.name for one in changed]


async def applied_migrations(connection: Connection | PoolConnectionProxy) -> dict[int, Applied]:
    """Returns the applied migrations by version; empty if the database has no schema."""
    if not await _has_schema(connection):
        return {}
    rows = await connection.fetch(
        "select version, name, sha256, compatible_from from predictu_dispatch.schema_migration order by version"
    )
    return {
        row["version"]: Applied(name=row["name"], sha256=row["sha256"], compatible_from=row["compatible_from"])
        for row in rows
    }


def pending_migrations(applied: Mapping[int, Applied]) -> list[Migration]:
    """Returns the pending migrations in order; none if the schema is newer and compatible.

    Raises SchemaError if the database has other files' migrations or is incompatible.
    """
    ours = {migration.version: migration for migration in migrations()}
    for version, one in applied.items():
        if version in ours and one.name != ours[version].name:
            raise SchemaError(
                f"this database was made by a build before the first release ({one.name}) and cannot be upgraded; "
                "recreate it: `drop schema predictu_dispatch cascade`, then `predictu-dispatch migrate`"
            )
    if any(version not in ours and one.compatible_from > len(ours) for version, one in applied.items()):
        raise SchemaError(
            f"the schema is at version {max(applied)}, this release knows version {len(ours)} at most; "
            "install the newer release"
        )
    for version, migration in ours.items():
        if version in applied and applied[version].sha256 != migration.sha256:
            raise SchemaError(
                f"{migration.name} was applied with other content; "
                "migrations must not be edited: restore the file and add a new migration"
            )
    return [migration for version, migration in ours.items() if version not in applied]


async def _require_no_daemon_left_behind(
    connection: Connection | PoolConnectionProxy, applied: Mapping[int, Applied], pending: list[Migration]
) -> None:
    """Raises SchemaError with the running daemons that a pending migration does not support."""
    if not (applied and pending):
        return
    most = max(pending, key=lambda migration: migration.compatible_from)
    rows = await connection.fetch(
        "select instance, host, pid from predictu_dispatch.daemon"
        " where seen_at > now() - predictu_dispatch.heartbeat_timeout() and schema_version < $1 order by instance",
        most.compatible_from,
    )
    if rows:
        named = ", ".join(f"{row['instance']} (host {row['host']}, process {row['pid']})" for row in rows)
        raise SchemaError(
            f"{most.name} needs daemons of release {most.compatible_from:04d} or later, and older ones are running: "
            f"{named}; replace or stop them first. Nothing was changed."
        )


async def require_schema(connection: Connection | PoolConnectionProxy) -> None:
    """Checks that the schema is this build's, or a newer compatible one; raises SchemaError."""
    applied = await applied_migrations(connection)
    pending = pending_migrations(applied)
    if not applied:
        name = await connection.fetchval("select current_database()")
        raise SchemaError(
            f"database {name} has no Predictu dispatch schema; if it is the right database, "
            "run `predictu-dispatch migrate` first"
        )
    if pending:
        raise SchemaError(
            f"the schema lacks {', '.join(m.name for m in pending)}; run `predictu-dispatch migrate` first"
        )
