"""Runs a reconciliation through the database's functions, with lines of an operator's ledger."""

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg

from tests.support.harness import OPERATOR, Connection

LINE_COLUMNS = (
    *("source", "line", "booked_at", "day", "transaction_id", "request_id", "method", "bet_id", "player_id"),
    *("currency", "amount", "is_debit"),
)


def line(amount: int, request_id: uuid.UUID | None = None, **fields: Any) -> dict[str, Any]:
    """Returns a booking as a line of the ledger; without `booked_at` it was booked just now."""
    return {
        "request_id": request_id,
        "amount": amount,
        "is_debit": amount < 0,
        "currency": "EUR",
        "player_id": "p1",
        **fields,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a finished run stored."""

    run: asyncpg.Record
    totals: list[asyncpg.Record]
    items: list[asyncpg.Record]
    repeated: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def classes(self) -> dict[str, str]:
        """The class of each item, by its key; without those that are agreed."""
        return {item["key"]: item["class"] for item in self.items}

    @property
    def counts(self) -> Counter[str]:
        """The number of items of each class."""
        counts: Counter[str] = Counter()
        for total in self.totals:
            counts[total["class"]] += total["items"]
        return counts

    def sums(self, column: str) -> Counter[tuple[str, date]]:
        """The sum of a column of the totals for each currency and day."""
        sums: Counter[tuple[str, date]] = Counter()
        for total in self.totals:
            sums[total["currency"], total["day"]] += total[column]
        return sums


def today() -> date:
    return datetime.now(UTC).date()


async def begin(
    reconciler: Connection,
    *,
    first: date | None = None,
    last: date | None = None,
    settle_s: float = 0.0,
    no_end_days: int = 90,
    operator_id: str = OPERATOR,
    day_starts: timedelta = timedelta(0),
) -> asyncpg.Record:
    """Begins a run; without days for yesterday to tomorrow, so that midnight changes nothing."""
    first, last = first or today() - timedelta(days=1), last or today() + timedelta(days=1)
    midnight = datetime.combine(first, time(0), UTC) + day_starts
    edges = [midnight + timedelta(days=n) for n in range((last - first).days + 2)]
    run = await reconciler.fetchrow(
        "select * from predictu_dispatch.begin_reconciliation($1, $2, $3, 'UTC', '00:00', $4, $5, $6, 'alice@desk-1')",
        *(operator_id, first, last, edges, settle_s, no_end_days),
    )
    assert run is not None
    return run


async def copy(reconciler: Connection, run: asyncpg.Record, lines: Sequence[dict[str, Any]]) -> None:
    """Copies the lines as the records 2, 3, … of one file, unless they name their place."""
    records = []
    for number, one in enumerate(lines, 2):
        booked_at = one.get("booked_at") or datetime.now(UTC)
        placed = {"source": 0, "line": number, "day": booked_at.astimezone(UTC).date(), **one, "booked_at": booked_at}
        records.append((run["operator_id"], run["run_id"], *(placed.get(column) for column in LINE_COLUMNS)))
    await reconciler.copy_records_to_table(
        "reconciliation_line",
        schema_name="predictu_dispatch",
        columns=("operator_id", "run_id", *LINE_COLUMNS),
        records=records,
    )


async def finish(
    reconciler: Connection,
    run: asyncpg.Record,
    lines_read: int,
    *,
    unreadable: Sequence[dict[str, Any]] = (),
    given: tuple[datetime, datetime] | None = None,
) -> Found:
    """Ends the run; without `given` the ledger has everything until tomorrow."""
    repeated = await reconciler.fetch(
        "select * from predictu_dispatch.repeated_lines($1, $2)", run["operator_id"], run["run_id"]
    )
    given = given or (run["day_edges"][0], run["day_edges"][-1])
    finished = await reconciler.fetchrow(
        "select * from predictu_dispatch.finish_reconciliation($1, $2, '[]', $3, 0, $4, $5, $6, $7)",
        *(run["operator_id"], run["run_id"], lines_read - len(repeated), len(unreadable) + len(repeated)),
        *(json.dumps(list(unreadable)), *given),
    )
    assert finished is not None
    totals, items = [
        await reconciler.fetch(
            f"select * from predictu_dispatch.{table} where operator_id = $1 and run_id = $2",  # noqa: S608
            *(run["operator_id"], run["run_id"]),
        )
        for table in ("reconciliation_total", "reconciliation_item")
    ]
    return Found(run=finished, totals=totals, items=items, repeated=[tuple(row) for row in repeated])


async def reconcile(
    reconciler: Connection,
    lines: Sequence[dict[str, Any]],
    *,
    given: tuple[datetime, datetime] | None = None,
    **settings: Any,
) -> Found:
    """Reconciles with these lines."""
    run = await begin(reconciler, **settings)
    await copy(reconciler, run, lines)
    return await finish(reconciler, run, len(lines), given=given)
