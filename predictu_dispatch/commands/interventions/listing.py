"""`interventions`: what people did, the newest first."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, Final

import click

from predictu_dispatch.commands.invocation import (
    Invocation,
    common_options,
    database,
    fail,
    is_unknown,
    unknown_operator,
)
from predictu_dispatch.commands.output import Row, print_error, print_json, print_line, print_wrapped, timestamp
from predictu_dispatch.commands.request_ids import REQUEST_ID
from predictu_dispatch.commands.texts import INTERVENTIONS, changes_text, difference_text
from predictu_dispatch.core.request_id import Beginning
from predictu_dispatch.core.search_input import parse_time
from predictu_dispatch.edge.postgres.sql_files import query

_ROWS_DEFAULT: Final = 50
_ROWS_MAX: Final = 1000


def _time(_context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_time(text, datetime.now(UTC), is_end=parameter.name == "until")
    except ValueError as error:
        raise click.BadParameter(f"'{text}': {error}") from None


@click.command()
@click.option("--operator", help="Only those that concern this operator.")
@click.option("--action", type=click.Choice(list(INTERVENTIONS)), help="Only these actions.")
@click.option("--by", help="Only those of this person: the recorded name, with or without @host, or the database role.")
@click.option(
    "--since", metavar="TIME", callback=_time, help="At or after: a time, a date, or an age such as 2h or 3d."
)
@click.option("--until", metavar="TIME", callback=_time, help="Before; a date includes that day.")
@click.option("--request", "request_id", type=REQUEST_ID, help="Only those on this callback; a beginning is enough.")
@click.option("--bet", "bet_id", help="Only those on the callbacks of this bet.")
@click.option(
    "--limit",
    type=click.IntRange(1, _ROWS_MAX),
    default=_ROWS_DEFAULT,
    show_default=True,
    help="How many to list.",
)
@common_options
def interventions(
    invocation: Invocation,
    *,
    operator: str | None,
    action: str | None,
    by: str | None,
    since: datetime | None,
    until: datetime | None,
    request_id: Beginning | None,
    bet_id: str | None,
    limit: int,
) -> None:
    """List what people did, the newest first: who, when, why, and what it changed."""
    first, last = (None, None) if request_id is None else request_id
    found = asyncio.run(_read(invocation, operator, action, by, since, until, first, last, bet_id, limit + 1))
    # Those of the same time as the last one come on the same page.
    shown = found if len(found) <= limit else [row for row in found if row["done_at"] >= found[limit - 1]["done_at"]]
    older_before = timestamp(shown[-1]["done_at"], timespec="microseconds") if len(found) > limit else None
    if invocation.json:
        print_json({"interventions": [_unpacked(row) for row in shown], "older_before": older_before})
        return
    for row in shown:
        _print(row)
    if not shown:
        print_line("no interventions" + (" of this kind" if _is_filtered(click.get_current_context()) else ""))
    if older_before is not None:
        print_error(f"the newest {len(shown)} are shown; for older ones: --until {older_before}, or a larger --limit")


async def _read(invocation: Invocation, operator: str | None, *filters: object) -> list[Row]:
    async with database(invocation) as db:
        found = await db.fetch(query("interventions"), operator, *filters)
        if not found and operator is not None and await is_unknown(db, operator):
            fail(unknown_operator(operator))
        return [dict(row) for row in found]


def _is_filtered(context: click.Context) -> bool:
    """True if an option selects some of the interventions."""
    return any(
        context.params[name] is not None
        for name in ("operator", "action", "by", "since", "until", "request_id", "bet_id")
    )


def _unpacked(row: Row) -> dict[str, Any]:
    return {**row, **{name: json.loads(row[name]) for name in ("before", "after") if row[name]}}


def _print(row: Row) -> None:
    bet = f", bet {row['bet_id']}" if row["bet_id"] is not None else ""
    if difference := difference_text(row["before"]):
        of_what = f"{difference} of operator {row['operator_id']}{bet}"
    elif row["request_id"] is None:
        of_what = f"operator {row['operator_id']}"
    else:
        of_what = f"{row['method'] or 'callback'} {row['request_id']} of operator {row['operator_id']}{bet}"
    title = f"{timestamp(row['done_at'])} {INTERVENTIONS[row['action']]} {of_what}"
    print_wrapped(title, hanging="  ", colour="cyan")
    client = f" from {row['client_addr']}" if row["client_addr"] else ""
    print_wrapped(f"by {row['done_by']} (database role {row['database_role']}{client})", indent="  ", hanging="    ")
    if row["reason"]:
        print_wrapped(f"reason: {row['reason']}", indent="  ", hanging="    ")
    if changed := changes_text(row["before"], row["after"]):
        print_wrapped(changed, indent="  ", hanging="    ")
