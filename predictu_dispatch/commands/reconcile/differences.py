"""`reconcile list`, `show`, `explain` and `accept`: differences, and what people say about them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click

from predictu_dispatch.commands.interventions.batch import Batch, by_option, reason_option
from predictu_dispatch.commands.invocation import (
    Invocation,
    common_options,
    database,
    fail,
    is_unknown,
    unknown_operator,
)
from predictu_dispatch.commands.output import Row, print_error, print_json, print_line, print_wrapped
from predictu_dispatch.commands.reconcile.difference_lines import (
    as_json,
    heading,
    newest_run_text,
    print_listed,
    print_run,
    subject,
    unlisted_text,
)
from predictu_dispatch.commands.request_ids import REQUEST_ID, WHOLE_REQUEST_ID
from predictu_dispatch.commands.texts import class_text
from predictu_dispatch.core.difference_classes import TABLE, Kind
from predictu_dispatch.core.request_id import Beginning
from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.reconciliation.result import ITEMS_MAX

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_ROWS_DEFAULT: Final = 100
_ROWS_MAX: Final = 100_000
_CLASSES: Final = [rule.name.value for rule in TABLE if rule.kind in (Kind.DIFFERENCE, Kind.CONTRADICTION)]


@click.command("list")
@click.argument("operator", required=False)
@click.option("--runs", "lists_runs", is_flag=True, help="List runs instead, the newest first.")
@click.option("--all", "lists_accepted", is_flag=True, help="List accepted differences too.")
@click.option("--class", "class_", type=click.Choice(_CLASSES), metavar="CLASS", help="Only those of this class.")
@click.option(
    "--limit",
    type=click.IntRange(1, _ROWS_MAX),
    default=_ROWS_DEFAULT,
    show_default=True,
    help="How many to list.",
)
@common_options
def list_differences(
    invocation: Invocation,
    *,
    operator: str | None,
    lists_runs: bool,
    lists_accepted: bool,
    class_: str | None,
    limit: int,
) -> None:
    """List the open differences of all operators or of one.

    A difference is open until a run no longer finds it, or until two people have explained and
    accepted it.
    """
    if lists_runs and (lists_accepted or class_ is not None):
        raise click.UsageError("--runs lists runs; give it without --all and --class")
    if lists_runs:
        _list_runs(invocation, operator, limit)
        return
    rows, sums, unlisted, newest = asyncio.run(
        _read(invocation, operator, class_, limit, lists_accepted=lists_accepted)
    )
    if invocation.json:
        print_json(
            {
                "differences": [as_json(row) for row in rows],
                "open": [as_json(row) for row in sums],
                "unlisted": [dict(row) for row in unlisted],
            }
        )
        return
    of_class = f" of class {class_text(class_)}" if class_ else ""
    if operator is not None and (text := newest_run_text(operator, newest)):
        print_wrapped(text, hanging="  ", colour="yellow")
    if not rows:
        if operator is None or newest:
            print_line(f"no open differences{of_class}")
        return
    for owner in dict.fromkeys(row["operator_id"] for row in rows):
        of_owner = ([row for row in found if row["operator_id"] == owner] for found in (rows, sums, unlisted))
        _print_operator(owner, of_class, *of_owner)
    print_line("To see one: predictu-dispatch reconcile show ID")
    if rows[0]["found"] > len(rows):
        print_error(f"{len(rows):,} are shown, and there are more; give a larger --limit")


def _print_operator(operator: str, of_class: str, rows: list[Row], sums: list[Row], unlisted: list[Row]) -> None:
    print_wrapped(heading(operator, sums, of_class), hanging="  ", bold=True)
    for row in unlisted:
        print_wrapped(unlisted_text(row), hanging="  ", colour="yellow")
    for row in rows:
        print_listed(row)


async def _read(
    invocation: Invocation, operator: str | None, class_: str | None, limit: int, *, lists_accepted: bool
) -> tuple[list[Row], list[Row], list[Row], list[Row]]:
    async with database(invocation) as db:
        rows = await db.fetch(query("reconciliation_list"), operator, class_, lists_accepted, limit)
        await _require_known(db, operator, rows)
        sums = await db.fetch(query("reconciliation_sums"), operator, class_)
        unlisted = await db.fetch(query("reconciliation_unlisted"), operator, class_, ITEMS_MAX)
        return rows, sums, unlisted, await db.fetch(query("reconciliation_newest"), operator)


async def _require_known(db: Database, operator: str | None, rows: Sequence[Row]) -> None:
    if not rows and operator is not None and await is_unknown(db, operator):
        fail(unknown_operator(operator))


def _list_runs(invocation: Invocation, operator: str | None, limit: int) -> None:
    async def read() -> list[Row]:
        async with database(invocation) as db:
            rows = await db.fetch(query("reconciliation_runs"), operator, limit + 1)
            await _require_known(db, operator, rows)
            return rows

    rows = asyncio.run(read())
    if invocation.json:
        print_json({"runs": [dict(row) for row in rows[:limit]]})
        return
    for row in rows[:limit]:
        print_run(row)
    print_line("To see one: predictu-dispatch reconcile show ID" if rows else "no runs")
    if len(rows) > limit:
        print_error(f"the newest {limit} are shown; to see more: a larger --limit")


@click.command("show")
@click.argument("id_", metavar="ID", type=REQUEST_ID)
@click.option("--operator", help="Only what concerns this operator.")
@common_options
def show_difference(invocation: Invocation, id_: Beginning, operator: str | None) -> None:
    """Show both sides of a difference, or the report of a run.

    Any beginning of the id that is not ambiguous is enough.
    """
    from predictu_dispatch.commands.reconcile.difference_show import show  # noqa: PLC0415 - loads pydantic

    show(invocation, id_, operator)


_ids = click.argument("ids", metavar="ID...", type=WHOLE_REQUEST_ID, nargs=-1, required=True)


@click.command()
@_ids
@reason_option
@by_option
@common_options
def explain(invocation: Invocation, ids: tuple[UUID, ...], reason: str, by: str) -> None:
    """Record why open differences exist. They stay open until they are accepted.

    A difference may be explained again. `reconcile list` prints whole ids.
    """
    batch = Batch()
    work = _call_for_each(batch, invocation, "explain_difference", ids, reason, by)
    batch.run(invocation, work, lambda done: [f"{_name(row)} is explained; {_accept(row)}" for row in done])


@click.command()
@_ids
@reason_option
@by_option
@common_options
def accept(invocation: Invocation, ids: tuple[UUID, ...], reason: str, by: str) -> None:
    """Close differences that somebody else has explained.

    It needs another database login than the explanations. While a difference stays as it is, no run
    opens it again; if its amounts change, it has another id and is open.
    """
    batch = Batch()
    work = _call_for_each(batch, invocation, "accept_difference", ids, reason, by)
    batch.run(invocation, work, lambda done: [f"{_name(row)} is accepted" for row in done])


async def _call_for_each(
    batch: Batch, invocation: Invocation, statement: str, ids: Sequence[UUID], *arguments: str
) -> None:
    """Call the function once for each difference, each in its own transaction."""
    async with database(invocation) as db:
        for item_id in dict.fromkeys(ids):
            owners = await db.fetch(query("reconciliation_owners"), item_id, None)
            if owners:
                operator = str(owners[0]["operator_id"])
                await batch.call(db, statement, operator, item_id, *arguments, id_name="item_id")
                batch.done[-1:] = [as_json(row) for row in batch.done[-1:]]
            else:
                hint = "To list the open differences: predictu-dispatch reconcile list"
                batch.refuse(f"no difference {item_id}", hint, operator_id=None, item_id=item_id)


def _name(row: Row) -> str:
    return f"{row['operator_id']}, {class_text(row['class'])}, {subject(row)}: difference {row['item_id']}"


def _accept(row: Row) -> str:
    step = f"predictu-dispatch reconcile accept {row['item_id']}"
    return f"somebody with another database login can accept it: {step} --reason TEXT"
