"""Finding the one callback that a bare REQUEST_ID means."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from predictu_dispatch.commands import output
from predictu_dispatch.commands.invocation import EXIT_FAILED

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

Row = Mapping[str, Any]


async def the_one(db: Database, rows: Sequence[Row], request_id: UUID, operator: str | None) -> Row:
    """The only row. Ends the command where there is none, or where several operators have this id."""
    if len(rows) == 1:
        return rows[0]
    click.echo(await not_one([row["operator_id"] for row in rows], db, request_id, operator), err=True)
    sys.exit(EXIT_FAILED)


async def not_one(owners: Sequence[str], db: Database, request_id: UUID, operator: str | None) -> str:
    """Why this id means no callback: several operators have it, or retention removed it, or nobody ever had it."""
    from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

    if owners:
        return f"several operators have {request_id}; add --operator {' | '.join(owners)}"
    for one in await db.fetch(query("show_removed"), request_id, operator):
        what = f"{one['method']} {request_id} of operator {one['operator_id']} ended {one['state']}"
        return f"{what}; retention removed it at {output.timestamp(one['removed_at'])}"
    if operator is None:
        return f"no callback {request_id}"
    if await is_unknown(db, operator):
        return f"no callback {request_id}: {unknown(operator)}"
    return f"no callback {request_id} of operator {operator}"


async def is_unknown(db: Database, operator: str) -> bool:
    """True where no daemon ever had this operator's file."""
    from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

    return operator not in {row["operator_id"] for row in await db.fetch(query("operators"))}


def unknown(operator: str) -> str:
    """What is said of such an operator."""
    return f"unknown operator {operator}; predictu-dispatch status lists them"
