"""The command `statement`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import click

from predictu_dispatch.commands.invocation import (
    EXIT_FAILED,
    EXIT_MISCONFIGURED,
    Invocation,
    common_options,
    dsn_of,
    exit_on_database_errors,
    fail,
    unknown_operator,
)
from predictu_dispatch.commands.output import count, print_csv, print_error, print_json, print_line, timestamp
from predictu_dispatch.commands.reconcile.options import DAY
from predictu_dispatch.commands.statement.accounting import Accounting, accounting_of
from predictu_dispatch.commands.statement.lines import JSON_ROWS_MAX, SHOWN_MAX, as_json, not_finished, statement_lines
from predictu_dispatch.core.database import DatabaseUnavailable, Refused

if TYPE_CHECKING:
    from predictu_dispatch.core.accounting_days import AccountingDays
    from predictu_dispatch.edge.postgres.statement_reader import StatementReader
    from predictu_dispatch.reconciliation.statement import Scope

_DAYS_MAX: Final = 3_660
_EARLIEST: Final = date(2000, 1, 1)
_LATEST: Final = date(2999, 12, 31)


class _Asked(NamedTuple):
    """What the command line asks for."""

    operator: str
    currency: str
    first: date
    last: date
    accounting: Accounting


@click.command()
@click.argument("operator")
@click.option("--currency", required=True, metavar="CODE", help="Movements in this currency, such as EUR.")
@click.option("--from", "first", required=True, metavar="DAY", type=DAY, help="The first accounting day.")
@click.option(
    "--until", "last", required=True, metavar="DAY", type=DAY, help="The last accounting day; it is included."
)
@click.option(
    "--zone",
    metavar="ZONE",
    help="Accounting days of this time zone, such as Europe/Malta. [default: time_zone of [reconcile] in the"
    " operator's file; UTC if this host has no such file]",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print every row as CSV.")
@common_options
def statement(
    invocation: Invocation, operator: str, *, currency: str, first: date, last: date, zone: str | None, as_csv: bool
) -> None:
    """Print an operator's confirmed debits and credits by accounting day.

    It also lists the callbacks whose outcome was unknown at the start and at the end of the period,
    as it was known at these moments: the end of one statement is the start of the next. Rollbacks
    that moved no confirmed money are listed apart. The net is the effect on the players' wallets;
    the house has the opposite.

    --csv prints every row, in UTF-8. Every value is exact, also a text that begins with = + - or @:
    in a spreadsheet, import all columns as text. The CSV is whole only if the exit code is 0.

    Exit code 1 also if retention has removed a part of the period.
    """
    if as_csv and invocation.json:
        raise click.UsageError("give --json or --csv, not both")
    _check_period(first, last)
    accounting = accounting_of(invocation, operator, zone)
    asked = _Asked(operator=operator, currency=currency, first=first, last=last, accounting=accounting)
    asyncio.run(_print(invocation, asked, as_csv=as_csv))


def _check_period(first: date, last: date) -> None:
    if last < first:
        raise click.UsageError(f"--until {last} is before --from {first}")
    for option, day in (("--from", first), ("--until", last)):
        if not _EARLIEST <= day <= _LATEST:
            raise click.UsageError(f"{option} {day} is not between {_EARLIEST} and {_LATEST}")
    if last - first >= timedelta(days=_DAYS_MAX):
        raise click.UsageError(f"a statement covers at most {_DAYS_MAX:,} days; give a shorter period")


async def _print(invocation: Invocation, asked: _Asked, *, as_csv: bool) -> None:
    from predictu_dispatch.reconciliation.statement import read_statement  # noqa: PLC0415 - loaded only where used

    async with _reader(invocation) as reader:
        scope = await _scope(invocation, reader, asked)
        if as_csv:
            await _print_csv(reader, scope)
            return
        found = await read_statement(reader, scope, shown_max=JSON_ROWS_MAX if invocation.json else SHOWN_MAX)
    if invocation.json:
        print_json(as_json(found, asked.accounting))
    else:
        for line in statement_lines(found, asked.accounting):
            print_line(line)
    _fail_if(found.unreadable)


@asynccontextmanager
async def _reader(invocation: Invocation) -> AsyncIterator[StatementReader]:
    from predictu_dispatch.edge.postgres.statement_reader import open_statement_reader  # noqa: PLC0415 - as above

    with exit_on_database_errors(invocation):
        async with open_statement_reader(dsn_of(invocation), application_name="predictu-dispatch statement") as reader:
            yield reader


async def _scope(invocation: Invocation, reader: StatementReader, asked: _Asked) -> Scope:
    """What the statement is about; ends the command if there can be none."""
    from predictu_dispatch.reconciliation.statement import Scope  # noqa: PLC0415 - as above

    [facts] = await reader.fetch("statement_scope", asked.operator, asked.currency)
    days, cutoff = asked.accounting.days, facts["cutoff"]
    edges = days.edges(asked.first, asked.last)
    begins = f"the period begins at {timestamp(edges[0], timespec='seconds')}"
    if not facts["is_known"]:
        _refuse(invocation, unknown_operator(asked.operator))
    if facts["minor_digits"] is None:
        _refuse(invocation, f"unknown currency {asked.currency}; predictu-dispatch currencies lists them")
    if cutoff is not None and edges[0] < cutoff:
        removed = f"retention has removed what ended before {timestamp(cutoff, timespec='seconds')}"
        hint = f"Begin with --from {_first_kept(days, cutoff)} or later."
        _refuse(invocation, f"{begins}, and {removed}", hint=hint)
    if edges[0] >= facts["read_at"]:
        _refuse(invocation, f"{begins}, in the future", EXIT_MISCONFIGURED)
    return Scope(
        operator_id=asked.operator,
        currency=asked.currency,
        minor_digits=facts["minor_digits"],
        first=asked.first,
        last=asked.last,
        edges=edges,
        read_at=facts["read_at"],
    )


def _first_kept(days: AccountingDays, cutoff: datetime) -> date:
    day = days.day_of(cutoff)
    return day if days.start_of(day) >= cutoff else day + timedelta(days=1)


async def _print_csv(reader: StatementReader, scope: Scope) -> None:
    from predictu_dispatch.reconciliation.statement_csv import AMOUNT, csv_batches  # noqa: PLC0415 - as above

    unreadable = 0

    if not scope.is_finished:
        print_error(not_finished(scope))
    try:
        async for batch in csv_batches(reader, scope):
            unreadable += sum(not row[AMOUNT] for row in batch)
            try:
                print_csv(batch)
            except OSError as error:
                fail(f"the CSV is not whole: it cannot be written: {error.strerror}")
    except (DatabaseUnavailable, Refused):
        print_error("the CSV is not whole:")
        raise
    _fail_if(unreadable)


def _fail_if(unreadable: int) -> None:
    """End the command if amounts are missing: its sums are not the whole money."""
    if unreadable:
        fail(
            f"{count(unreadable, 'amount')} cannot be read and {'is' if unreadable == 1 else 'are'} in no sum",
            hint="The rows of the database are damaged; --csv shows which: their amount is empty.",
        )


def _refuse(invocation: Invocation, message: str, code: int = EXIT_FAILED, *, hint: str = "") -> NoReturn:
    """End the command with the message, with --json on stdout too."""
    if invocation.json:
        print_json({"ok": False, "error": message})
    fail(message, code, hint=hint)
