"""adopt_bet(), outcome() and the outcome notification, as producers use them."""

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest

from tests.support.harness import (
    DISABLED,
    OPERATOR,
    WAIT_S,
    Connection,
    Harness,
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


async def test_adopting_a_bet_is_idempotent_and_the_bet_can_be_settled(harness: Harness) -> None:
    adopted = (OPERATOR, "open", "p1", "EUR", 500, PLACEMENT)
    await adopt(harness.producer, *adopted)
    await adopt(harness.producer, *adopted)
    win = await harness.end("BET_WIN", "open")
    await adopt(harness.producer, *adopted)
    await harness.attempt(win, delivered)
    assert (await harness.bet("open"))["state"] == "closed"


async def test_an_adoption_with_missing_or_different_values_is_refused(harness: Harness) -> None:
    adopted = (OPERATOR, "open", "p1", "EUR", 500, PLACEMENT)
    await adopt(harness.producer, *adopted)
    before = await harness.everything()
    changes: list[tuple[str, int, Any]] = [
        *(("PD002", 0, operator_id) for operator_id in ("op_x", DISABLED, None)),
        *(("PD003", place, None) for place in (1, 2, 3, 4, 5)),
        *(("PD003", 4, amount) for amount in (0, -1, 10**18)),
        ("PD003", 3, "EURO"),
        *(("PD005", place, other) for place, other in ((2, "p2"), (3, "USD"), (4, 501), (5, uuid.UUID(int=9)))),
    ]
    for sqlstate, place, value in changes:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await adopt(harness.producer, *adopted[:place], value, *adopted[place + 1 :])
        assert (refused.value.sqlstate, bool(refused.value.hint)) == (sqlstate, True), str(refused.value)
    assert await harness.everything() == before


async def outcome(harness: Harness, request_id: uuid.UUID) -> list[tuple[Any, ...]]:
    rows = await harness.producer.fetch("select * from predictu_dispatch.outcome($1, $2)", OPERATOR, request_id)
    return [tuple(row) for row in rows]


async def test_outcome_returns_the_current_state(harness: Harness) -> None:
    assert await outcome(harness, uuid.uuid4()) == []
    placement = await harness.place()
    assert await outcome(harness, placement) == [("ready", None, "none", None, None, None)]
    await harness.attempt(placement, retried, state_reason="http_503", operator_status="BUSY")
    assert await outcome(harness, placement) == [("ready", "http_503", "unknown", "BUSY", None, None)]
    await harness.attempt(placement, delivered, operator_status="OK", operator_transaction_id="tx-1", balance=95_000)
    assert await outcome(harness, placement) == [("delivered", None, "applied", "OK", "tx-1", 95_000)]


async def test_a_final_interactive_callback_is_notified(harness: Harness) -> None:
    notifications: asyncio.Queue[str] = asyncio.Queue()
    await harness.producer.add_listener(
        "predictu_dispatch_outcome", lambda *args: notifications.put_nowait(str(args[-1]))
    )

    async def final(request_id: uuid.UUID | None) -> None:
        async with asyncio.timeout(WAIT_S):
            assert await notifications.get() == f"{OPERATOR} {request_id}"
        assert notifications.empty(), "one notification each, none for unfinished callbacks"

    placement = await harness.place("b1")
    await harness.attempt(placement, retried)
    await harness.attempt(placement, delivered)
    await final(placement)
    win = await harness.end("BET_WIN", "b1")  # Settlements are not notified.
    await harness.attempt(win, delivered)
    for number, came_to in enumerate((rejected, exhausted)):
        balance = await enqueue(harness.producer, "BALANCE", BALANCE | {"number": number})
        await harness.attempt(balance, came_to)
        await final(balance)
    balance = await enqueue(harness.producer, "BALANCE", BALANCE)
    await harness.let_deadline_pass(balance)
    await harness.expire()
    await final(balance)
    placement = await harness.place("b2")
    await harness.rollback("b2")
    await final(placement)
    await harness.attempt(await harness.place("b3"), retried)
    placement = (await harness.bet("b3"))["placement_request_id"]
    rollback_id = await harness.rollback("b3")
    await final(placement)
    assert rollback_id is not None
    await harness.attempt(rollback_id, delivered)
    await final(rollback_id)
