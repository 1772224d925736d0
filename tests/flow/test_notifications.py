"""Notifications when a callback is committed: sent at once, without serializing commits."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import definitions
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.daemons import until
from tests.support.environment import open_environment
from tests.support.harness import OPERATOR, Connection, Harness, connected, enqueue, open_harness, until_blocked
from tests.support.postgres import Database, cloned_database, create_template, server_of

BALANCE = {"player_id": "p-1", "currency": "EUR"}
WAIT_S = 5.0
BOUND = "between 0 and 100"
"""Milliseconds for which notify_due() counts on another commit's notification."""


@asynccontextmanager
async def listening(database: Database) -> AsyncIterator["asyncio.Queue[str]"]:
    notifications: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(database.owner)
    await connection.add_listener("predictu_dispatch_due", lambda *args: notifications.put_nowait(str(args[-1])))
    try:
        yield notifications
    finally:
        await connection.close()


async def nothing_more(notifications: "asyncio.Queue[str]", connection: Connection) -> bool:
    """True if no notification arrived before the marker."""
    marker = str(uuid.uuid4())
    await connection.execute("select pg_notify('predictu_dispatch_due', $1)", marker)
    return await asyncio.wait_for(notifications.get(), WAIT_S) == marker


@pytest.fixture
async def notifications(database: Database) -> AsyncIterator["asyncio.Queue[str]"]:
    async with listening(database) as queue:
        yield queue


async def test_an_interactive_callback_is_notified_at_its_commit(
    harness: Harness, notifications: "asyncio.Queue[str]"
) -> None:
    async with harness.producer.transaction():
        await enqueue(harness.producer, "BALANCE", BALANCE)
        await enqueue(harness.producer, "BALANCE", BALANCE)
        assert await nothing_more(notifications, harness.owner)
    assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR
    assert await nothing_more(notifications, harness.owner)


async def test_waiting_settlement_and_cancelled_callbacks_are_not_notified(
    harness: Harness, notifications: "asyncio.Queue[str]"
) -> None:
    await harness.place("b1")
    await asyncio.wait_for(notifications.get(), WAIT_S)
    await harness.end("BET_WIN", "b1")
    transaction = harness.producer.transaction()
    await transaction.start()
    await enqueue(harness.producer, "BALANCE", BALANCE)
    await transaction.rollback()
    assert await nothing_more(notifications, harness.owner)


async def test_a_callback_enqueued_long_before_its_commit_is_notified_as_behind(
    harness: Harness, notifications: "asyncio.Queue[str]"
) -> None:
    async with harness.producer.transaction():
        await enqueue(harness.producer, "BALANCE", BALANCE)
        await asyncio.sleep(0.6)
    assert await asyncio.wait_for(notifications.get(), WAIT_S) == f"{OPERATOR} behind"


@asynccontextmanager
async def slow_commit(harness: Harness, producer: Connection, setting: str = "") -> AsyncIterator[None]:
    """A commit of the producer that notifies, unless a setting is off, and is still in progress."""
    await harness.owner.execute(
        """
        create table public.slow ();
        grant insert on public.slow to public;
        create function public.wait() returns trigger language plpgsql as
            'begin perform pg_advisory_xact_lock_shared(1); return null; end';
        create constraint trigger slow after insert on public.slow deferrable initially deferred
            for each row execute function public.wait();
        """
    )
    # A loaded machine may need longer than the bound until the next commit.
    [due] = [one.sql for one in definitions() if one.name == "dispatch/notify_due.sql"]
    assert due.count(BOUND) == 1
    await harness.owner.execute(due.replace(BOUND, "between 0 and 60000"))
    await harness.owner.execute("select pg_advisory_lock(1)")
    await producer.execute(f"begin; {setting}")
    await enqueue(producer, "BALANCE", BALANCE)
    await producer.execute("insert into public.slow default values")
    committing = asyncio.create_task(producer.execute("commit"))
    await until_blocked(harness.owner, producer)
    try:
        yield
    finally:
        await harness.owner.execute("select pg_advisory_unlock(1)")
        await committing


async def test_while_one_commit_notifies_the_others_do_not_queue_behind_it(
    harness: Harness, database: Database, notifications: "asyncio.Queue[str]"
) -> None:
    async with connected(database.producer, 1) as [producer]:
        async with slow_commit(harness, producer):
            for _ in range(2):
                await enqueue(harness.producer, "BALANCE", BALANCE)
            assert await nothing_more(notifications, harness.owner)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR
        await enqueue(harness.producer, "BALANCE", BALANCE)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR


async def test_a_silent_transaction_notifies_nobody_and_stops_no_notification_of_others(
    harness: Harness, database: Database, notifications: "asyncio.Queue[str]"
) -> None:
    async with connected(database.producer, 1) as [producer]:
        async with slow_commit(harness, producer, "set local predictu_dispatch.notify = off"):
            await enqueue(harness.producer, "BALANCE", BALANCE)
            assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR
        assert await nothing_more(notifications, harness.owner)
        # `set local` ends with its transaction.
        await enqueue(producer, "BALANCE", BALANCE)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR


async def test_a_commit_that_takes_long_does_not_stop_the_notifications_of_others(
    harness: Harness, database: Database, notifications: "asyncio.Queue[str]"
) -> None:
    async with connected(database.producer, 1) as [producer], slow_commit(harness, producer):
        [due] = [one.sql for one in definitions() if one.name == "dispatch/notify_due.sql"]
        await harness.owner.execute(due)
        began = "date_part('epoch', clock_timestamp() - interval '201 milliseconds') * 1000"
        await harness.owner.execute(f"select setval('predictu_dispatch.notifier_began_ms', ({began})::bigint)")
        await enqueue(harness.producer, "BALANCE", BALANCE)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR


@pytest.mark.parametrize(
    "fire",
    [
        "set constraints all immediate",
        "do 'begin set constraints all immediate; end'",
        "set constraints predictu_dispatch.callback_notify_due immediate",
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_open_transaction_never_stops_the_notifications_of_others(
    harness: Harness, database: Database, notifications: "asyncio.Queue[str]", fire: str, when: str
) -> None:
    """SET CONSTRAINTS runs our trigger before the commit."""
    async with connected(database.producer, 1) as [producer], producer.transaction():
        if when == "before":
            await producer.execute(fire)
        await enqueue(producer, "BALANCE", BALANCE)
        if when == "after":
            await producer.execute(fire)
        for _ in range(3):
            await enqueue(harness.producer, "BALANCE", BALANCE)
            assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR
    assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_transaction_with_an_older_snapshot_notifies(
    harness: Harness, notifications: "asyncio.Queue[str]", isolation: Literal["repeatable_read", "serializable"]
) -> None:
    async with harness.producer.transaction(isolation=isolation):
        await harness.producer.execute("select 1")
        await enqueue(harness.owner, "BALANCE", BALANCE)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR
        await enqueue(harness.producer, "BALANCE", BALANCE)
    assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR


async def test_after_a_crash_of_the_server_the_next_commit_notifies(embedded: EmbeddedPostgres) -> None:
    """Which commit notifies is not in the WAL."""
    server = server_of(embedded)
    async with cloned_database(server, await create_template(server)) as database:
        async with open_harness(database) as harness:
            await enqueue(harness.producer, "BALANCE", BALANCE)
            embedded.kill()
        embedded.restart()
        async with open_harness(database) as harness, listening(database) as notifications:
            await enqueue(harness.producer, "BALANCE", BALANCE)
            assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR


async def test_a_generated_request_id_begins_with_the_time(harness: Harness) -> None:
    given = [await enqueue(harness.producer, "BALANCE", BALANCE) for _ in range(3)]
    assert {(one.version, one.variant) for one in given} == {(7, uuid.RFC_4122)}
    created_at = [(await harness.callback(one))["created_at"] for one in given]
    for one, time in zip(given, created_at, strict=True):
        assert abs((one.int >> 80) / 1000 - time.timestamp()) < 1
    assert len(set(given)) == 3


async def test_all_concurrent_commits_are_delivered_although_few_notify(tmp_path: Path, database: Database) -> None:
    """The poll interval is a minute, so the claims after a notification must find the others."""
    async with open_environment(tmp_path, database) as environment, connected(database.producer, 8) as producers:

        async def delivered(count: int) -> None:
            await until(f"{count} came", lambda: len(environment.operator.requests) == count, within_s=WAIT_S)

        environment.fleet.write_operator(environment.operator.url)
        await environment.fleet.start("host-1", daemon={"poll_interval_s": 60.0})
        for turn in range(1, 21):
            await asyncio.gather(*(enqueue(producer, "BALANCE", BALANCE) for producer in producers))
            await delivered(turn * len(producers))
        # A callback enqueued long before its commit is behind the claim cursor.
        async with producers[0].transaction():
            await enqueue(producers[0], "BALANCE", BALANCE)
            await asyncio.sleep(1.2)
            await enqueue(producers[1], "BALANCE", BALANCE)
            await delivered(161)
        await delivered(162)
