"""adopt_bet, outcome() and the notification that goes with it, as producers meet them."""

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest

from tests.support.ledger import (
    DISABLED,
    OPERATOR,
    WAIT_S,
    Connection,
    Ledger,
    delivered,
    enqueue,
    exhausted,
    rejected,
    retried,
)

BALANCE = {"player_id": "p1", "currency": "EUR"}
PLACEMENT = uuid.UUID(int=1)


async def adopt(connection: Connection, *args: Any) -> None:
    await connection.execute("select predictu_dispatch.adopt_bet($1, $2, $3, $4, $5, $6)", *args)


async def test_a_bet_is_adopted_once_and_then_settled_like_any_other(ledger: Ledger) -> None:
    adopted = (OPERATOR, "open", "p1", "EUR", 500, PLACEMENT)
    await adopt(ledger.producer, *adopted)
    await adopt(ledger.producer, *adopted)
    win = await ledger.end("BET_WIN", "open")
    await adopt(ledger.producer, *adopted)
    await ledger.attempt(win, delivered)
    assert (await ledger.bet("open"))["state"] == "closed"


async def test_an_adoption_that_says_too_little_or_something_else_is_refused(ledger: Ledger) -> None:
    adopted = (OPERATOR, "open", "p1", "EUR", 500, PLACEMENT)
    await adopt(ledger.producer, *adopted)
    before = await ledger.everything()
    changes: list[tuple[str, int, Any]] = [
        *(("PD002", 0, operator_id) for operator_id in ("op_x", DISABLED, None)),
        *(("PD003", place, None) for place in (1, 2, 3, 4, 5)),
        *(("PD003", 4, amount) for amount in (0, -1, 10**18)),
        ("PD003", 3, "EURO"),
        *(("PD005", place, other) for place, other in ((2, "p2"), (3, "USD"), (4, 501), (5, uuid.UUID(int=9)))),
    ]
    for sqlstate, place, value in changes:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await adopt(ledger.producer, *adopted[:place], value, *adopted[place + 1 :])
        assert (refused.value.sqlstate, bool(refused.value.hint)) == (sqlstate, True), str(refused.value)
    assert await ledger.everything() == before


async def outcome(ledger: Ledger, request_id: uuid.UUID) -> list[tuple[Any, ...]]:
    rows = await ledger.producer.fetch("select * from predictu_dispatch.outcome($1, $2)", OPERATOR, request_id)
    return [tuple(row) for row in rows]


async def test_outcome_says_what_is_known_so_far(ledger: Ledger) -> None:
    assert await outcome(ledger, uuid.uuid4()) == []
    placement = await ledger.place()
    assert await outcome(ledger, placement) == [("ready", None, "none", None, None, None)]
    await ledger.attempt(placement, retried, state_reason="http_503", operator_status="BUSY")
    assert await outcome(ledger, placement) == [("ready", "http_503", "unknown", "BUSY", None, None)]
    await ledger.attempt(placement, delivered, operator_status="OK", operator_transaction_id="tx-1", balance=95_000)
    assert await outcome(ledger, placement) == [("delivered", None, "applied", "OK", "tx-1", 95_000)]


async def test_whoever_waits_for_an_interactive_callback_is_told_when_it_is_final(ledger: Ledger) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    await ledger.producer.add_listener("predictu_dispatch_outcome", lambda *said: told.put_nowait(str(said[-1])))

    async def final(request_id: uuid.UUID | None) -> None:
        async with asyncio.timeout(WAIT_S):
            assert await told.get() == f"{OPERATOR} {request_id}"
        assert told.empty(), "once each, and nothing of what is not final"

    placement = await ledger.place("b1")
    await ledger.attempt(placement, retried)
    await ledger.attempt(placement, delivered)
    await final(placement)
    win = await ledger.end("BET_WIN", "b1")  # Nobody waits for a settlement.
    await ledger.attempt(win, delivered)
    for number, came_to in enumerate((rejected, exhausted)):
        balance = await enqueue(ledger.producer, "BALANCE", BALANCE | {"number": number})
        await ledger.attempt(balance, came_to)
        await final(balance)
    balance = await enqueue(ledger.producer, "BALANCE", BALANCE)
    await ledger.let_deadline_pass(balance)
    await ledger.expire()
    await final(balance)
    placement = await ledger.place("b2")
    await ledger.rollback("b2")
    await final(placement)
    await ledger.attempt(await ledger.place("b3"), retried)
    placement = (await ledger.bet("b3"))["placement_request_id"]
    rollback_id = await ledger.rollback("b3")
    await final(placement)
    assert rollback_id is not None
    await ledger.attempt(rollback_id, delivered)
    await final(rollback_id)
