"""`status`: operators, backlog and daemons at a glance, and what needs review."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from predictu_dispatch.commands.fleet_lines import daemon_lines, silent_daemon_lines
from predictu_dispatch.commands.invocation import Invocation, common_options, database
from predictu_dispatch.commands.operator_lines import NO_OPERATOR, Room, operator_lines, problem_counts
from predictu_dispatch.commands.output import count, print_json, print_line, wrapped
from predictu_dispatch.commands.overview import REVIEW_READ_MAX, Operator, Overview, read_overview
from predictu_dispatch.commands.review_lines import review_groups, review_lines
from predictu_dispatch.core.operator_problems import is_urgent, severity

_LINES_PER_OPERATOR_MAX: Final = 4
"""About; an operator with a problem has a sentence of several lines."""
_MARGIN_LINES: Final = 2
"""The shell's prompt and the command itself."""


@click.command()
@click.option(
    "--all", "is_all", is_flag=True, help="List every operator and callback, not only what fits the terminal."
)
@common_options
def status(invocation: Invocation, *, is_all: bool) -> None:
    """Show the operators, problems first, the daemons, and the callbacks that need manual review.

    On a terminal it lists what fits and counts the rest; otherwise everything. Numbers of 10,000 or
    more are rounded; --json prints them exactly, with totals and groups.
    """
    is_terminal = sys.stdout.isatty()
    is_short = not is_all and (invocation.json or is_terminal)
    overview = asyncio.run(_read(invocation, review_max=REVIEW_READ_MAX if is_short else None))
    if invocation.json:
        print_json(as_json(overview))
        return
    columns, lines = shutil.get_terminal_size()
    for line in status_lines(overview, columns=columns, lines_max=lines - _MARGIN_LINES if is_short else None):
        print_line(line)


async def _read(invocation: Invocation, *, review_max: int | None) -> Overview:
    async with database(invocation) as db:
        return await read_overview(db, review_max=review_max)


def as_json(overview: Overview) -> dict[str, Any]:
    """Totals, groups and rows; `needs_review` has the oldest 20 without --all."""
    groups = review_groups(overview.review_groups)
    return {
        "totals": overview.totals(),
        "groups": {"unfinished": overview.groups, "needs_review": [group.as_json() for group in groups]},
        "problems": [
            {"operator_id": operator.operator_id, "problems": operator.problems}
            for operator in overview.operators()
            if operator.problems
        ],
        "lanes": overview.lanes,
        "daemons": overview.daemons,
        "needs_review": overview.review,
    }


def status_lines(overview: Overview, *, columns: int, lines_max: int | None) -> Iterator[str]:
    """All lines, within about `lines_max`; None lists everything."""
    silent = list(silent_daemon_lines(overview.daemons, columns=columns))
    daemons = list(daemon_lines(overview.daemons, columns=columns))
    room = None if lines_max is None else lines_max - len(silent) - len(daemons) - 4
    operators = by_severity(overview)
    table = [NO_OPERATOR]
    if operators:
        # The review list gets what the operators leave, but at least its largest cause.
        least = len(list(review_lines(overview, columns=columns, lines_max=1)))
        table = wrapped(f"{count(len(operators), 'operator')}: {problem_counts(operators)}", columns=columns)
        table += fitted_operators(operators, columns=columns, room=None if room is None else room - least - len(table))
    yield from [*silent, ""] if silent else []
    yield from [*table, ""]
    yield from [*daemons, ""] if daemons else []
    left = None if room is None else max(1, room - len(table))
    yield from review_lines(overview, columns=columns, lines_max=left)


def by_severity(overview: Overview) -> list[Operator]:
    """The operators, problems first, then by backlog."""
    return sorted(overview.operators(), key=lambda one: (severity(one.problems), -one.backlog, one.operator_id))


def fitted_operators(operators: list[Operator], *, columns: int, room: int | None) -> list[str]:
    """As many operators as fit, at least one, and what the others are.

    An operator with a problem also has a sentence, so how many fit is found by trying: first
    without those that are well, paused or disabled, then with less of each, then with fewer.
    """
    urgent = max(1, sum(is_urgent(operator.problems) for operator in operators))
    shown, least, level = len(operators), urgent, Room.FULL
    while True:
        lines = [*operator_lines(operators[:shown], columns=columns, room=level), *_hidden(operators[shown:], columns)]
        if room is None or len(lines) <= room:
            return lines
        if shown > least:
            shown = max(least, shown - max(1, (len(lines) - room) // _LINES_PER_OPERATOR_MAX))
        elif level is Room.FULL:
            level = Room.BRIEF
        elif level is Room.BRIEF and is_urgent(operators[0].problems):
            level, least = Room.TIGHT, 1
        else:
            return lines


def _hidden(operators: list[Operator], columns: int) -> list[str]:
    if not operators:
        return []
    ready = sum(operator.total("ready") for operator in operators)
    text = f"… and {count(len(operators), 'more operator')}: {problem_counts(operators)}; {ready:,} ready"
    return wrapped(text, hanging="  ", columns=columns)
