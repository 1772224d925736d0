"""The view `ledger`: which callbacks moved money, and how a period of it is read."""

import json
import uuid

from tests.support.harness import OPERATOR, Harness, connected, delivered, enqueue, exhausted, rejected, terminal_params
from tests.support.postgres import Database


async def test_the_ledger_has_each_confirmed_movement_once(harness: Harness, database: Database) -> None:
    expected: dict[uuid.UUID, tuple[str, int, str, str | None]] = {}
    won = await harness.place("won")
    await harness.attempt(won, delivered, operator_transaction_id="tx-1")
    expected[won] = ("debit", 500, "BET_MAKE", "tx-1")
    win = await enqueue(
        harness.producer, "BET_WIN", terminal_params("BET_WIN", await harness.bet("won")) | {"amount": 10**18 - 1}
    )
    await harness.attempt(win, delivered)
    expected[win] = ("credit", 10**18 - 1, "BET_WIN", None)
    for bet_id, method, amount in (("lost", "BET_LOSE", None), ("sold-for-nothing", "BET_SELL", 0)):
        placement = await harness.place(bet_id)
        await harness.attempt(placement, delivered)
        expected[placement] = ("debit", 500, "BET_MAKE", None)
        params = terminal_params(method, await harness.bet(bet_id)) | ({"amount": 0} if amount == 0 else {})
        await harness.attempt(await enqueue(harness.producer, method, params), delivered)
    # A rollback moves money if its debit was confirmed, here or before this system existed.
    placement = await harness.place("reversed")
    await harness.attempt(placement, delivered)
    expected[placement] = ("debit", 500, "BET_MAKE", None)
    adopted = uuid.uuid4()
    await harness.producer.execute(
        "select predictu_dispatch.adopt_bet($1, 'adopted', 'p1', 'EUR', 300, $2)", OPERATOR, adopted
    )
    for bet_id, amount in (("reversed", 500), ("adopted", 300)):
        rollback = await harness.rollback(bet_id)
        assert rollback is not None
        await harness.attempt(rollback, delivered)
        expected[rollback] = ("credit", amount, "BET_ROLLBACK", None)
    # None of these does.
    await harness.attempt(await harness.place("rejected"), rejected)
    for bet_id, fields in (("unknown", {}), ("nothing", {"state_reason": "nothing_to_reverse"})):
        await harness.attempt(await harness.place(bet_id), exhausted)
        [rollback_of_unknown] = await harness.rollbacks(bet_id)
        await harness.attempt(rollback_of_unknown["request_id"], delivered, **fields)

    for dsn in (database.support, database.operations, database.auditor, database.reconciler):
        async with connected(dsn, 1) as [reader]:
            rows = await reader.fetch("select * from predictu_dispatch.ledger where operator_id = $1", OPERATOR)
        assert {
            row["request_id"]: (row["direction"], row["amount"], row["method"], row["operator_transaction_id"])
            for row in rows
        } == expected
        assert {(row["player_id"], row["currency"]) for row in rows} == {("p1", "EUR")}


async def test_a_period_streams_from_the_index_in_its_order(harness: Harness) -> None:
    async with harness.owner.transaction():
        # An empty table would be read whole.
        await harness.owner.execute("set local enable_seqscan = off; set local enable_bitmapscan = off")
        [[plan]] = await harness.owner.fetch(
            "explain (format json) select * from predictu_dispatch.ledger where operator_id = 'op_abc123'"
            " and confirmed_at >= '2026-11-01' and confirmed_at < '2026-12-01' order by confirmed_at, request_id"
        )
    assert '"Index Name": "callback_finished"' in plan
    assert "Sort" not in {node["Node Type"] for node in nodes(json.loads(plan)[0]["Plan"])}


def nodes(plan: dict) -> list[dict]:  # type: ignore[type-arg]
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]
