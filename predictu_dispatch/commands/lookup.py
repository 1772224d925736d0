"""Finding the one callback that a bare REQUEST_ID means."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED

Row = Mapping[str, Any]


def the_one(rows: Sequence[Row], request_id: UUID | None, operator: str | None) -> Row:
    """The only row. Ends the command where there is none, or where several operators have this id."""
    if len(rows) == 1:
        return rows[0]
    if rows:
        operators = " | ".join(row["operator_id"] for row in rows)
        click.echo(f"several operators have {request_id}; add --operator {operators}", err=True)
    else:
        click.echo(f"no callback {request_id}" + (f" of operator {operator}" if operator else ""), err=True)
    sys.exit(EXIT_FAILED)
