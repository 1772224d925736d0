"""Notifications when a callback is committed: sent at once, without serializing commits."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.support.daemons import until
from tests.support.environment import open_environment
from tests.support.harness import OPERATOR, Connection, Harness, connected, enqueue
from tests.support.postgres import Database

BALANCE = {"player_id": "p-1", "currency": "EUR"}
WAIT_S = 5.0


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


async def test_concurrent_commits_send_a_single_notification(
    harness: Harness, notifications: "asyncio.Queue[str]"
) -> None:
    """While one commit with a NOTIFY is in progress, the others do not queue behind it."""
    teller = harness.owner.transaction()
    await teller.start()
    await harness.owner.execute("select pg_advisory_xact_lock(hashtext('predictu_dispatch.notify_due'))")
    await asyncio.wait_for(enqueue(harness.producer, "BALANCE", BALANCE), WAIT_S)
    await teller.rollback()
    assert await nothing_more(notifications, harness.owner)


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
