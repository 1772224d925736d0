"""The pool keeps connections between statements and gives one to a statement that waits."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from predictu_dispatch.edge.postgres.database import _CLOSE_TIMEOUT_S
from predictu_dispatch.edge.postgres.database import Database as Pool
from tests.support.daemons import until
from tests.support.harness import connected
from tests.support.postgres import Database

MINE = "select pg_backend_pid() as pid"
OF_THE_POOL = "select pid from pg_stat_activity where application_name = 'pool'"


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """A pool of one connection."""
    pool = Pool(database.dispatcher, pool_size=1, application_name="pool")
    await pool.open()
    yield pool
    await pool.close()


async def test_statements_that_wait_get_the_connection_in_turn(pool: Pool) -> None:
    rows = await asyncio.gather(*(pool.fetch(MINE, urgent=True) for _ in range(20)))
    assert len({row["pid"] for [row] in rows}) == 1


async def test_a_kept_connection_that_is_lost_is_replaced(pool: Pool, database: Database) -> None:
    """Without a failed statement, if the loss is known."""
    [first] = await pool.fetch(MINE)
    async with connected(database.owner, 1) as [owner]:
        await owner.execute("select pg_terminate_backend($1)", first["pid"])

        async def it_is_gone() -> bool:
            return await owner.fetch(OF_THE_POOL) == []

        await until("the connection is lost", it_is_gone)
    [second] = await pool.fetch(MINE)
    assert second["pid"] != first["pid"]
    assert pool.is_up


async def test_close_waits_for_a_running_statement_and_for_nothing_else(pool: Pool) -> None:
    await pool.fetch(MINE)
    running = asyncio.create_task(pool.fetch("select pg_sleep(0.2)"))
    await asyncio.sleep(0)
    began_s = time.monotonic()
    await pool.close()
    assert await running
    assert time.monotonic() - began_s < _CLOSE_TIMEOUT_S


async def test_a_connection_that_was_idle_for_too_long_is_replaced(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall may have forgotten it, and a statement would wait for its timeout."""
    [first] = await pool.fetch(MINE)
    [again] = await pool.fetch(MINE)
    monkeypatch.setattr("predictu_dispatch.edge.postgres.database._IDLE_MAX_S", -1.0)
    [later] = await pool.fetch(MINE)
    assert first["pid"] == again["pid"] != later["pid"]
