"""The options of a reconciliation, and which of them go together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict, TypeVar

import click
from typing_extensions import override

from predictu_dispatch.commands.interventions.batch import by_option
from predictu_dispatch.commands.keys.common import operator_argument

_Command = TypeVar("_Command", bound=Callable[..., Any])

DAYS_MAX: Final = 366
"""The days of one run: a result has a row for each class, currency and day."""


class Day(click.ParamType[date]):
    """A date such as 2026-11-21."""

    name = "day"

    @override
    def convert(self, value: str | date, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return datetime.strptime(value, "%Y-%m-%d").date()  # noqa: DTZ007 - a day, in the operator's zone
        except ValueError:
            self.fail(f"{value!r} is no date such as 2026-11-21", param, ctx)


DAY: Final = Day()


class Period(NamedTuple):
    """Accounting days, both included."""

    first: date
    last: date


class Options(TypedDict):
    """What was given."""

    day: date | None
    first: date | None
    last: date | None
    ended_days: int | None
    shows_unreadable: bool
    by: str


_OPTIONS: Final = (
    operator_argument,
    click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path, dir_okay=False)),
    click.option("--day", metavar="DAY", type=DAY, help="The accounting day, such as 2026-11-21."),
    click.option("--from", "first", metavar="DAY", type=DAY, help="The first accounting day of a period."),
    click.option("--until", "last", metavar="DAY", type=DAY, help="The last accounting day of the period."),
    click.option(
        "--last",
        "ended_days",
        metavar="N",
        type=click.IntRange(1, DAYS_MAX),
        help="The last N accounting days that have ended.",
    ),
    click.option("--unreadable", "shows_unreadable", is_flag=True, help="List the lines that could not be read."),
    by_option,
)


def reconcile_options(command: _Command) -> _Command:
    """Add the arguments and options of a reconciliation."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def period_of(options: Options) -> Period | int:
    """Return the period, or the number of ended days; raise UsageError if neither is given."""
    day, first, last = options["day"], options["first"], options["last"]
    if (ended_days := options["ended_days"]) is not None:
        if not day is first is last is None:
            raise click.UsageError("give --last without --day, --from and --until")
        return ended_days
    if day is not None:
        if first is not None or last is not None:
            raise click.UsageError("give --day, or --from and --until, not both")
        return Period(day, day)
    if first is None or last is None:
        raise click.UsageError("give --day DAY, --last N, or --from DAY and --until DAY; both days are included")
    if last < first:
        raise click.UsageError(f"--until {last} is before --from {first}")
    if last - first >= timedelta(days=DAYS_MAX):
        raise click.UsageError(f"a run covers at most {DAYS_MAX} days; give a shorter period")
    return Period(first, last)
