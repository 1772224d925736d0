"""Finished runs with their items, and what people do with the differences."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg

from tests.support.harness import OPERATOR, Connection

DAY = date(2026, 11, 21)
ALICE, BOB = "alice@desk-1", "bob@desk-2"


def item(key: str, class_: str = "missing_there", **fields: Any) -> dict[str, Any]:
    """An item of 12.50 EUR on DAY; its id follows from key, class and amounts."""
    day, currency, ours = fields.get("day", DAY), fields.get("currency", "EUR"), fields.pop("ours", 1250)
    amounts = fields.pop("amounts", [{"currency": currency, "day": str(day), "ours": ours, "theirs": 0}])
    return {
        "key": key,
        "class": class_,
        "item_id": uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([key, class_, amounts])),
        "method": "BET_WIN",
        "currency": currency,
        "day": day,
        "disputed": abs(ours),
        "amounts": json.dumps(amounts),
        "lines": json.dumps(fields.pop("lines", [])),
        **fields,
    }


async def finished_run(
    owner: Connection,
    *items: dict[str, Any],
    first: date = DAY,
    last: date | None = None,
    operator_id: str = OPERATOR,
    **fields: Any,
) -> uuid.UUID:
    """Inserts a run that found the items, as finish_reconciliation() does."""
    last = last or first
    edges = [datetime.combine(first + timedelta(days=n), time(0), UTC) for n in range((last - first).days + 2)]
    run_id: uuid.UUID = await _insert(
        owner,
        "reconciliation_run",
        {
            "operator_id": operator_id,
            "run_id": uuid.uuid4(),
            "first_day": first,
            "last_day": last,
            "time_zone": "UTC",
            "day_starts": time(0),
            "day_edges": edges,
            "settle_s": 900.0,
            "no_end_days": 90,
            "cut_at": edges[-1],
            "done_by": ALICE,
            "is_complete": True,
            **fields,
        },
        "run_id",
    )
    for one in items:
        await _insert(owner, "reconciliation_item", {"operator_id": operator_id, "run_id": run_id, **one}, "run_id")
    await owner.execute(
        "update predictu_dispatch.reconciliation_run set finished_at = clock_timestamp() where run_id = $1", run_id
    )
    await owner.execute("select predictu_dispatch.open_differences($1, $2)", operator_id, run_id)
    return run_id


async def _insert(owner: Connection, table: str, row: dict[str, Any], returning: str) -> Any:
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    return await owner.fetchval(
        f"insert into predictu_dispatch.{table} ({', '.join(row)}) values ({places}) returning {returning}",  # noqa: S608
        *row.values(),
    )


async def open_items(owner: Connection) -> set[uuid.UUID]:
    """The ids in the view."""
    return {row["item_id"] for row in await owner.fetch("select item_id from predictu_dispatch.reconciliation_open")}


async def explain(
    connection: Connection, item_id: object, reason: str | None = "their import failed", by: str | None = ALICE
) -> asyncpg.Record | None:
    return await _call(connection, "explain_difference", item_id, reason, by)


async def accept(
    connection: Connection, item_id: object, reason: str | None = "paid by bank transfer", by: str | None = BOB
) -> asyncpg.Record | None:
    return await _call(connection, "accept_difference", item_id, reason, by)


async def _call(connection: Connection, function: str, *values: object) -> asyncpg.Record | None:
    return await connection.fetchrow(
        f"select * from predictu_dispatch.{function}($1, $2, $3, $4)",  # noqa: S608
        *(OPERATOR, *values),
    )


def ids(*items: dict[str, Any]) -> set[uuid.UUID]:
    return {one["item_id"] for one in items}


def days(first: date, count: int) -> Sequence[date]:
    return [first + timedelta(days=n) for n in range(count)]
