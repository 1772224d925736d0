"""No login without a grant holds a lock that deliveries, heartbeats or maintenance need."""

import asyncio

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.edge.postgres.sql_files import definitions
from tests.support.environment import Environment
from tests.support.harness import Connection, connected
from tests.support.heartbeats import FleetMember
from tests.support.postgres import Database
from tests.support.retention import run_retention

KEYS = [7_305_177_219_640_001]
"""The key of `migrate` of the first releases."""
NAMES = ("heartbeat", "announce", "notify_due", "retention", "prepare_partitions")
"""The first releases locked the hashes of these names in `predictu_dispatch`."""
MODES = (
    "access share",
    "row share",
    "row exclusive",
    "share update exclusive",
    "share",
    "share row exclusive",
    "exclusive",
    "access exclusive",
)
STRENGTHS = ("key share", "share", "no key update", "update")
WITHIN_S = 5.0
"""Less than anything that waits for a lock would take."""


async def hold_every_key(stranger: Connection) -> None:
    """Takes each key that a release ever used, as one number and as two."""
    hashes = [await stranger.fetchval("select hashtext($1)", f"predictu_dispatch.{name}") for name in NAMES]
    for key in [*KEYS, *hashes]:
        await stranger.execute("select pg_advisory_lock($1)", key)
        await stranger.execute(
            "select pg_advisory_lock(($1::bigint >> 32)::integer, ($1::bigint::bit(32))::integer)", key
        )


async def test_a_stranger_who_holds_every_advisory_lock_stops_nothing(
    environment: Environment, database: Database
) -> None:
    async with connected(database.stranger, 1) as [stranger]:
        await hold_every_key(stranger)
        daemons = [await environment.fleet.start(name) for name in ("host-1", "host-2")]
        async with asyncio.timeout(WITHIN_S):
            for bet in ("b1", "b2"):
                await environment.harness.place(bet)
                await environment.harness.end("BET_WIN", bet)
            await environment.until_all_final()
        await environment.harness.owner.execute("delete from predictu_dispatch.schema_function")
        async with asyncio.timeout(WITHIN_S):
            assert len((await migrate(database.owner)).functions) == len(definitions())
            assert (await run_retention(database)).is_complete
        for daemon in daemons:
            daemon.terminate()
            assert await daemon.exited() == 0
            assert daemon.lines("chore.failed") == []
    assert await environment.harness.owner.fetchval("select count(*) from predictu_dispatch.daemon") == 0
    assert await environment.bets() == {"closed": 2}


async def test_no_function_of_ours_takes_an_advisory_lock(database: Database) -> None:
    async with connected(database.owner, 1) as [owner]:
        named = await owner.fetch(
            "select proname from pg_proc where pronamespace = 'predictu_dispatch'::regnamespace"
            " and prosrc like '%advisory%'"
        )
    assert [row["proname"] for row in named] == []


@pytest.mark.parametrize(
    "login", ["stranger", "producer", "support", "auditor", "operations", "dispatcher", "retention"]
)
async def test_no_login_but_the_owner_locks_our_tables_or_rows(database: Database, login: str) -> None:
    """Who may read a table may hold it against `alter table`, as every reader does; not more."""
    async with connected(database.owner, 1) as [owner], connected(getattr(database, login), 1) as [other]:
        rows = await owner.fetch(
            "select c.relname as name, c.relname <> 'lock' and has_table_privilege($1, c.oid, 'select') as is_readable"
            "  from pg_class c where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind in ('r', 'p')",
            f"test_{login}",
        )
        assert "lock" in {row["name"] for row in rows}
        for row in rows:
            table = f"predictu_dispatch.{row['name']}"
            for mode in MODES[row["is_readable"] :]:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await other.execute(f"do 'begin lock table {table} in {mode} mode nowait; end'")
            for strength in STRENGTHS:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await other.execute(f"select from {table} for {strength}")


async def test_heartbeats_take_turns_and_one_that_is_not_committed_stops_the_others_no_longer_than_its_timeout(
    database: Database,
) -> None:
    async with connected(database.dispatcher, 2) as [first, second]:
        one, two = (FleetMember(connection, name, (10, 10, 0.0)) for connection, name in ((first, "a"), (second, "b")))
        async with first.transaction():
            await one.heartbeat()
            with pytest.raises(asyncpg.LockNotAvailableError):
                await two.heartbeat()
        assert await two.heartbeat() == (0, 0, None)
