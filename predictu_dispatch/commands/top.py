"""`top`: what `status` shows, live, with problems first and the trend of the backlog."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Final

import click

from predictu_dispatch.commands.fleet_lines import daemon_lines, silent_daemon_lines
from predictu_dispatch.commands.invocation import EXIT_MISCONFIGURED, Invocation, config_option, database, fail
from predictu_dispatch.commands.operator_lines import NO_OPERATOR, problem_counts
from predictu_dispatch.commands.output import count, live_screen, rounded, styled, timestamp, wrapped
from predictu_dispatch.commands.overview import Overview, read_overview
from predictu_dispatch.commands.review_lines import cause_lines, review_groups
from predictu_dispatch.commands.status import by_severity, fitted_operators
from predictu_dispatch.core.database import DatabaseUnavailable

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_DAEMONS_MAX: Final = 4
"""Running daemons, and silent ones, on a screen."""
_LINES_PER_CAUSE: Final = 8
"""One cause of the review list for this many lines of the screen."""


@click.command()
@click.option(
    "--every",
    "every_s",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.2, 3600),
    metavar="SECONDS",
    help="Seconds between refreshes.",
)
# Only for the message that names the right command.
@click.option("--json", "as_json", is_flag=True, hidden=True)
@config_option
def top(invocation: Invocation, every_s: float) -> None:
    """Show what `status` shows, live, with problems first. Ctrl-C ends it.

    It keeps running while the database is unavailable.
    """
    if invocation.json or not sys.stdout.isatty():
        fail("top needs a terminal; for a program: predictu-dispatch status --json", EXIT_MISCONFIGURED)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_interrupted(invocation, every_s))


async def _until_interrupted(invocation: Invocation, every_s: float) -> None:
    """Follow until Ctrl-C, also if the process was started with SIGINT ignored."""
    # Not a task of its own: asyncio would print the traceback of an exit in it.
    if (following := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, following.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await _follow(invocation, every_s)


async def _follow(invocation: Invocation, every_s: float) -> None:
    before: Overview | None = None
    async with database(invocation) as db:
        # The screen is taken only now, so that an error about the DSN or the schema stays readable.
        with live_screen() as screen:
            while True:
                now, lines = await _read_or_keep(db, before, columns=screen.width)
                if now is not None:
                    lines += frame(now, before, columns=screen.width, height=screen.height - len(lines))
                screen.show(lines)
                before = now
                await asyncio.sleep(every_s)


async def _read_or_keep(db: Database, before: Overview | None, *, columns: int) -> tuple[Overview | None, list[str]]:
    """The newest overview; in an outage the one `before`, with the lines that say so."""
    try:
        return await read_overview(db, at_s=asyncio.get_running_loop().time()), []
    except DatabaseUnavailable as error:
        title = "the database can't be reached; retrying. Last answer:"
        if before is not None:
            title = f"the database can't be reached; retrying. Answer of {timestamp(before.at, timespec='seconds')}:"
        # On lines of their own, because a line that does not fit the terminal is cut.
        return before, [
            *(styled(line, colour="red", bold=True) for line in wrapped(title, hanging="  ", columns=columns)),
            *wrapped(
                f"{error} → predictu-dispatch check; see PredictuDatabaseAway in deploy/runbook.md",
                indent="  ",
                columns=columns,
            ),
        ]


def frame(now: Overview, before: Overview | None, *, columns: int, height: int) -> list[str]:
    """The lines of one screen, at most `height`: problems first, then by backlog."""
    head = [*silent_daemon_lines(now.daemons, columns=columns, daemons_max=_DAEMONS_MAX)]
    head += _headline(now, before, columns)
    groups = review_groups(now.review_groups)
    tail = list(daemon_lines(now.daemons, columns=columns, daemons_max=_DAEMONS_MAX))
    review = list(cause_lines(groups, columns=columns, groups_max=max(1, height // _LINES_PER_CAUSE)))
    operators = by_severity(now)
    if not operators:
        return _cut([*head, NO_OPERATOR, *tail, *review], height)
    smallest = fitted_operators(operators, columns=columns, room=0)
    while tail and len(head) + len(smallest) + len(tail) + len(review) + 1 > height:
        # The daemons that run are the least urgent.
        tail.pop()
    room = height - len(head) - len(tail) - len(review) - 1
    lines = fitted_operators(operators, columns=columns, room=room)
    parts = [part for part in (lines, tail, review) if part]
    spare = height - len(head) - sum(len(part) + 1 for part in parts)
    for part in parts:
        head += ["", *part] if part is lines or spare >= 0 else part
    return _cut(head, height)


def _cut(lines: list[str], height: int) -> list[str]:
    """The lines that fit; the last one says if some do not."""
    if len(lines) <= height:
        return lines
    return [*lines[: height - 1], f"… {count(len(lines) - height + 1, 'more line')}: enlarge the terminal"]


def _headline(now: Overview, before: Overview | None, columns: int) -> list[str]:
    trend = ""
    if before is not None and now.at_s > before.at_s:
        per_s = round((now.backlog - before.backlog) / (now.at_s - before.at_s))
        trend = f" ({'-' if per_s < 0 else '+'}{rounded(abs(per_s))}/s)"
    in_flight = sum(lane["in_flight"] for lane in now.lanes)
    at = timestamp(now.at, timespec="seconds")
    text = f"{at}  {rounded(now.backlog)} not final{trend}, {rounded(in_flight)} in flight, {_review(now)}"
    operators = now.operators()
    is_ill = any(operator.problems for operator in operators) or bool(now.review_groups)
    state = f"{count(len(operators), 'operator')}: {problem_counts(operators)}"
    return [
        *(styled(line, bold=True) for line in wrapped(text, hanging="  ", columns=columns)),
        *(styled(line, colour="red" if is_ill else "green") for line in wrapped(state, hanging="  ", columns=columns)),
    ]


def _review(now: Overview) -> str:
    if not now.in_review:
        return "nothing needs review"
    return f"{rounded(now.in_review)} {'needs' if now.in_review == 1 else 'need'} review"
