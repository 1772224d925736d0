"""Concurrent people, daemons and producers: no callback is both sent and cancelled."""

import uuid
from typing import Any

import pytest

from tests.sql.test_races import outcome, overtake
from tests.support.harness import (
    Connection,
    Harness,
    claim,
    connected,
    delivered,
    enqueue,
    exhausted,
    reaped,
    retried,
    rollback,
    terminal_params,
)
from tests.support.interventions import (
    abandon,
    cancel,
    pause,
    recorded_interventions,
    refusal,
    resolve,
    retry,
    terminal_in_review,
)
from tests.support.postgres import Database

BALANCE = {"player_id": "p1", "currency": "EUR"}


@pytest.fixture
async def person(database: Database) -> Any:
    """The connection of a command."""
    async with connected(database.operations, 1) as [connection]:
        yield connection


async def never_attempted(harness: Harness, method: str) -> uuid.UUID:
    """A due callback that was never attempted."""
    if method == "BALANCE":
        return await enqueue(harness.producer, "BALANCE", BALANCE)
    placement = await harness.place()
    if method == "BET_MAKE":
        return placement
    await harness.attempt(placement, delivered)
    return await harness.end(method)


@pytest.mark.parametrize("method", ["BALANCE", "BET_MAKE", "BET_WIN"])
async def test_a_callback_is_never_both_claimed_and_cancelled(
    harness: Harness, person: Connection, method: str
) -> None:
    named = await never_attempted(harness, method)
    async with person.transaction():
        await cancel(person, named)
        assert await claim(harness.daemon) == [], "the claim does not wait, and skips the row"
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


async def test_a_producer_after_a_concurrent_cancel_sees_the_new_state_of_the_bet(
    harness: Harness, person: Connection
) -> None:
    """The bet accepts one new terminal after the cancel."""
    win = await never_attempted(harness, "BET_WIN")
    params = terminal_params("BET_SELL", await harness.bet())
    _, sell = await overtake(
        harness, (person, cancel(person, win)), (harness.producer, enqueue(harness.producer, "BET_SELL", params))
    )
    assert (await harness.state(win), await harness.state(sell)) == ("cancelled", "ready")
    assert (await harness.bet())["terminal_request_id"] == sell

    params = terminal_params("BET_LOSE", await harness.bet())
    assert await outcome(enqueue(harness.producer, "BET_LOSE", params)) == "PD005"
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
        assert await outcome(cancel(person, rollback_id)) == "PD005"


async def test_the_second_of_two_people_is_refused_with_the_first_ones_action(
    harness: Harness, person: Connection
) -> None:
    """A callback that one resolved manually cannot be retried by the other."""
    win = await terminal_in_review(harness)
    _, again = await overtake(harness, (person, retry(person, win)), (harness.person, retry(harness.person, win)))
    assert again == "PD005"
    await harness.attempt(win, exhausted)
    _, again = await overtake(harness, (person, resolve(person, win)), (harness.person, retry(harness.person, win)))
    assert again == "PD005"
    assert await claim(harness.daemon) == []


async def due_again(harness: Harness, method: str, **fields: Any) -> uuid.UUID:
    """A callback of unknown effect whose retry is due."""
    named = await never_attempted(harness, method)
    await harness.attempt(named, retried, **fields)
    return named


@pytest.mark.parametrize("method", ["BALANCE", "BET_MAKE", "BET_WIN"])
async def test_a_callback_is_never_both_claimed_and_abandoned(
    harness: Harness, person: Connection, method: str
) -> None:
    named = await due_again(harness, method)
    leases, refused = await overtake(harness, (harness.daemon, claim(harness.daemon)), (person, abandon(person, named)))
    assert ([lease["request_id"] for lease in leases], refused) == ([named], "PD005")
    assert await harness.state(named) == "in_flight"
    await harness.settle(retried(leases[0]))
    async with person.transaction():
        await abandon(person, named)
        assert await claim(harness.daemon) == [], "the claim does not wait, and skips the row"
    assert named not in {lease["request_id"] for lease in await claim(harness.daemon)}
    assert (await harness.callback(named))["attempts"] == 2


async def test_an_abandon_waits_for_a_settle_and_ends_what_it_left(harness: Harness, person: Connection) -> None:
    """While the attempt is in flight it is refused; a late answer then changes no state."""
    placement = await never_attempted(harness, "BET_MAKE")
    lease = await harness.lease(placement)
    assert (await refusal(abandon(person, placement)))[0] == "PD005"
    reaping = harness.settle(reaped(lease, due_in_s=3600.0))
    _, done = await overtake(harness, (harness.daemon, reaping), (person, abandon(person, placement)))
    assert (done["bet_state"], await harness.state(placement)) == ("closing", "exhausted")
    [late] = await harness.settle(delivered(lease))
    assert (late["cause"], await harness.state(placement)) == ("late", "exhausted")
    assert await harness.attempts(placement) == [(1, "retry"), (1, "late")]
    assert [row["state"] for row in await harness.rollbacks()] == ["ready"]


@pytest.mark.parametrize("method", ["BALANCE", "BET_MAKE", "BET_WIN"])
async def test_a_deadline_and_an_abandon_end_a_callback_once(harness: Harness, person: Connection, method: str) -> None:
    named = await due_again(harness, method, due_in_s=3600.0)
    await harness.let_deadline_pass(named)
    changes, refused = await overtake(harness, (harness.daemon, harness.expire()), (person, abandon(person, named)))
    assert (changes[0]["request_id"], refused) == (named, "PD005")
    assert (await harness.callback(named))["reason"] == "deadline"
    assert await recorded_interventions(harness) == []


async def test_deadlines_do_not_wait_for_an_abandon(harness: Harness, person: Connection) -> None:
    placement = await due_again(harness, "BET_MAKE", due_in_s=3600.0)
    await harness.let_deadline_pass(placement)
    async with person.transaction():
        await abandon(person, placement)
        assert await harness.expire() == []
    assert await harness.expire() == []
    assert (await harness.callback(placement))["reason"] == "abandoned"
    assert len(await harness.rollbacks()) == 1


@pytest.mark.parametrize("effect", ["none", "unknown"])
async def test_rollback_bet_and_an_abandon_agree_whichever_is_first(
    harness: Harness, person: Connection, effect: str
) -> None:
    """One rollback if the debit may be applied, none otherwise."""
    expected = "void" if effect == "none" else "closing"
    placement = await due_again(harness, "BET_MAKE", effect=effect, due_in_s=3600.0)
    done, rollback_id = await overtake(
        harness, (person, abandon(person, placement)), (harness.producer, rollback(harness.producer, "b1"))
    )
    assert (done["rollback_request_id"], (await harness.bet())["state"]) == (rollback_id, expected)
    assert [row["request_id"] for row in await harness.rollbacks()] == [one for one in (rollback_id,) if one]

    placement = await harness.place("b2")
    await harness.settle(
        *(retried(one, effect=effect, due_in_s=3600.0) for one in await claim(harness.daemon, lanes=["interactive"]))
    )
    rollback_id, refused = await overtake(
        harness, (harness.producer, rollback(harness.producer, "b2")), (person, abandon(person, placement))
    )
    assert (refused, (await harness.bet("b2"))["state"]) == ("PD005", expected)
    assert [row["request_id"] for row in await harness.rollbacks("b2")] == [one for one in (rollback_id,) if one]


async def test_a_retry_and_an_abandon_by_two_people_happen_one_after_the_other(
    harness: Harness, person: Connection
) -> None:
    win = await terminal_in_review(harness)
    _, done = await overtake(harness, (person, retry(person, win)), (harness.person, abandon(harness.person, win)))
    assert (done["is_repeated"], await harness.state(win)) == (False, "exhausted")
    _, again = await overtake(harness, (person, abandon(person, win)), (harness.person, retry(harness.person, win)))
    assert again["state"] == "ready"
    first, second = await overtake(
        harness, (person, abandon(person, win)), (harness.person, abandon(harness.person, win))
    )
    assert (first["is_repeated"], second["is_repeated"]) == (False, True)
    assert [deed[0] for deed in await recorded_interventions(harness)] == ["retry", "abandon", "retry", "abandon"]


async def test_a_command_gives_up_on_a_lock_after_its_timeout(harness: Harness, person: Connection) -> None:
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
        sqlstate, message = await refusal(retry(person, win))
        assert sqlstate == "PD006"
        assert f"callback {win}" in message
        assert (await refusal(pause(person)))[0] == "PD006"
    assert await harness.everything() == before
