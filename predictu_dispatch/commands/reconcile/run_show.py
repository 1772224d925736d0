"""The report of a finished run again, with who ran it and the digests of what was read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from predictu_dispatch.commands.output import Row, print_json, print_line, timestamp
from predictu_dispatch.commands.reconcile.difference_lines import unfinished_text
from predictu_dispatch.commands.reconcile.lines import as_json, print_report
from predictu_dispatch.commands.show_history import print_field
from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.reconciliation.result import Changes, RunResult, SourceRead, UnreadableLine
from predictu_dispatch.reconciliation.run import sum_of, total_of

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_OF_THE_RESULT: Final = ("given_until", "is_complete", "accepted", "accepted_contradictions", "first_sent_at")
_RUN_COLUMNS: Final = ("started_at", "finished_at", "done_by", "database_role")


class Run(NamedTuple):
    """A run, and what it found if it has finished."""

    row: Row
    result: RunResult | None


async def read_run(db: Database, operator: str, run_id: UUID) -> Run:
    """The run as it is stored. What only the operator's file says is not known any more."""
    [row] = await db.fetch(query("reconciliation_run"), operator, run_id)
    if row["finished_at"] is None:
        return Run(row, None)
    totals = await db.fetch(query("reconciliation_totals"), operator, run_id)
    unreadable = await db.fetch(query("reconciliation_unreadable"), operator, run_id)
    digits = await db.fetch(query("currencies"))
    same = ("operator_id", "run_id", "first_day", "last_day", "time_zone", "day_starts", "cut_at", "given_from")
    result = RunResult(
        **{name: row[name] for name in (*same, *_OF_THE_RESULT)},
        starts_at=row["day_edges"][0],
        ends_at=row["day_edges"][-1],
        sources=tuple(SourceRead(*(one[name] for name in SourceRead._fields)) for one in json.loads(row["sources"])),
        unreadable=tuple(UnreadableLine(*one) for one in unreadable),
        rows_ours=row["rows_ours"],
        totals=tuple(total_of(one) for one in totals),
        sums=tuple(sum_of(one) for one in json.loads(row["sums"])),
        changes=None if row["is_first"] else Changes(row["opened"], row["closed"]),
        digits={one["currency"]: one["minor_digits"] for one in digits},
    )
    return Run(row, result)


def print_run_again(run: Run, *, is_json: bool) -> None:
    """Print the report, and before it what belongs to the run itself."""
    row, result = run
    if is_json:
        print_json(_json(run))
        return
    print_field("run", f"{row['run_id']} of operator {row['operator_id']}")
    print_field("by", f"{row['done_by']} (database role {row['database_role']})")
    print_field("started", timestamp(row["started_at"]))
    if result is None:
        print_field("state", unfinished_text(row), colour="yellow")
        return
    print_field("finished", timestamp(row["finished_at"]))
    for source in result.sources:
        print_field("sha256", f"{source.sha256} {source.name}")
    print_line()
    print_report(result, shows_unreadable=True)


def _json(run: Run) -> dict[str, Any]:
    found = {name: run.row[name] for name in _RUN_COLUMNS}
    if run.result is None:
        return {"run": {**found, **{name: run.row[name] for name in ("run_id", "operator_id", "is_under_way")}}}
    return {"run": {**as_json(run.result), **found}}
