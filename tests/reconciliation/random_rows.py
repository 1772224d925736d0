"""The rows and lines of one random example, and how they get into the database."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.reconciliation.naive_lines import Line
from tests.reconciliation.naive_matching import Books, Period

Values = dict[str, Any]
_COLUMNS = {
    "bet": (
        *("operator_id", "bet_id", "state", "player_id", "currency", "amount", "placement_request_id"),
        *("terminal_request_id", "created_at"),
    ),
    "callback": (
        *("operator_id", "request_id", "method", "bet_id", "lane", "state", "reason", "effect", "attempts"),
        *("budget_from", "params", "amount_format", "created_at", "finished_at", "operator_transaction_id"),
    ),
    "attempt_record": (
        *("operator_id", "request_id", "method", "attempt", "evidence", "verdict", "reason", "instance"),
        *("started_at", "finished_at", "request_body", "report_id"),
    ),
}


@dataclass(kw_only=True)
class RandomBooks:
    """Rows and lines of one example."""

    operator_id: str
    period: Period
    bets: list[Values] = field(default_factory=list)
    callbacks: list[Values] = field(default_factory=list)
    attempts: list[Values] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def books(self) -> Books:
        return Books(callbacks=self.callbacks, bets=self.bets, attempts=self.attempts)

    async def insert(self, owner: asyncpg.Connection[asyncpg.Record]) -> None:
        """Insert the rows; the tables' triggers are off."""
        for table, rows in (("bet", self.bets), ("callback", self.callbacks), ("attempt_record", self.attempts)):
            written = [row | {"params": json.dumps(row["params"])} if "params" in row else row for row in rows]
            await owner.copy_records_to_table(
                table,
                schema_name="predictu_dispatch",
                columns=_COLUMNS[table],
                records=[tuple(row[name] for name in _COLUMNS[table]) for row in written],
            )
