"""Two at once, told apart by real locks: what comes first is held uncommitted until the second is seen to wait for it.

The promise behind all of these races is the lock order, a bet first and then its callbacks, and that a claim waits for
nobody. So a deadlock (40P01) is a failure here as much as a wrong row.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Literal

import asyncpg
import pytest

from tests.support.ledger import (
    OPERATOR,
    Connection,
    Ledger,
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
async def crowd(database: Database) -> AsyncIterator[list[Connection]]:
    """More producers."""
    async with connected(database.producer, PRODUCERS) as connections:
        yield connections


async def outcome(action: Awaitable[Any]) -> Any:
    """What the action returned, or the SQLSTATE it was refused with."""
    try:
        return await action
    except asyncpg.PostgresError as error:
        return error.sqlstate


async def overtake(
    ledger: Ledger, first: tuple[Connection, Awaitable[Any]], *seconds: tuple[Connection, Coroutine[Any, Any, Any]]
) -> tuple[Any, ...]:
    """The first is done, not committed, when the seconds start; it commits once all wait for it. What each came to."""
    connection, action = first
    async with asyncio.TaskGroup() as group, connection.transaction():
        came_to = await outcome(action)
        tasks = [group.create_task(outcome(second)) for _, second in seconds]
        for waiter, _ in seconds:
            await until_blocked(ledger.owner, waiter)
    return (came_to, *(task.result() for task in tasks))


async def settle_behind(ledger: Ledger, first: tuple[Connection, Awaitable[Any]], said: Report) -> Any:
    """The first is done, not committed, when the daemon settles: its report is held, and told again afterwards."""
    connection, action = first
    async with connection.transaction():
        came_to = await action
        assert [change["cause"] for change in await settle(ledger.daemon, said)] == ["held"]
    await settle(ledger.daemon, said)
    return came_to


# ── Producers among themselves ──────────────────────────────────────────────────────────────────────────────────────


async def test_of_many_terminals_for_one_bet_one_wins_and_the_others_are_told(
    ledger: Ledger, crowd: list[Connection]
) -> None:
    await ledger.attempt(await ledger.place(), delivered)
    bet = await ledger.bet()
    methods = ["BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK", "BET_WIN", "BET_SELL", "BET_LOSE"]
    first, *others = [
        (connection, enqueue(connection, method, terminal_params(method, bet)))
        for connection, method in zip(crowd, methods, strict=True)
    ]
    winner, *losers = await overtake(ledger, first, *others)
    assert losers == ["PD005"] * (PRODUCERS - 1)
    assert ((await ledger.bet())["state"], (await ledger.bet())["terminal_request_id"]) == ("closing", winner)


@pytest.mark.parametrize("method", ["BET_MAKE", "BET_WIN", "BALANCE"])
async def test_the_same_request_from_many_producers_at_once_is_one_callback(
    ledger: Ledger, crowd: list[Connection], method: str
) -> None:
    """The first commits in one round and rolls back in the other; then one of those who waited comes in its place."""
    for number, committed in enumerate((True, False)):
        bet_id, request_id = f"b{number}", uuid.uuid4()
        await ledger.place(bet_id)
        bet = await ledger.bet(bet_id)
        placed = json.loads((await ledger.callback(bet["placement_request_id"]))["params"])
        params = {
            "BALANCE": BALANCE,
            "BET_WIN": terminal_params("BET_WIN", bet),
            "BET_MAKE": placed | {"bet_id": f"new{number}"},
        }[method]
        transaction = crowd[0].transaction()
        await transaction.start()
        assert await enqueue(crowd[0], method, params, request_id=request_id) == request_id
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(enqueue(one, method, params, request_id=request_id)) for one in crowd[1:]]
            for one in crowd[1:]:
                await until_blocked(ledger.owner, one)
            await (transaction.commit() if committed else transaction.rollback())
        assert {task.result() for task in tasks} == {request_id}
        assert (await ledger.callback(request_id))["method"] == method


async def test_one_request_id_for_two_contents_at_once_stands_for_the_first(
    ledger: Ledger, crowd: list[Connection]
) -> None:
    """Across methods and bets too: the loser's whole transaction is undone, its bet included."""
    one, other = crowd[:2]
    await ledger.place("b1")
    win, request_id = terminal_params("BET_WIN", await ledger.bet("b1")), uuid.uuid4()
    placement = json.loads((await ledger.callback((await ledger.bet())["placement_request_id"]))["params"])
    came_to = await overtake(
        ledger,
        (one, enqueue(one, "BALANCE", BALANCE, request_id=request_id)),
        (other, enqueue(other, "BET_WIN", win, request_id=request_id)),
        (crowd[2], enqueue(crowd[2], "BET_MAKE", placement | {"bet_id": "b2"}, request_id=request_id)),
    )
    assert came_to == (request_id, "PD004", "PD004")
    assert (await ledger.bet("b1"))["terminal_request_id"] is None
    assert await ledger.owner.fetchval("select count(*) from predictu_dispatch.bet") == 1


# ── A producer and a daemon ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("came_to", "settled_first", "enqueued_first"),
    [
        (delivered, "ready", "ready"),
        (rejected, "PD005", "cancelled"),
        (exhausted, "PD005", "cancelled"),
        (retried, "waiting", "waiting"),
    ],
)
async def test_a_terminal_that_meets_the_settling_of_its_placement_is_never_left_waiting(
    ledger: Ledger, came_to: Callable[..., Report], settled_first: str, enqueued_first: str
) -> None:
    for bet_id, expected in (("b1", settled_first), ("b2", enqueued_first)):
        lease = await ledger.lease(await ledger.place(bet_id))
        params = terminal_params("BET_WIN", await ledger.bet(bet_id))
        enqueuing = (ledger.producer, enqueue(ledger.producer, "BET_WIN", params))
        if bet_id == "b1":
            _, enqueued = await overtake(ledger, (ledger.daemon, settle(ledger.daemon, came_to(lease))), enqueuing)
        else:
            enqueued = await settle_behind(ledger, enqueuing, came_to(lease))
        assert (enqueued if isinstance(enqueued, str) else await ledger.state(enqueued)) == expected, bet_id


async def test_rollback_bet_sees_what_the_claim_before_it_has_made_of_the_placement(ledger: Ledger) -> None:
    placement = await ledger.place()
    leases, rollback_id = await overtake(
        ledger, (ledger.daemon, claim(ledger.daemon)), (ledger.producer, rollback(ledger.producer, "b1"))
    )
    assert [lease["request_id"] for lease in leases] == [placement]
    assert (await ledger.callback(placement))["retry_stopped"]
    assert await ledger.state(rollback_id) == "waiting"
    await ledger.settle(retried(leases[0]))
    assert (await ledger.state(placement), await ledger.state(rollback_id)) == ("exhausted", "ready")


async def test_a_claim_passes_by_what_a_producer_is_just_rolling_back(ledger: Ledger) -> None:
    """It does not wait for that producer either: whatever else is due goes out."""
    await ledger.place("b1")
    other = await ledger.place("b2")
    async with ledger.producer.transaction():
        assert await ledger.rollback("b1") is None
        assert [lease["request_id"] for lease in await claim(ledger.daemon)] == [other]
    assert await claim(ledger.daemon) == []


@pytest.mark.parametrize("came_to", [delivered, retried, rejected])
async def test_rollback_bet_and_a_settling_agree_whichever_is_first(
    ledger: Ledger, came_to: Callable[..., Report]
) -> None:
    for bet_id, settled_first in (("b1", True), ("b2", False)):
        lease = await ledger.lease(await ledger.place(bet_id))
        rolling = (ledger.producer, rollback(ledger.producer, bet_id))
        if settled_first:
            _, rollback_id = await overtake(ledger, (ledger.daemon, settle(ledger.daemon, came_to(lease))), rolling)
        else:
            rollback_id = await settle_behind(ledger, rolling, came_to(lease))
        if came_to is rejected:
            assert (await ledger.bet(bet_id))["state"] == "void"
            assert await ledger.rollbacks(bet_id) == []
        else:
            assert (await ledger.bet(bet_id))["state"] == "closing"
            assert [callback["request_id"] for callback in await ledger.rollbacks(bet_id)] == [rollback_id]
            assert await ledger.state(rollback_id) == "ready"


async def test_rollback_bet_asked_for_twice_at_once_is_one_rollback(ledger: Ledger, crowd: list[Connection]) -> None:
    one, other = crowd[:2]
    await ledger.attempt(await ledger.place("unknown"), retried, due_in_s=60.0)
    await ledger.attempt(await ledger.place("open"), delivered)
    await ledger.lease(await ledger.place("in flight"))
    await ledger.place("never tried")
    for bet_id in ("never tried", "in flight", "unknown", "open"):
        first, second = await overtake(ledger, (one, rollback(one, bet_id)), (other, rollback(other, bet_id)))
        assert first == second
        assert [callback["request_id"] for callback in await ledger.rollbacks(bet_id)] == ([first] if first else [])


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_producer_with_an_old_snapshot_is_told_to_run_again_and_then_sees(
    ledger: Ledger, crowd: list[Connection], isolation: Literal["repeatable_read", "serializable"]
) -> None:
    """It cannot see what was settled since, so it must not decide on what it sees."""
    lease, request_id = await ledger.lease(await ledger.place("b1")), uuid.uuid4()
    win = terminal_params("BET_WIN", await ledger.bet("b1"))
    producer = crowd[0]

    async def in_a_savepoint(action: Awaitable[Any]) -> Any:
        async with producer.transaction():
            return await action

    async with producer.transaction(isolation=isolation):
        await producer.fetch("select * from predictu_dispatch.outcome($1, $2)", OPERATOR, request_id)
        await ledger.settle(delivered(lease))
        await enqueue(ledger.producer, "BALANCE", BALANCE, request_id=request_id)
        for action in (
            enqueue(producer, "BET_WIN", win),
            rollback(producer, "b1"),
            enqueue(producer, "BALANCE", BALANCE, request_id=request_id),
        ):
            assert await outcome(in_a_savepoint(action)) == "40001"
    async with producer.transaction(isolation=isolation):
        assert await enqueue(producer, "BALANCE", BALANCE, request_id=request_id) == request_id
        assert await ledger.state(await rollback(ledger.producer, "b1")) == "ready"
