"""Fixtures for all tests: `postgres`, a server; `database`, a fresh clone.

`embedded`, a server to kill.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from predictu_dispatch.edge.config.loader import VARIABLES
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.bytecode import use_bytecode_cache
from tests.support.environment import Environment, open_environment
from tests.support.harness import Harness, open_harness
from tests.support.pgbouncer import PooledFleet
from tests.support.postgres import Database, Server, cloned_database, create_template, drop_database, server_of

DSN_VARIABLE = "PREDICTU_DISPATCH_DSN"
DSN_OF_THE_RUN = os.environ.get(DSN_VARIABLE)
POOLER_OF_THE_RUN = os.environ.get("TEST_POOLER")

use_bytecode_cache()

# On a busy machine an example may take long; that is no fault of what is tested.
settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")


def pytest_xdist_auto_num_workers() -> int:
    """Three test processes for two cores, because a test waits for a third of its time."""
    return max(2, (os.cpu_count() or 2) * 3 // 2)


@pytest.fixture(autouse=True)
def _settings_of_the_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes variables that would override the dispatcher.toml of a daemon that a test starts."""
    for variable in (*VARIABLES.values(), "PREDICTU_DISPATCH_CONFIG", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def _daemons_through_a_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    """With TEST_POOLER=pgbouncer all daemons reach Postgres through pgbouncer.

    See support/pgbouncer.py.
    """
    if POOLER_OF_THE_RUN:
        monkeypatch.setattr("tests.support.environment.Fleet", PooledFleet)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server that PREDICTU_DISPATCH_DSN names, or an embedded one of this test process."""
    if DSN_OF_THE_RUN:
        yield Server(maintenance_dsn=DSN_OF_THE_RUN)
        return
    with EmbeddedPostgres(fsync=False) as embedded:
        yield server_of(embedded)


@pytest.fixture(scope="session")
def template(postgres: Server) -> Iterator[str]:
    """The name of a migrated database to clone."""
    name = asyncio.run(create_template(postgres))
    yield name
    asyncio.run(drop_database(postgres, name))


@pytest.fixture
async def database(postgres: Server, template: str) -> AsyncIterator[Database]:
    """A fresh database with our schema, with a DSN for each role."""
    async with cloned_database(postgres, template) as database:
        yield database


@pytest.fixture
async def harness(database: Database) -> AsyncIterator[Harness]:
    """A producer's, a daemon's and the owner's connections, each with its role's rights."""
    async with open_harness(database) as harness:
        yield harness


@pytest.fixture
async def environment(tmp_path: Path, database: Database) -> AsyncIterator[Environment]:
    """An operator that answers well, and a fleet of daemons to start."""
    async with open_environment(tmp_path, database) as environment:
        yield environment


@pytest.fixture
def embedded() -> Iterator[EmbeddedPostgres]:
    """An empty server of the test's own, to kill and restart."""
    with EmbeddedPostgres(fsync=False) as embedded:
        yield embedded
