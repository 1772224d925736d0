"""The age that retention keeps at least is the owner's, not that of the login that runs it."""

from pathlib import Path

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.migrations import migrate
from tests.edge.postgres.test_migrations import empty_database, migrate_as_the_first_release
from tests.support.command_line import command_line_for
from tests.support.harness import Connection, Harness, connected
from tests.support.histories import HistoryBuilder, make_months
from tests.support.postgres import Database, Server
from tests.support.retention import LONG_AGO

RUNS = {
    "purge_finished": "select * from predictu_dispatch.purge_finished({months}, 1000)",
    "purge_audit": "select * from predictu_dispatch.purge_audit({months}, 'default', 1000)",
    "expired_audit": "select * from predictu_dispatch.expired_audit({months})",
    "retention_cutoff": "select predictu_dispatch.retention_cutoff({months})",
}


@pytest.mark.parametrize("function", RUNS)
async def test_a_retention_login_removes_nothing_that_is_younger_than_the_floor(
    database: Database, harness: Harness, function: str
) -> None:
    await make_months(harness.owner)
    await HistoryBuilder(harness).make("won", LONG_AGO)
    await harness.owner.execute("update predictu_dispatch.retention_floor set months = 25")
    before = await harness.everything()
    async with connected(database.retention, 1) as [thief]:
        for months in (1, 24, 0, -1, 1201, "null"):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await thief.fetch(RUNS[function].format(months=months))
            assert refused.value.sqlstate == "PD003", months
        for table in ("retention_floor", "purge_cursor", "attempt", "callback"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await thief.execute(f"delete from predictu_dispatch.{table}")  # noqa: S608
        await thief.fetch(RUNS["retention_cutoff"].format(months=25))
    assert await harness.everything() == before
    # Without its row the floor is the default.
    await harness.owner.execute("delete from predictu_dispatch.retention_floor")
    async with connected(database.retention, 1) as [thief]:
        with pytest.raises(asyncpg.PostgresError, match="requires 24"):
            await thief.fetch(RUNS[function].format(months=23))


async def test_retain_says_who_may_lower_the_floor_and_how(
    database: Database, harness: Harness, tmp_path: Path
) -> None:
    await harness.owner.execute("update predictu_dispatch.retention_floor set months = 24")
    retention = command_line_for(tmp_path, database.retention)
    with retention.config.open("a", encoding="utf-8") as file:
        file.write("[daemon]\naudit_retention_months = 12\n")
    code, stdout, stderr = await retention.run("retain")
    assert (code, stdout) == (1, "")
    message, hint = stderr.splitlines()
    assert "keep_months is 12, and the schema's owner requires 24: nothing was removed" in message
    assert (await retention.run("retain", "--dry-run"))[0] == 1
    await harness.owner.execute(hint[hint.index("update ") :])
    assert (await retention.run("retain"))[0] == 0


async def floor(owner: Connection) -> int:
    months: int = await owner.fetchval("select months from predictu_dispatch.retention_floor")
    return months


@pytest.mark.parametrize(("used", "expected"), [(None, 24), (12, 11), (1, 1), (36, 24)])
async def test_an_upgrade_sets_a_floor_that_the_running_configuration_meets(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, used: int | None, expected: int
) -> None:
    """Where retention has run, the floor is a month below what its last run kept, 24 at most."""
    async with empty_database(postgres) as dsn:
        await migrate_as_the_first_release(dsn, monkeypatch)
        async with connected(dsn, 1) as [owner]:
            if used is not None:
                await owner.execute(
                    "insert into predictu_dispatch.purge_cursor (cutoff, next_block) values"
                    " ((date_trunc('month', now() at time zone 'UTC') - make_interval(months => $1))"
                    "  at time zone 'UTC', 0)",
                    used,
                )
            await migrate(dsn)
            assert await floor(owner) == expected
            for months in {used, used and used - 1} - {None, 0}:
                await owner.fetch(RUNS["retention_cutoff"].format(months=months))
