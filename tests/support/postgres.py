"""A database for every test: a clone of one template in which our migrations ran once.

Whose server it is makes no difference to a test: an embedded one of the test run's own, or the one that
PREDICTU_DISPATCH_DSN names, where nothing is touched but databases of ours, the migrations' group roles and the
login roles below.
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

LOGINS = {
    "test_producer": "predictu_producer",
    "test_dispatcher": "predictu_dispatcher",
    "test_support": "predictu_support",
    "test_retention": "predictu_retention",
}
"""Login roles of the tests, each a member of one of the migrations' group roles."""

_LOCK_KEY = 7_305_177_219_640_777
"""Roles belong to the whole server: two test processes must not make them at once. Any number of our own will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A Postgres on which tests may create databases; `maintenance_dsn` is its owner's way in."""

    maintenance_dsn: str

    @property
    def password(self) -> str:
        """The login roles' password: the same for every process that knows the owner's DSN, unknown to the others."""
        return hashlib.sha256(f"login roles of {self.maintenance_dsn}".encode()).hexdigest()[:32]

    def dsn(self, database: str, user: str | None = None) -> str:
        """The way into one database, as one of LOGINS or, without a user, as the owner."""
        parts = urlsplit(self.maintenance_dsn)
        owner, _, hosts = parts.netloc.rpartition("@")
        login = owner if user is None else f"{quote(user)}:{self.password}"
        return parts._replace(netloc=f"{login}@{hosts}" if login else hosts, path=f"/{quote(database)}").geturl()


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One test's own database, and a DSN for each role that may enter it. The owner ran the migrations."""

    name: str
    owner: str
    producer: str
    dispatcher: str
    support: str
    retention: str


def server_of(postgres: EmbeddedPostgres, *, tcp: bool = False) -> Server:
    """For a test that needs a server of its own, to kill it or to reach it through a proxy (`tcp`)."""
    return Server(maintenance_dsn=postgres.dsn(tcp=tcp))


async def create_template(server: Server) -> str:
    """A database with our schema exists, ready to be cloned, and so do the login roles; returns its name."""
    name = f"predictu_template_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server.maintenance_dsn)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK_KEY)
        await connection.execute(f"create database {name} encoding 'UTF8' template template0")
        await migrate(server.dsn(name))
        await _create_logins(connection, server.password)
    finally:
        await connection.close()
    return name


async def _create_logins(connection: "asyncpg.Connection[asyncpg.Record]", password: str) -> None:
    for login, group in LOGINS.items():
        known = await connection.fetchval("select true from pg_roles where rolname = $1", login)
        # The parameters of a role can be literals only; Postgres itself does the quoting.
        statement = await connection.fetchval(
            "select format($1::text || ' role %I login password %L', $2::text, $3::text)",
            "alter" if known else "create",
            login,
            password,
        )
        await connection.execute(statement)
        await connection.execute(
            await connection.fetchval("select format('grant %I to %I', $1::text, $2::text)", group, login)
        )


@asynccontextmanager
async def cloned_database(server: Server, template: str) -> AsyncIterator[Database]:
    """A fresh database for one test, gone afterwards whoever is still connected."""
    name = f"predictu_test_{secrets.token_hex(6)}"
    await _execute(server, f"create database {name} template {template}")
    try:
        yield Database(
            name=name,
            owner=server.dsn(name),
            producer=server.dsn(name, "test_producer"),
            dispatcher=server.dsn(name, "test_dispatcher"),
            support=server.dsn(name, "test_support"),
            retention=server.dsn(name, "test_retention"),
        )
    finally:
        await drop_database(server, name)


async def drop_database(server: Server, name: str) -> None:
    """The database is gone, its clients with it. To be used on names that create_template() returned."""
    await _execute(server, f"drop database if exists {name} with (force)")


async def _execute(server: Server, statement: str) -> None:
    connection = await asyncpg.connect(server.maintenance_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
