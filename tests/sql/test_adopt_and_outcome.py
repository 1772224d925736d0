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
from tests.support.histories import HistoryBuilder, make_months
from tests.support.postgres import Database
from tests.support.retention import LONG_AGO, run_retention

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
    assert await outcome(harness, placement) == [("ready", None, "none", None, None, None, None)]
    await harness.attempt(placement, retried, state_reason="http_503", operator_status="BUSY")
    assert await outcome(harness, placement) == [("ready", "http_503", "unknown", "BUSY", None, None, None)]
    await harness.attempt(placement, delivered, operator_status="OK", operator_transaction_id="tx-1", balance=95_000)
    finished_at = (await harness.callback(placement))["finished_at"]
    assert finished_at is not None
    assert await outcome(harness, placement) == [("delivered", None, "applied", "OK", "tx-1", 95_000, finished_at)]


OUTCOME_COLUMNS = ("state", "reason", "effect", "operator_status", "operator_transaction_id", "balance", "finished_at")


async def outcome_of_bet(harness: Harness, bet_id: str = "b1") -> dict[str, Any]:
    """What is known of the bet, without nulls; checks it against outcome() of both callbacks."""
    rows = await harness.producer.fetch("select * from predictu_dispatch.outcome_of_bet($1, $2)", OPERATOR, bet_id)
    if not rows:
        return {}
    [row] = rows
    for part in ("placement", "terminal"):
        of_part = tuple(row[f"{part}_{column}"] for column in OUTCOME_COLUMNS)
        request_id = row[f"{part}_request_id"]
        assert await outcome(harness, request_id) == ([of_part] if any(of_part) else [])
    return {name: value for name, value in row.items() if value is not None}


async def test_outcome_of_bet_returns_what_outcome_returns_of_its_placement_and_its_terminal(harness: Harness) -> None:
    assert await outcome_of_bet(harness) == {}
    placement = await harness.place()
    known = {"bet_state": "placing", "placement_request_id": placement, "placement_state": "ready"}
    assert await outcome_of_bet(harness) == known | {"placement_effect": "none"}
    cancelled = await harness.end("BET_WIN")
    await harness.owner.execute(
        "select predictu_dispatch.cancel_callback($1, $2, 'a test', 'test')", OPERATOR, cancelled
    )
    found = await outcome_of_bet(harness)
    assert (found["bet_state"], found["terminal_request_id"], found["terminal_state"]) == (
        "placing",
        cancelled,
        "cancelled",
    )
    await harness.attempt(placement, delivered, operator_status="OK", operator_transaction_id="tx-1", balance=95_000)
    lost = await harness.end("BET_LOSE")
    found = await outcome_of_bet(harness)
    assert (found["bet_state"], found["placement_balance"]) == ("closing", 95_000)
    assert (found["terminal_request_id"], found["terminal_method"]) == (lost, "BET_LOSE")
    await harness.attempt(lost, delivered)
    assert (await outcome_of_bet(harness))["bet_state"] == "closed"


async def test_of_an_adopted_bets_placement_only_the_request_id_is_known(harness: Harness) -> None:
    await adopt(harness.producer, OPERATOR, "open", "p1", "EUR", 500, PLACEMENT)
    assert await outcome_of_bet(harness, "open") == {"bet_state": "open", "placement_request_id": PLACEMENT}


async def test_what_outcome_of_bet_knows_of_a_removed_bet(harness: Harness, database: Database) -> None:
    """Retention keeps what a producer needs to repeat a request, and not the operator's values."""
    await make_months(harness.owner)
    histories = HistoryBuilder(harness)
    before = {}
    for path in ("won", "rolled back", "never sent", "adopted and won"):
        bet_id = (await histories.make(path, LONG_AGO)).bet_id or ""
        before[bet_id] = await outcome_of_bet(harness, bet_id)
    await run_retention(database)
    assert await harness.everything() == []
    for bet_id, known in before.items():
        lost = ("_operator_status", "_operator_transaction_id", "_balance")
        assert await outcome_of_bet(harness, bet_id) == {
            name: value for name, value in known.items() if not name.endswith(lost)
        }


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
