"""Races with real locks: the first transaction commits only when the second one waits for it.

They rely on the lock order (a bet, then its callbacks) and on claims that never wait. So a deadlock
(40P01) is a failure too.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Literal

import asyncpg
import pytest

from tests.support.harness import (
    OPERATOR,
    Connection,
    Harness,
    Report,
    claim,
    connected,
    delivered,
    enqueue,
    exhausted,
    rejected,
    retried,
    rollback,
    settle,
    terminal_params,
    until_blocked,
)
from tests.support.postgres import Database

PRODUCERS = 8
BALANCE = {"player_id": "p1", "currency": "EUR"}


@pytest.fixture
async def bulk(database: Database) -> AsyncIterator[list[Connection]]:
    """Connections of further producers."""
    async with connected(database.producer, PRODUCERS) as connections:
        yield connections


async def outcome(action: Awaitable[Any]) -> Any:
    """The action's result, or the SQLSTATE of its refusal."""
    try:
        return await action
    except asyncpg.PostgresError as error:
        return error.sqlstate


async def overtake(
    harness: Harness, first: tuple[Connection, Awaitable[Any]], *seconds: tuple[Connection, Coroutine[Any, Any, Any]]
) -> tuple[Any, ...]:
    """Run the first without commit, start the others, commit when all wait; returns all results."""
    connection, action = first
    async with asyncio.TaskGroup() as group, connection.transaction():
        came_to = await outcome(action)
        tasks = [group.create_task(outcome(second)) for _, second in seconds]
        for waiter, _ in seconds:
            await until_blocked(harness.owner, waiter)
    return (came_to, *(task.result() for task in tasks))


async def settle_behind(harness: Harness, first: tuple[Connection, Awaitable[Any]], report: Report) -> Any:
    """Settle while the first is uncommitted, so the row is locked.

    Settle again after its commit.
    """
    connection, action = first
    async with connection.transaction():
        came_to = await action
        assert [change["cause"] for change in await settle(harness.daemon, report)] == ["locked"]
    await settle(harness.daemon, report)
    return came_to


# Producers among themselves


async def test_of_many_concurrent_terminals_one_wins_and_the_others_are_refused(
    harness: Harness, bulk: list[Connection]
) -> None:
    await harness.attempt(await harness.place(), delivered)
    bet = await harness.bet()
    methods = ["BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK", "BET_WIN", "BET_SELL", "BET_LOSE"]
    first, *others = [
        (connection, enqueue(connection, method, terminal_params(method, bet)))
        for connection, method in zip(bulk, methods, strict=True)
    ]
    winner, *losers = await overtake(harness, first, *others)
    assert losers == ["PD005"] * (PRODUCERS - 1)
    assert ((await harness.bet())["state"], (await harness.bet())["terminal_request_id"]) == ("closing", winner)


@pytest.mark.parametrize("method", ["BET_MAKE", "BET_WIN", "BALANCE"])
async def test_the_same_request_from_concurrent_producers_is_one_callback(
    harness: Harness, bulk: list[Connection], method: str
) -> None:
    """The first commits in one round and rolls back in the other; then a waiting one succeeds."""
    for number, committed in enumerate((True, False)):
        bet_id, request_id = f"b{number}", uuid.uuid4()
        await harness.place(bet_id)
        bet = await harness.bet(bet_id)
        placed = json.loads((await harness.callback(bet["placement_request_id"]))["params"])
        params = {
            "BALANCE": BALANCE,
            "BET_WIN": terminal_params("BET_WIN", bet),
            "BET_MAKE": placed | {"bet_id": f"new{number}"},
        }[method]
        transaction = bulk[0].transaction()
        await transaction.start()
        assert await enqueue(bulk[0], method, params, request_id=request_id) == request_id
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(enqueue(one, method, params, request_id=request_id)) for one in bulk[1:]]
            for one in bulk[1:]:
                await until_blocked(harness.owner, one)
            await (transaction.commit() if committed else transaction.rollback())
        assert {task.result() for task in tasks} == {request_id}
        assert (await harness.callback(request_id))["method"] == method


async def test_of_two_concurrent_contents_for_one_request_id_the_first_wins(
    harness: Harness, bulk: list[Connection]
) -> None:
    """Also across methods and bets; the other transaction is rolled back with its bet."""
    one, other = bulk[:2]
    await harness.place("b1")
    win, request_id = terminal_params("BET_WIN", await harness.bet("b1")), uuid.uuid4()
    placement = json.loads((await harness.callback((await harness.bet())["placement_request_id"]))["params"])
    came_to = await overtake(
        harness,
        (one, enqueue(one, "BALANCE", BALANCE, request_id=request_id)),
        (other, enqueue(other, "BET_WIN", win, request_id=request_id)),
        (bulk[2], enqueue(bulk[2], "BET_MAKE", placement | {"bet_id": "b2"}, request_id=request_id)),
    )
    assert came_to == (request_id, "PD004", "PD004")
    assert (await harness.bet("b1"))["terminal_request_id"] is None
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.bet") == 1


# A producer and a daemon


@pytest.mark.parametrize(
    ("came_to", "settled_first", "enqueued_first"),
    [
        (delivered, "ready", "ready"),
        (rejected, "PD005", "cancelled"),
        (exhausted, "PD005", "cancelled"),
        (retried, "waiting", "waiting"),
    ],
)
async def test_a_terminal_concurrent_to_its_placements_settle_is_never_left_waiting(
    harness: Harness, came_to: Callable[..., Report], settled_first: str, enqueued_first: str
) -> None:
    for bet_id, expected in (("b1", settled_first), ("b2", enqueued_first)):
        lease = await harness.lease(await harness.place(bet_id))
        params = terminal_params("BET_WIN", await harness.bet(bet_id))
        enqueuing = (harness.producer, enqueue(harness.producer, "BET_WIN", params))
        if bet_id == "b1":
            _, enqueued = await overtake(harness, (harness.daemon, settle(harness.daemon, came_to(lease))), enqueuing)
        else:
            enqueued = await settle_behind(harness, enqueuing, came_to(lease))
        assert (enqueued if isinstance(enqueued, str) else await harness.state(enqueued)) == expected, bet_id


async def test_rollback_bet_after_a_concurrent_claim_sees_the_placement_in_flight(harness: Harness) -> None:
    placement = await harness.place()
    leases, rollback_id = await overtake(
        harness, (harness.daemon, claim(harness.daemon)), (harness.producer, rollback(harness.producer, "b1"))
    )
    assert [lease["request_id"] for lease in leases] == [placement]
    assert (await harness.callback(placement))["retry_stopped"]
    assert await harness.state(rollback_id) == "waiting"
    await harness.settle(retried(leases[0]))
    assert (await harness.state(placement), await harness.state(rollback_id)) == ("exhausted", "ready")


@pytest.mark.parametrize("came_to", [delivered, retried, rejected])
async def test_rollback_bet_and_settle_agree_in_either_order(harness: Harness, came_to: Callable[..., Report]) -> None:
    for bet_id, settled_first in (("b1", True), ("b2", False)):
        lease = await harness.lease(await harness.place(bet_id))
        rolling = (harness.producer, rollback(harness.producer, bet_id))
        if settled_first:
            _, rollback_id = await overtake(harness, (harness.daemon, settle(harness.daemon, came_to(lease))), rolling)
        else:
            rollback_id = await settle_behind(harness, rolling, came_to(lease))
        if came_to is rejected:
            assert (await harness.bet(bet_id))["state"] == "void"
            assert await harness.rollbacks(bet_id) == []
        else:
            assert (await harness.bet(bet_id))["state"] == "closing"
            assert [callback["request_id"] for callback in await harness.rollbacks(bet_id)] == [rollback_id]
            assert await harness.state(rollback_id) == "ready"


async def test_concurrent_rollback_bet_calls_make_one_rollback(harness: Harness, bulk: list[Connection]) -> None:
    one, other = bulk[:2]
    await harness.attempt(await harness.place("unknown"), retried, due_in_s=60.0)
    await harness.attempt(await harness.place("open"), delivered)
    await harness.lease(await harness.place("in flight"))
    await harness.place("never tried")
    for bet_id in ("never tried", "in flight", "unknown", "open"):
        first, second = await overtake(harness, (one, rollback(one, bet_id)), (other, rollback(other, bet_id)))
        assert first == second
        assert [callback["request_id"] for callback in await harness.rollbacks(bet_id)] == ([first] if first else [])


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_producer_with_an_old_snapshot_gets_a_serialization_failure(
    harness: Harness, bulk: list[Connection], isolation: Literal["repeatable_read", "serializable"]
) -> None:
    """It must not decide on a snapshot that lacks the settled result."""
    lease, request_id = await harness.lease(await harness.place("b1")), uuid.uuid4()
    win = terminal_params("BET_WIN", await harness.bet("b1"))
    producer = bulk[0]

    async def in_a_savepoint(action: Awaitable[Any]) -> Any:
        async with producer.transaction():
            return await action

    async with producer.transaction(isolation=isolation):
        await producer.fetch("select * from predictu_dispatch.outcome($1, $2)", OPERATOR, request_id)
        await harness.settle(delivered(lease))
        await enqueue(harness.producer, "BALANCE", BALANCE, request_id=request_id)
        for action in (
            enqueue(producer, "BET_WIN", win),
            rollback(producer, "b1"),
            enqueue(producer, "BALANCE", BALANCE, request_id=request_id),
        ):
            assert await outcome(in_a_savepoint(action)) == "40001"
    async with producer.transaction(isolation=isolation):
        assert await enqueue(producer, "BALANCE", BALANCE, request_id=request_id) == request_id
        assert await harness.state(await rollback(harness.producer, "b1")) == "ready"
