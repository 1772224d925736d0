"""migrate builds missing indexes while callbacks are delivered, and repairs what a kill left."""

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from predictu_dispatch.edge.postgres.migrations import SchemaError, migrate
from predictu_dispatch.edge.postgres.sql_files import indexes
from tests.support.command_line import command_line_for
from tests.support.harness import WAIT_S, Connection, Harness, connected, delivered
from tests.support.postgres import Database

NAMES = [index.name for index in indexes()]
FOUND = """
    select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
     where c.relname = any ($1) order by c.relname
"""


async def found(owner: Connection) -> dict[str, bool]:
    """Whether each of our search indexes that exist is valid."""
    return {row["relname"]: row["indisvalid"] for row in await owner.fetch(FOUND, NAMES)}


async def drop_all(owner: Connection) -> None:
    """As in the database of an older release."""
    for name in NAMES:
        await owner.execute(f"drop index predictu_dispatch.{name}")


async def until_building(owner: Connection) -> None:
    # A process starts and migrates before that; on a loaded machine it takes long.
    async with asyncio.timeout(5 * WAIT_S):
        while not await owner.fetchval(
            "select count(*) from pg_stat_progress_create_index where phase like 'waiting%'"
        ):
            pass


async def test_a_build_stops_no_delivery_and_is_repaired_after_a_kill_in_its_middle(
    harness: Harness, database: Database, tmp_path: Path
) -> None:
    await harness.attempt(await harness.place("before"), delivered)
    await drop_all(harness.owner)
    migrating = command_line_for(tmp_path, database.owner).process("migrate")
    async with connected(database.owner, 2) as [other, watching]:
        # Each build waits for transactions with a snapshot that is older than the index.
        await other.execute("begin isolation level repeatable read; select count(*) from predictu_dispatch.callback")
        killed = await asyncio.create_subprocess_exec(*migrating, stderr=asyncio.subprocess.PIPE)
        await until_building(watching)
        assert False in (await found(watching)).values()
        # A bet is placed, delivered and ended meanwhile.
        await harness.attempt(await harness.place("meanwhile"), delivered)
        await harness.attempt(await harness.end("BET_WIN", "meanwhile"), delivered, operator_transaction_id="tx")
        assert killed.stderr is not None
        assert b"building the search indexes bet_of_player" in await killed.stderr.readline()
        killed.send_signal(signal.SIGKILL)
        await killed.wait()

        # Two runs at once, while the session of the killed one may still be building.
        runs = [asyncio.create_task(migrate(database.owner)) for _ in range(2)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.gather(*runs)), 0.5)
        assert not any(run.done() for run in runs)
        assert False in (await found(watching)).values()
        await other.execute("rollback")
        built = [set((await run).indexes) for run in runs]
    assert set() in built
    assert await found(harness.owner) == dict.fromkeys(sorted(NAMES), True)
    assert (await migrate(database.owner)).indexes == []
    payouts = "select count(*) from predictu_dispatch.callback where predictu_dispatch.payout_of(params) = 'EUR 500'"
    assert await harness.owner.fetchval(f"{payouts} and state = 'delivered' and method in ('BET_WIN', 'BET_SELL')") == 1


async def test_an_invalid_index_is_built_again(harness: Harness, database: Database) -> None:
    await harness.owner.execute(
        "update pg_index set indisvalid = false where indexrelid = 'predictu_dispatch.bet_placed'::regclass"
    )
    assert (await migrate(database.owner)).indexes == ["bet_placed"]
    assert await found(harness.owner) == dict.fromkeys(sorted(NAMES), True)


async def test_an_index_that_cannot_be_built_is_named_and_the_next_run_builds_it(
    harness: Harness, database: Database
) -> None:
    owner = harness.owner
    await owner.execute("drop index predictu_dispatch.bet_placed, predictu_dispatch.callback_of_payout")
    async with connected(database.owner, 1) as [other]:
        await other.execute("begin isolation level repeatable read; select count(*) from predictu_dispatch.callback")
        run = asyncio.create_task(migrate(database.owner))
        await until_building(owner)
        await owner.execute("select pg_cancel_backend(pid) from pg_stat_progress_create_index")
        with pytest.raises(
            SchemaError, match=r"bet_placed: canceling statement.*run `predictu-dispatch migrate` again"
        ):
            await run
        await other.execute("rollback")
    assert sorted((await migrate(database.owner)).indexes) == ["bet_placed", "callback_of_payout"]
