"""`status`: operators, lanes, backlog and daemons at a glance, and what needs review."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from predictu_dispatch.commands import output
from predictu_dispatch.commands.connection import database
from predictu_dispatch.commands.invocation import Invocation, common_options, print_json
from predictu_dispatch.commands.status_table import operator_lines, wrapped

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

REVIEW_SHOWN: Final = 20
_LANES: Final = ("interactive", "settlement")

Row = Mapping[str, Any]


@click.command()
@common_options
def status(invocation: Invocation) -> None:
    """Show a row for each operator and lane, the daemons, and the callbacks that a person must look at.

    Numbers from 10,000 on are rounded here; --json has all of them in full.
    """
    lanes, daemons, review = asyncio.run(_read(invocation))
    if invocation.json:
        print_json({"lanes": _plain(lanes), "daemons": _plain(daemons), "needs_review": _plain(review)})
        return
    if lanes:
        for line in operator_lines(lanes, runs=any(daemon["is_live"] for daemon in daemons)):
            click.echo(line)
    else:
        click.echo("no operator is known yet: they enter the database when a daemon starts")
    click.echo()
    for line in daemon_lines(daemons):
        click.echo(line)
    if not review:
        click.echo("\nnothing needs review")
        return
    click.echo(f"\nneeds review{f' (the {REVIEW_SHOWN} oldest)' if len(review) == REVIEW_SHOWN else ''}:")
    for row in review:
        click.echo(f"  {row['request_id']}  {row['operator_id']}  {row['method']}")
        click.echo(f"      bet {row['bet_id']}, since {output.timestamp(row['since'])}")
        for line in wrapped(row["reason"], indent="      "):
            click.echo(line)
    click.echo("what can be done about one: predictu-dispatch why REQUEST_ID")


async def _read(invocation: Invocation) -> tuple[list[dict[str, Any]], list[Row], list[Row]]:
    async with database(invocation) as db:
        return await read_overview(db)


async def read_overview(db: Database) -> tuple[list[dict[str, Any]], list[Row], list[Row]]:
    """A row for each operator and lane, the daemons of a day, and the oldest callbacks that need review."""
    from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

    operators = await db.fetch(query("operators"))
    known = {operator["operator_id"] for operator in operators}
    # One that became known in between is shown the next time.
    backlog = [row for row in await db.fetch(query("backlog")) if row["operator_id"] in known]
    daemons = await db.fetch(query("status_daemons"))
    review = await db.fetch(query("needs_review"), REVIEW_SHOWN)
    lanes = {(operator["operator_id"], lane): _empty(operator, lane) for operator in operators for lane in _LANES}
    for row in backlog:
        lane = lanes[row["operator_id"], row["lane"]]
        lane[row["state"]] = row["callbacks"]
        lane["unknown_effect"] += row["unknown_effect"]
        # Negative where even the first of them is due later.
        if row["oldest_due_s"] is not None and row["oldest_due_s"] >= 0:
            lane["oldest_due_s"] = row["oldest_due_s"]
    return list(lanes.values()), [dict(row) for row in daemons], [dict(row) for row in review]


def _empty(operator: Row, lane: str) -> dict[str, Any]:
    """A lane without a backlog; what differs from lane to lane is this lane's, the rest its operator's."""
    of_lane = {"slots", "backoff_until", "backoff_for_s"}
    shared = {name: value for name, value in operator.items() if not name.startswith(_LANES)}
    return {
        "operator_id": operator["operator_id"],
        "lane": lane,
        "waiting": 0,
        "ready": 0,
        "in_flight": 0,
        **{name: operator[f"{lane}_{name}"] for name in sorted(of_lane, reverse=True)},
        "oldest_due_s": None,
        "unknown_effect": 0,
        **shared,
    }


def daemon_lines(daemons: Sequence[Row]) -> Iterator[str]:
    """A line for each running daemon, then for each that vanished in the last day."""
    live = [daemon for daemon in daemons if daemon["is_live"]]
    gone = [daemon for daemon in daemons if not daemon["is_live"]]
    if not live:
        yield click.style("no daemon is running", fg="red", bold=True)
    else:
        yield click.style("daemons", bold=True)
    for daemon in live:
        yield (
            f"  {daemon['instance']} on {daemon['host']}, seen {output.duration(daemon['seen_s_ago'])} ago,"
            f" version {daemon['version']}"
        )
    if gone:
        yield click.style("vanished in the last day", bold=True)
    for daemon in gone:
        seen = f"last seen {output.duration(daemon['seen_s_ago'])} ago ({daemon['seen_at']:%Y-%m-%d %H:%M} UTC)"
        yield click.style(f"  {daemon['instance']} on {daemon['host']}, {seen}", fg="yellow")


def _plain(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as JSON can hold them; moments in UTC."""
    return [{name: _plain_value(value) for name, value in row.items()} for row in rows]


def _plain_value(value: Any) -> Any:  # noqa: ANN401 - whatever a row holds
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return output.timestamp(value) if hasattr(value, "microsecond") else str(value)
