"""`find`: bets and callbacks by what a player, a ticket or an operator says."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from predictu_dispatch.commands.find.screen import as_json, csv_lines, hit_lines, print_next, print_none
from predictu_dispatch.commands.find.search import Page, Past, Search, read_page, read_past
from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, database
from predictu_dispatch.commands.output import print_error, print_json, print_line, timestamp
from predictu_dispatch.commands.request_ids import REQUEST_ID
from predictu_dispatch.commands.texts import STATES
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.request_id import Beginning
from predictu_dispatch.core.search_input import parse_amount, parse_time
from predictu_dispatch.core.search_page import Cursor, parse_cursor

_ROWS: Final = 20
_ROWS_MIN: Final = 5
_ROWS_MAX: Final = 500
_LINES_OF_A_HIT: Final = 2
_OTHER_LINES: Final = 6
"""The prompt, and the commands that continue from here."""
_DEFAULT_ROWS: Final = f"{_ROWS}, on a terminal at most what fits it, in CSV {_ROWS_MAX}"
_ID_CHARS_MAX: Final = 200
_NOT_SEARCHABLE: Final = (Method.PING, Method.BALANCE)
_T = TypeVar("_T")


@click.command()
@click.option("--operator", help="Only this operator; without it all are searched.")
@click.option("--player", metavar="ID", help="Bets of this player, exactly as the producer wrote it.")
@click.option("--bet", metavar="ID", help="The bet with this id, of any operator.")
@click.option("--transaction", metavar="ID", help="Callbacks with this transaction id of the operator.")
@click.option("--request", metavar="ID", type=REQUEST_ID, help="Callbacks with this request id, or its beginning.")
@click.option("--amount", metavar="AMOUNT", help="Stakes and confirmed payouts: 6.41, 6,41 EUR, 641 subunits.")
@click.option("--since", metavar="TIME", help="Placed at or after: a time, a date, or an age such as 2h or 3d.")
@click.option("--until", metavar="TIME", help="Placed before; a date includes that day.")
@click.option("--state", type=click.Choice(tuple(STATES)), help="Callbacks in this state.")
@click.option("--method", type=click.Choice([one.value for one in Method]), metavar="METHOD", help="Such as BET_MAKE.")
@click.option("--rows", type=click.IntRange(1, _ROWS_MAX), help=f"Rows of a page. [default: {_DEFAULT_ROWS}]")
@click.option("--after-page", metavar="CURSOR", help="The next page, as the last one printed it.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@common_options
def find(invocation: Invocation, /, *, as_csv: bool, rows: int | None, **given: Any) -> None:  # noqa: ANN401 - click's options
    """Find bets and callbacks, the newest first, with the id to give to show.

    Give at most one of --player, --bet, --transaction, --request and --amount; without any, the
    newest bets are listed. Times are those of the bet's placement; with --transaction those of the
    callback's enqueueing, with --amount those of the stake's or the payout's.

    An amount is in the currency's own units: 6.41 is 641 cents of EUR and 6410 subunits of KWD,
    and every currency that can have it is searched unless one is given. 1,234 is searched both as
    1234 and as 1.234. `641 subunits` is the number as the database stores it.

    --state and --method are applied to what the other options select, at most 1,000 bets for a
    page; the command says how far back it has searched.

    PING and BALANCE have no bet: only --request and --transaction find them.

    In CSV, a text that begins with = + - or @ has an apostrophe before it, so that a spreadsheet
    does not run it as a formula; --json has each text as it is.

    Exit code 1 if there is no hit.
    """
    search = _search(given, rows or _default_rows(is_csv=as_csv, is_json=invocation.json))
    if as_csv and invocation.json:
        raise click.UsageError("give --json or --csv, not both")
    page, past = asyncio.run(_read(invocation, search))
    next_command = None if page.next is None else _next_command(page.next, search)
    if invocation.json:
        print_json(as_json(page, next_command))
    elif as_csv:
        for line in csv_lines(page.rows):
            print_line(line)
        if next_command is not None:
            print_error("more, the next older:", next_command)
    elif page.rows:
        for line in hit_lines(page.rows):
            print_line(line)
        print_next(page, next_command)
        if page.has_more_ids:
            print_line("There are more: give more digits of the request id.")
    else:
        print_none(search, page, next_command, past)
    if not page.rows and next_command is None:
        sys.exit(EXIT_FAILED)


def _default_rows(*, is_csv: bool, is_json: bool) -> int:
    """As many rows as the first page should have: on a terminal the newest stay on the screen."""
    if is_csv:
        return _ROWS_MAX
    if is_json or not sys.stdout.isatty():
        return _ROWS
    fitting = (shutil.get_terminal_size().lines - _OTHER_LINES) // _LINES_OF_A_HIT
    return max(_ROWS_MIN, min(_ROWS, fitting))


def _search(given: dict[str, Any], rows: int) -> Search:
    """The search that the options ask for; wrong usage is exit code 2."""
    keys = [name for name in ("player", "bet", "transaction", "request", "amount") if given[name] is not None]
    if len(keys) > 1:
        raise click.UsageError(f"give one of --{', --'.join(keys)}; each is a search of its own")
    for name in ("operator", "player", "bet", "transaction"):
        if given[name] is not None and not 1 <= len(given[name]) <= _ID_CHARS_MAX:
            raise click.UsageError(f"--{name} must have 1 to {_ID_CHARS_MAX} characters")
        if given[name] is not None and "\0" in given[name]:
            raise click.UsageError(f"--{name} must not have a NUL character")
    now = datetime.now(UTC)
    since = _parsed("since", given["since"], lambda text: parse_time(text, now))
    until = _parsed("until", given["until"], lambda text: parse_time(text, now, is_end=True))
    if since is not None and until is not None and since >= until:
        raise click.UsageError(f"--since {timestamp(since)} is not before --until {timestamp(until)}")
    beginning: Beginning | None = given["request"]
    method = given["method"]
    if method in _NOT_SEARCHABLE and not {"transaction", "request"} & set(keys):
        raise click.UsageError(f"{method} has no bet: search it with --request or --transaction")
    after = _parsed("after-page", given["after_page"], _cursor)
    if beginning is not None and (since or until or after):
        raise click.UsageError("--request goes without --since, --until and --after-page")
    return Search(
        operator=given["operator"],
        player=given["player"],
        bet=given["bet"],
        transaction=given["transaction"],
        request=beginning,
        amount=_parsed("amount", given["amount"], parse_amount),
        since=since,
        until=until,
        state=given["state"],
        method=method,
        after=after,
        rows_max=rows,
    )


def _cursor(text: str) -> Cursor:
    try:
        return parse_cursor(text)
    except ValueError:
        raise ValueError("copy it from the last line of the page before") from None


def _parsed(name: str, text: str | None, parse: Callable[[str], _T]) -> _T | None:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise click.UsageError(f"--{name} '{text}' is not understood: {error}") from None


async def _read(invocation: Invocation, search: Search) -> tuple[Page, Past]:
    """The page; without a hit also what is known of the time before the oldest bet."""
    async with database(invocation) as db:
        page = await read_page(db, search)
        is_none = not page.rows and page.next is None
        return page, await read_past(db, search, page.operators) if is_none else Past()


def _next_command(cursor: Cursor, search: Search) -> str:
    """The same command line for the next page; an age becomes a time, so that pages fit."""
    fixed = {"since": search.since, "until": search.until}
    context = click.get_current_context()
    words = ["predictu-dispatch", "find"]
    for parameter in context.command.params:
        if parameter.name == "after_page":
            continue
        source = context.get_parameter_source(parameter.name)
        value = context.params.get(parameter.name)
        if source is not click.core.ParameterSource.COMMANDLINE:
            continue
        option = next(name for name in parameter.opts if name.startswith("--"))
        at = fixed.get(parameter.name or "")
        if isinstance(value, bool):
            words.append(option)
        elif at is not None:
            words += [option, timestamp(at, timespec="auto")]
        else:
            words += [option, value.text if isinstance(value, Beginning) else str(value)]
    return shlex.join([*words, "--after-page", str(cursor)])
