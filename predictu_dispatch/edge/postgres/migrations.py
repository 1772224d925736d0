"""Brings the schema up to date: forward only, twice is harmless, two at once is safe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from predictu_dispatch.edge.postgres.errors import translated
from predictu_dispatch.edge.postgres.sql_files import Migration, migrations

if TYPE_CHECKING:
    from asyncpg import Connection
    from asyncpg.pool import PoolConnectionProxy

_LOCK_KEY = 7_305_177_219_640_001
"""Key of the advisory lock under which migrations run; any number that nobody else uses will do."""


_LOCK_TIMEOUT_S = 2
"""A daemon's shares are valid for 2.5 s: waiting no longer costs at most a moment's delay."""


class SchemaError(Exception):
    """The schema and this build do not fit; the message says what to do."""


async def migrate(dsn: str) -> list[str]:
    """The schema is up to date; returns the names of the migrations that were applied now.

    All run in one transaction under an advisory lock that ends with it: also behind a transaction-pooling proxy two
    runs wait for each other, and a failed one leaves nothing half done. Raises SchemaError, also while a daemon runs
    that would not understand the new schema; and what edge/postgres/errors.py translates to.
    """
    with translated():
        return await _migrate(dsn)


async def _migrate(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn, statement_cache_size=0, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK_KEY)
            # Whoever waits for a lock on a table makes everybody after it wait as well, the daemons among them.
            await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT_S}s'")
            await _prepare(connection)
            applied = await applied_migrations(connection)
            pending = pending_migrations(applied)
            await _require_no_daemon_left_behind(connection, applied, pending)
            for migration in pending:
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into predictu_dispatch.schema_migration (version, name, sha256, compatible_from)"
                    " values ($1, $2, $3, $4)",
                    migration.version,
                    migration.name,
                    migration.sha256,
                    migration.compatible_from,
                )
        return [migration.name for migration in pending]
    except asyncpg.LockNotAvailableError as error:
        message = (
            f"another transaction holds a table for longer than {_LOCK_TIMEOUT_S} s ({error}); nothing was changed. "
            "Try again; if it stays so, a transaction was left open: look for it in pg_stat_activity"
        )
        raise SchemaError(message) from error
    finally:
        await connection.close(timeout=5)


async def _prepare(connection: Connection | PoolConnectionProxy) -> None:
    encoding = await connection.fetchval("select current_setting('server_encoding')")
    if encoding != "UTF8":
        message = f"the database's encoding is {encoding}; create it with encoding 'UTF8', because callbacks are UTF-8"
        raise SchemaError(message)
    await connection.execute("create schema if not exists predictu_dispatch")
    await connection.execute(
        "create table if not exists predictu_dispatch.schema_migration ("
        "version integer not null, name text not null, sha256 text not null, "
        "applied_at timestamptz not null default now(), compatible_from integer)"
    )
    # Where it was made by a build that did not know the column; asked first, because readers would have to wait.
    if not await connection.fetchval(
        "select exists (select from pg_attribute where attrelid = 'predictu_dispatch.schema_migration'::regclass"
        " and attname = 'compatible_from')"
    ):
        await connection.execute("alter table predictu_dispatch.schema_migration add column compatible_from integer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A migration that the database has had."""

    sha256: str
    compatible_from: int
    """As Migration says; what a build without the column applied counts as compatible with none before it."""


async def applied_migrations(connection: Connection | PoolConnectionProxy) -> dict[int, Applied]:
    """The applied migrations by version; empty where the schema was never made."""
    if await connection.fetchval("select to_regclass('predictu_dispatch.schema_migration')") is None:
        return {}
    rows = await connection.fetch(
        # A column that an older schema does not have yet cannot be named.
        "select version, sha256, (to_jsonb(applied) ->> 'compatible_from')::integer as compatible_from"
        " from predictu_dispatch.schema_migration applied order by version"
    )
    return {
        row["version"]: Applied(sha256=row["sha256"], compatible_from=row["compatible_from"] or row["version"])
        for row in rows
    }


def newer_migrations(applied: Mapping[int, Applied]) -> dict[int, Applied]:
    """What the database has had and this build does not know."""
    known = len(migrations())
    return {version: one for version, one in applied.items() if version > known}


def pending_migrations(applied: Mapping[int, Applied]) -> list[Migration]:
    """What is still to be applied, in order; nothing where the schema is newer and this build may run on it.

    Raises SchemaError where the database does not descend from this build's files, or has left this build behind.
    """
    ours = {migration.version: migration for migration in migrations()}
    newer = newer_migrations(applied)
    if any(one.compatible_from > max(ours) for one in newer.values()):
        message = (
            f"the schema is at version {max(applied)}, this build knows {max(ours)} at most; install the newer release"
        )
        raise SchemaError(message)
    for version, migration in ours.items():
        if version in applied and applied[version].sha256 != migration.sha256:
            message = (
                f"{migration.name} was applied with other content; "
                "migrations are never edited, put the file back and add a new one"
            )
            raise SchemaError(message)
    return [migration for version, migration in ours.items() if version not in applied]


async def _require_no_daemon_left_behind(
    connection: Connection | PoolConnectionProxy, applied: Mapping[int, Applied], pending: list[Migration]
) -> None:
    """No daemon runs that a pending migration leaves behind. Raises SchemaError that names those that do."""
    if not pending or await connection.fetchval("select to_regclass('predictu_dispatch.daemon')") is None:
        return
    most = max(pending, key=lambda migration: migration.compatible_from)
    # Of a daemon that does not say what it knows, this much is certain: or it would not have been let in.
    certain = max(one.compatible_from for one in applied.values())
    rows = await connection.fetch(
        "select daemon ->> 'instance' as instance, daemon ->> 'host' as host, (daemon ->> 'pid')::integer as pid,"
        # An earlier schema has no such columns.
        "       case when daemon ->> 'schema_version_said_by' = daemon ->> 'session_id'"
        "            then (daemon ->> 'schema_version')::integer end as schema_version"
        "  from predictu_dispatch.daemon d cross join lateral to_jsonb(d) daemon"
        " where d.seen_at > now() - predictu_dispatch.heartbeat_timeout() order by 1"
    )
    behind = [row for row in rows if (row["schema_version"] or certain) < most.compatible_from]
    if behind:
        named = ", ".join(f"{row['instance']} (host {row['host']}, process {row['pid']})" for row in behind)
        message = (
            f"{most.name} is not for daemons that know less than {most.compatible_from:04d}, and there are some: "
            f"{named}; replace or stop them first. Nothing was changed."
        )
        raise SchemaError(message)


async def require_schema(connection: Connection | PoolConnectionProxy) -> None:
    """The schema fits this build, or is newer and says that it does.

    Raises SchemaError that says to run `predictu-dispatch migrate`, or to install the newer release.
    """
    applied = await applied_migrations(connection)
    pending = pending_migrations(applied)
    if not applied:
        name = await connection.fetchval("select current_database()")
        message = (
            f"database {name} has no schema of ours; if it is the right one, run `predictu-dispatch migrate` first"
        )
        raise SchemaError(message)
    if pending:
        message = f"the schema lacks {', '.join(m.name for m in pending)}; run `predictu-dispatch migrate` first"
        raise SchemaError(message)
