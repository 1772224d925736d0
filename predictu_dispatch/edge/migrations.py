"""Brings the schema up to date: forward only, twice is harmless, two at once is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from predictu_dispatch.edge.sql_files import Migration, migrations

if TYPE_CHECKING:
    from asyncpg import Connection
    from asyncpg.pool import PoolConnectionProxy

_LOCK_KEY = 7_305_177_219_640_001
"""Key of the advisory lock under which migrations run; any number that nobody else uses will do."""


class SchemaError(Exception):
    """The schema and this build do not fit; the message says what to do."""


async def migrate(dsn: str) -> list[str]:
    """The schema is up to date; returns the names of the migrations that were applied now.

    All run in one transaction under an advisory lock that ends with it: also behind a transaction-pooling proxy two
    runs wait for each other, and a failed one leaves nothing half done. Raises SchemaError; asyncpg's and the system's
    errors pass through.
    """
    connection = await asyncpg.connect(dsn, statement_cache_size=0, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK_KEY)
            await _prepare(connection)
            applied = await applied_versions(connection)
            pending = pending_migrations(applied)
            for migration in pending:
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into predictu_dispatch.schema_migration (version, name, sha256) values ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.sha256,
                )
        return [migration.name for migration in pending]
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
        "applied_at timestamptz not null default now())"
    )


async def applied_versions(connection: Connection | PoolConnectionProxy) -> dict[int, str]:
    """The checksums of the applied migrations by version; empty where the schema was never made."""
    if await connection.fetchval("select to_regclass('predictu_dispatch.schema_migration')") is None:
        return {}
    rows = await connection.fetch("select version, sha256 from predictu_dispatch.schema_migration order by version")
    return {row["version"]: row["sha256"] for row in rows}


def pending_migrations(applied: dict[int, str]) -> list[Migration]:
    """What is still to be applied, in order.

    Raises SchemaError where the database does not descend from this build's files.
    """
    ours = {migration.version: migration for migration in migrations()}
    newer = sorted(set(applied) - set(ours))
    if newer:
        message = (
            f"the schema is at version {max(applied)}, this build knows {max(ours)} at most; install the newer release"
        )
        raise SchemaError(message)
    for version, sha256 in applied.items():
        if ours[version].sha256 != sha256:
            message = (
                f"{ours[version].name} was applied with other content; "
                "migrations are never edited, put the file back and add a new one"
            )
            raise SchemaError(message)
    return [migration for version, migration in ours.items() if version not in applied]


async def require_schema(connection: Connection | PoolConnectionProxy) -> None:
    """The schema fits this build. Raises SchemaError that says to run `predictu-dispatch migrate`."""
    pending = pending_migrations(await applied_versions(connection))
    if pending:
        message = f"the schema lacks {', '.join(m.name for m in pending)}; run `predictu-dispatch migrate` first"
        raise SchemaError(message)
