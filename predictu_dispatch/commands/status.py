"""`status`: operators, lanes and backlog at a glance, and what needs review."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from predictu_dispatch.commands import words
from predictu_dispatch.commands.connection import database
from predictu_dispatch.commands.invocation import Invocation, common_options, print_json

_REVIEW_SHOWN = 20
_LANES = ("interactive", "settlement")
_HEAD = ("operator", "lane", "waiting", "ready", "in flight", "oldest due", "unknown")


@click.command()
@common_options
def status(invocation: Invocation) -> None:
    """Show a row for each operator and lane, and the callbacks that a person must look at."""
    lanes, review = asyncio.run(_read(invocation))
    if invocation.json:
        print_json({"lanes": lanes, "needs_review": review})
        return
    if lanes:
        _print_table([_HEAD, *(_row(lane) for lane in lanes)])
    else:
        click.echo("no operator is known yet: they enter the database when a daemon starts")
    if not review:
        click.echo("\nnothing needs review")
        return
    click.echo(f"\nneeds review{f' (the {_REVIEW_SHOWN} oldest)' if len(review) == _REVIEW_SHOWN else ''}:")
    for row in review:
        click.echo(
            f"  {row['request_id']}  {row['operator_id']}  {row['method']}  bet {row['bet_id']}, since {row['since']}"
        )
        click.echo(f"      {row['reason']}")


async def _read(invocation: Invocation) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from predictu_dispatch.edge.sql_files import query  # noqa: PLC0415 - loaded only where used

    async with database(invocation) as db:
        operators = await db.fetch(query("operators"))
        backlog = await db.fetch(query("backlog"))
        review = await db.fetch(query("needs_review"), _REVIEW_SHOWN)
    lanes = {
        (operator["operator_id"], lane): {
            "operator_id": operator["operator_id"],
            "enabled": operator["enabled"],
            "lane": lane,
            "waiting": 0,
            "ready": 0,
            "in_flight": 0,
            "oldest_due_s": None,
            "unknown_effect": 0,
        }
        for operator in operators
        for lane in _LANES
    }
    for row in backlog:
        lane = lanes[row["operator_id"], row["lane"]]
        lane[row["state"]] = row["callbacks"]
        lane["unknown_effect"] += row["unknown_effect"]
        if row["oldest_due_s"] is not None:
            lane["oldest_due_s"] = max(0.0, row["oldest_due_s"])
    return list(lanes.values()), [
        {**row, "request_id": str(row["request_id"]), "since": words.moment(row["since"])} for row in review
    ]


def _row(lane: dict[str, Any]) -> tuple[str, ...]:
    name = lane["operator_id"] if lane["enabled"] else f"{lane['operator_id']} (disabled)"
    oldest = "-" if lane["oldest_due_s"] is None else words.span(lane["oldest_due_s"])
    counts = (lane["waiting"], lane["ready"], lane["in_flight"])
    return (name, lane["lane"], *map(str, counts), oldest, str(lane["unknown_effect"]))


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for index, row in enumerate(rows):
        line = "  ".join(
            cell.ljust(width) if column < len(("operator", "lane")) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo(click.style(line, bold=index == 0))
