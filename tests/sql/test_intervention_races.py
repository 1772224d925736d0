"""A person, a daemon and a producer at once: whatever comes first, no callback is both sent and taken back."""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Coroutine
from typing import Any

import asyncpg
import pytest

from tests.support.harness import (
    Connection,
    Harness,
    claim,
    connected,
    delivered,
    enqueue,
    exhausted,
    rollback,
    terminal_params,
    until_blocked,
)
from tests.support.interventions import (
    cancel,
    pause,
    refusal,
    resolve,
    retry,
    terminal_in_review,
)
from tests.support.postgres import Database

BALANCE = {"player_id": "p1", "currency": "EUR"}


async def came_to(action: Awaitable[Any]) -> Any:
    """What the action returned, or the SQLSTATE it was refused with."""
    try:
        return await action
    except asyncpg.PostgresError as error:
        return error.sqlstate


async def overtake(
    harness: Harness, first: tuple[Connection, Awaitable[Any]], second: tuple[Connection, Coroutine[Any, Any, Any]]
) -> tuple[Any, Any]:
    """The first is done, not committed, when the second starts; it commits once the second waits for it."""
    async with asyncio.TaskGroup() as group, first[0].transaction():
        one = await came_to(first[1])
        task = group.create_task(came_to(second[1]))
        await until_blocked(harness.owner, second[0])
    return one, task.result()


@pytest.fixture
async def person(database: Database) -> Any:
    """A connection of a command, beside the daemon's."""
    async with connected(database.dispatcher, 1) as [connection]:
        yield connection


async def never_attempted(harness: Harness, method: str) -> uuid.UUID:
    """A callback that is due and was never attempted."""
    if method == "BALANCE":
        return await enqueue(harness.producer, "BALANCE", BALANCE)
    placement = await harness.place()
    if method == "BET_MAKE":
        return placement
    await harness.attempt(placement, delivered)
    return await harness.end(method)


@pytest.mark.parametrize("method", ["BALANCE", "BET_MAKE", "BET_WIN"])
async def test_a_claim_and_a_person_never_both_have_a_callback(
    harness: Harness, person: Connection, method: str
) -> None:
    named = await never_attempted(harness, method)
    async with person.transaction():
        await cancel(person, named)
        assert await claim(harness.daemon) == [], "the claim waits for nobody, and passes by"
    assert await claim(harness.daemon) == []
    assert (await harness.callback(named))["attempts"] == 0

    if method == "BET_MAKE":
        named = await harness.place("b2")
    else:
        named = await (harness.end("BET_SELL") if method == "BET_WIN" else never_attempted(harness, method))
    leases, cancelled = await overtake(
        harness, (harness.daemon, claim(harness.daemon)), (person, cancel(person, named))
    )
    assert ([lease["request_id"] for lease in leases], cancelled) == ([named], "PD005")
    assert await harness.state(named) == "in_flight"


async def test_many_claims_and_people_at_once_leave_each_callback_to_one_of_them(
    harness: Harness, database: Database
) -> None:
    """Nobody is held up on purpose here: whatever the interleaving, what was claimed was not taken back."""
    named = [await harness.place(f"b{number}") for number in range(60)]
    async with connected(database.dispatcher, 6) as connections:
        claimers, people = connections[:3], connections[3:]

        async def take_back(connection: Connection, ids: list[uuid.UUID]) -> list[uuid.UUID]:
            return [one for one in ids if not isinstance(await came_to(cancel(connection, one)), str)]

        async def claim_all(connection: Connection) -> list[uuid.UUID]:
            return [lease["request_id"] for _ in range(20) for lease in await claim(connection, slots=1)]

        claimed, taken_back = (
            list(itertools.chain.from_iterable(lists))
            for lists in await asyncio.gather(
                asyncio.gather(*(claim_all(connection) for connection in claimers)),
                asyncio.gather(
                    *(take_back(connection, named[index::3][::-1]) for index, connection in enumerate(people))
                ),
            )
        )
    assert sorted([*claimed, *taken_back]) == sorted({*claimed, *taken_back}), "none is in both"
    states = {row["request_id"]: (row["state"], row["attempts"]) for row in await callbacks_of(harness)}
    assert {one for one, state in states.items() if state == ("in_flight", 1)} == set(claimed)
    assert {one for one, state in states.items() if state == ("cancelled", 0)} == set(taken_back)
    assert set(states) == {*claimed, *taken_back} == set(named)


async def callbacks_of(harness: Harness) -> list[asyncpg.Record]:
    return await harness.owner.fetch("select * from predictu_dispatch.callback")


async def test_a_producer_that_meets_a_cancel_sees_what_it_made_of_the_bet(
    harness: Harness, person: Connection
) -> None:
    """One terminal is left, and it ends the bet; before the cancel there was no room for it."""
    win = await never_attempted(harness, "BET_WIN")
    params = terminal_params("BET_SELL", await harness.bet())
    _, sell = await overtake(
        harness, (person, cancel(person, win)), (harness.producer, enqueue(harness.producer, "BET_SELL", params))
    )
    assert (await harness.state(win), await harness.state(sell)) == ("cancelled", "ready")
    assert (await harness.bet())["terminal_request_id"] == sell

    assert await came_to(enqueue(harness.producer, "BET_LOSE", params)) == "PD005"
    await cancel(person, sell)
    assert (await harness.bet())["state"] == "open"


@pytest.mark.parametrize("method", ["BET_MAKE", "BET_WIN"])
async def test_rollback_bet_and_a_cancel_agree_whichever_is_first(
    harness: Harness, person: Connection, method: str
) -> None:
    named = await never_attempted(harness, method)
    rolling = rollback(harness.producer, "b1")
    _, rollback_id = await overtake(harness, (person, cancel(person, named)), (harness.producer, rolling))
    if method == "BET_MAKE":
        assert (rollback_id, (await harness.bet())["state"]) == (None, "void")
        named = await harness.place("b2")
        rolled_back, cancelled = await overtake(
            harness, (harness.producer, rollback(harness.producer, "b2")), (person, cancel(person, named))
        )
        assert (rolled_back, cancelled, (await harness.bet("b2"))["state"]) == (None, "PD005", "void")
    else:
        assert (await harness.state(rollback_id), (await harness.bet())["state"]) == ("ready", "closing")
        assert await came_to(cancel(person, rollback_id)) == "PD005"


async def test_of_two_people_the_second_is_told_what_the_first_did(harness: Harness, person: Connection) -> None:
    """Above all: what one of them has settled by other means, the other cannot send again."""
    win = await terminal_in_review(harness)
    _, again = await overtake(harness, (person, retry(person, win)), (harness.daemon, retry(harness.daemon, win)))
    assert again == "PD005"
    await harness.attempt(win, exhausted)
    _, again = await overtake(harness, (person, resolve(person, win)), (harness.daemon, retry(harness.daemon, win)))
    assert again == "PD005"
    assert await claim(harness.daemon) == []


async def test_a_person_waits_for_a_lock_no_longer_than_a_while_and_hears_of_it(
    harness: Harness, person: Connection
) -> None:
    win = await terminal_in_review(harness)
    for function in ("retry_callback", "pause_operator"):
        signature = await harness.owner.fetchval(
            f"select 'predictu_dispatch.{function}'::regproc::oid::regprocedure::text"
        )
        assert "lock_timeout=3s" in await harness.owner.fetchval(
            "select array_to_string(proconfig, ',') from pg_proc where oid = $1::regprocedure", signature
        )
        await harness.owner.execute(f"alter function {signature} set lock_timeout = '20ms'")
    before = await harness.everything()
    async with harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.bet for update")
        await harness.owner.execute("select from predictu_dispatch.operator for update")
        sqlstate, said = await refusal(retry(person, win))
        assert sqlstate == "PD006"
        assert f"callback {win}" in said
        assert (await refusal(pause(person)))[0] == "PD006"
    assert await harness.everything() == before
