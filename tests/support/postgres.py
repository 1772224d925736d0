"""A database for every test, cloned from a template in which our migrations ran once.

The server is an embedded one of the test run, or the one that PREDICTU_DISPATCH_DSN names. There
the tests touch only their own databases, the migrations' group roles and the login roles below.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import asyncpg

from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.defaults import ARE_HOSTILE, make_hostile

LOGINS = {
    "test_producer": "predictu_producer, predictu_importer",
    "test_dispatcher": "predictu_dispatcher",
    "test_operations": "predictu_operations",
    "test_support": "predictu_support",
    "test_auditor": "predictu_auditor",
    "test_retention": "predictu_retention",
    "test_reconciler": "predictu_reconciler",
    "test_second_reconciler": "predictu_reconciler",
    "test_stranger": None,
}
"""The tests' login roles and the group roles of each. The producer also adopts bets; a stranger may
connect, and nothing else."""

_LOCK_KEY = 7_305_177_219_640_777
"""An advisory lock: roles belong to the whole server, so two test processes must not create them at
once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A Postgres on which tests may create databases; `maintenance_dsn` is its owner's DSN."""

    maintenance_dsn: str

    @property
    def password(self) -> str:
        """The login roles' password, derived from the owner's DSN, so all test processes agree."""
        return hashlib.sha256(f"login roles of {self.maintenance_dsn}".encode()).hexdigest()[:32]

    def dsn(self, database: str, user: str | None = None) -> str:
        """Returns the DSN of a database for one of LOGINS or, without a user, for the owner."""
        parts = urlsplit(self.maintenance_dsn)
        owner, _, hosts = parts.netloc.rpartition("@")
        login = owner if user is None else f"{quote(user)}:{self.password}"
        return parts._replace(netloc=f"{login}@{hosts}" if login else hosts, path=f"/{quote(database)}").geturl()


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One test's own database and its DSN for each role. The owner ran the migrations."""

    name: str
    owner: str
    producer: str
    dispatcher: str
    operations: str
    support: str
    auditor: str
    retention: str
    reconciler: str
    second_reconciler: str
    stranger: str


def server_of(postgres: EmbeddedPostgres, *, tcp: bool = False) -> Server:
    """Returns the Server of an embedded Postgres, over TCP if a proxy needs it."""
    return Server(maintenance_dsn=postgres.dsn(tcp=tcp))


async def create_template(server: Server) -> str:
    """Creates a database with our schema, for cloning, and the login roles; returns its name."""
    name = f"predictu_template_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server.maintenance_dsn)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK_KEY)
        await connection.execute(f"create database {name} encoding 'UTF8' template template0")
        await migrate(server.dsn(name))
        await _create_logins(connection, server.password)
        await _execute(server, "update predictu_dispatch.retention_floor set months = 1", name)
    finally:
        await connection.close()
    return name


async def _create_logins(connection: "asyncpg.Connection[asyncpg.Record]", password: str) -> None:
    for login, groups in LOGINS.items():
        known = await connection.fetchval("select true from pg_roles where rolname = $1", login)
        # `create role` takes no parameters, so Postgres quotes the literals.
        statement = await connection.fetchval(
            "select format($1::text || ' role %I login password %L', $2::text, $3::text)",
            "alter" if known else "create",
            login,
            password,
        )
        await connection.execute(statement)
        if groups is not None:
            await connection.execute(f"grant {groups} to {login}")


@asynccontextmanager
async def cloned_database(server: Server, template: str) -> AsyncIterator[Database]:
    """Creates a database for one test; drops it afterwards, even with connected clients."""
    name = f"predictu_test_{secrets.token_hex(6)}"
    # Copying files takes less processor time than the default, which writes each page to the WAL.
    await _execute(server, f"create database {name} template {template} strategy file_copy")
    if ARE_HOSTILE:
        connection = await asyncpg.connect(server.dsn(name))
        try:
            await make_hostile(connection, name)
        finally:
            await connection.close()
    try:
        yield Database(
            name=name,
            owner=server.dsn(name),
            producer=server.dsn(name, "test_producer"),
            dispatcher=server.dsn(name, "test_dispatcher"),
            operations=server.dsn(name, "test_operations"),
            support=server.dsn(name, "test_support"),
            auditor=server.dsn(name, "test_auditor"),
            retention=server.dsn(name, "test_retention"),
            reconciler=server.dsn(name, "test_reconciler"),
            second_reconciler=server.dsn(name, "test_second_reconciler"),
            stranger=server.dsn(name, "test_stranger"),
        )
    finally:
        await drop_database(server, name)


async def drop_database(server: Server, name: str) -> None:
    """Drops a database and disconnects its clients. Call it only on the tests' own databases."""
    await _execute(server, f"drop database if exists {name} with (force)")


async def _execute(server: Server, statement: str, database: str | None = None) -> None:
    connection = await asyncpg.connect(server.dsn(database) if database else server.maintenance_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
