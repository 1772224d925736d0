"""One daemon at a time does a maintenance chore for the whole fleet."""

import asyncio

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import Connection, connected
from tests.support.postgres import Database

HOUR_S = 3600.0


async def claim(connection: Connection, every_s: float = HOUR_S, chore: str = "reap", instance: str = "host-1") -> bool:
    return bool(await connection.fetchval(query("claim_chore"), chore, every_s, instance))


async def test_one_daemon_per_interval_gets_a_chore(database: Database) -> None:
    async with connected(database.dispatcher, 4) as daemons:
        claims = await asyncio.gather(*(claim(daemon, instance=str(n)) for n, daemon in enumerate(daemons)))
        assert sorted(claims) == [False, False, False, True]
        assert [await claim(daemon) for daemon in daemons] == [False] * 4
        assert await claim(daemons[0], chore="backlog"), "chores are independent"


async def test_a_chore_is_due_again_after_its_interval(database: Database) -> None:
    """Also if the daemon that claimed it was killed before it was done."""
    async with connected(database.dispatcher, 2) as [killed, other], connected(database.owner, 1) as [owner]:
        assert await claim(killed)
        assert not await claim(other)
        await owner.execute("update predictu_dispatch.maintenance_chore set due_at = now() where chore = 'reap'")
        assert await claim(other, instance="host-2")
        assert await owner.fetchval(
            "select claimed_by from predictu_dispatch.maintenance_chore where chore = 'reap'"
        ) == ("host-2")


async def test_a_claim_waits_for_no_other_transaction(database: Database) -> None:
    """A claim that rolls back leaves the chore to the next daemon."""
    async with connected(database.dispatcher, 2) as [one, other]:
        transaction = one.transaction()
        await transaction.start()
        assert await claim(one)
        async with asyncio.timeout(5):
            assert not await claim(other)
        await transaction.rollback()
        assert await claim(other)


async def test_a_shorter_interval_and_a_clock_that_was_set_back_make_a_chore_due(database: Database) -> None:
    async with connected(database.dispatcher, 1) as [daemon]:
        assert await claim(daemon)
        assert await claim(daemon, every_s=HOUR_S / 2)
        assert not await claim(daemon, every_s=HOUR_S / 2)


async def test_unknown_chores_and_intervals_are_refused(database: Database) -> None:
    async with connected(database.dispatcher, 1) as [daemon]:
        for chore, every_s in (("sweep", 1.0), (None, 1.0), ("reap", -1.0), ("reap", None), ("reap", 1e9)):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await daemon.fetchval(query("claim_chore"), chore, every_s, "host-1")
            assert refused.value.sqlstate == "PD003"
