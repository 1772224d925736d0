"""A configuration folder, a person's command line, and a database whose daemons a test plays."""

from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, command_line_for
from tests.support.disputes import Disputes, policy, signing_key
from tests.support.harness import Harness, connected
from tests.support.postgres import Database
from tests.support.scene import Scene


@pytest.fixture
async def long_heartbeat_timeout(database: Database) -> None:
    """A heartbeat counts for a minute, so that a slow machine changes nothing."""
    await lengthen_heartbeat_timeout(database)


async def lengthen_heartbeat_timeout(database: Database) -> None:
    """Makes a heartbeat count for a minute."""
    async with connected(database.owner, 1) as [owner]:
        await owner.execute(
            "create or replace function predictu_dispatch.heartbeat_timeout() returns interval"
            " language sql immutable parallel safe as $$ select interval '1 minute' $$"
        )


@pytest.fixture
def dispatcher(tmp_path: Path) -> Path:
    (tmp_path / "operators").mkdir()
    (tmp_path / "dispatcher.toml").write_text("")
    return tmp_path / "dispatcher.toml"


@pytest.fixture
def person_cli(tmp_path: Path, database: Database) -> CommandLine:
    """Runs commands with a person's login."""
    return command_line_for(tmp_path, database.operations)


@pytest.fixture
def scene(harness: Harness, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One operator and no daemon."""
    monkeypatch.setenv("COLUMNS", "80")
    return Scene(harness=harness, desk=command_line_for(tmp_path, database.support), database=database)


@pytest.fixture
async def disputes(harness: Harness, tmp_path: Path) -> Disputes:
    made = Disputes(harness=harness, key=signing_key(tmp_path))
    await made.register_key(made.key)
    return made


@pytest.fixture
def auditor(tmp_path: Path, database: Database) -> CommandLine:
    (tmp_path / "policy.txt").write_bytes(policy())
    return command_line_for(tmp_path, database.auditor)
