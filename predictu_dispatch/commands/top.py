"""`top`: what `status` shows, again and again, with what needs a person at the top and how the backlog moves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from predictu_dispatch.commands.connection import database
from predictu_dispatch.commands.invocation import EXIT_MISCONFIGURED, Invocation, common_options
from predictu_dispatch.commands.status import REVIEW_SHOWN, daemon_lines, read_overview
from predictu_dispatch.commands.status_table import is_well, operator_lines, rounded
from predictu_dispatch.core.database_errors import DatabaseUnavailable

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_OPEN_STATES: Final = ("waiting", "ready", "in_flight")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the database said at one moment, `at` by this machine's clock; `at_s` is the same, monotonic."""

    at: datetime
    at_s: float
    lanes: Sequence[Row] = field(default_factory=tuple)
    daemons: Sequence[Row] = field(default_factory=tuple)
    review: Sequence[Row] = field(default_factory=tuple)

    @property
    def backlog(self) -> int:
        """Callbacks that are not final."""
        return sum(lane[state] for lane in self.lanes for state in _OPEN_STATES)


@click.command()
@click.option(
    "--every", "every_s", default=2.0, show_default=True, type=click.FloatRange(0.2, 3600), help="Seconds between two."
)
@common_options
def top(invocation: Invocation, every_s: float) -> None:
    """Show what `status` shows, live: what needs a person comes first. Ctrl-C ends it.

    While the database is away it says so and goes on asking.
    """
    if invocation.json or not sys.stdout.isatty():
        click.echo("top draws on a terminal; for a program there is: predictu-dispatch status --json", err=True)
        sys.exit(EXIT_MISCONFIGURED)
    try:
        asyncio.run(_follow(invocation, every_s))
    except KeyboardInterrupt:
        # That is how it ends.
        return


async def _follow(invocation: Invocation, every_s: float) -> None:
    from rich.console import Console  # noqa: PLC0415 - loaded only where used
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    before: Overview | None = None
    now: Overview | None
    async with database(invocation) as db:
        # Only now does it take the screen: what is wrong with the DSN or the schema must stay to be read.
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                lines: list[str] = []
                try:
                    now = await _read(db)
                except DatabaseUnavailable as error:
                    away = "the database can't be reached; asking again, below is what it said last"
                    # On two lines, because what does not fit the terminal is cut.
                    lines, now = [click.style(away, fg="red", bold=True), f"  {error}"], before
                if now is not None:
                    lines += frame(now, before, height=console.height - len(lines))
                live.update(Text.from_ansi("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
                before = now
                await asyncio.sleep(every_s)


async def _read(db: Database) -> Overview:
    lanes, daemons, review = await read_overview(db)
    return Overview(
        at=datetime.now(UTC), at_s=asyncio.get_running_loop().time(), lanes=lanes, daemons=daemons, review=review
    )


def frame(now: Overview, before: Overview | None, *, height: int) -> list[str]:
    """The lines of one picture, no more than `height`: operators in trouble first, then those with most to do."""
    runs = any(daemon["is_live"] for daemon in now.daemons)
    head = [_headline(now, before)]
    tail = ["", *daemon_lines(now.daemons), *_review_lines(now.review)]
    if not now.lanes:
        return [*head, "no operator is known yet: they enter the database when a daemon starts", *tail][:height]
    operators = _by_need(now.lanes)
    shown = len(operators)
    while True:
        lanes = [lane for operator in operators[:shown] for lane in operator]
        left = operators[shown:]
        lines = [*head, "", *operator_lines(lanes, runs=runs)]
        if left:
            lines.append(f"… and {len(left)} more {'operator' if len(left) == 1 else 'operators'}, {_of_all(left)}")
        if shown == 1 or len(lines) + len(tail) <= height:
            return [*lines, *tail][:height]
        # What is not well has a sentence as well as its lines, so that only trying tells what fits.
        shown -= max(1, min(shown - 1, (len(lines) + len(tail) - height) // 4))


def _headline(now: Overview, before: Overview | None) -> str:
    moving = ""
    if before is not None and now.at_s > before.at_s:
        per_s = (now.backlog - before.backlog) / (now.at_s - before.at_s)
        moving = f" ({per_s:+,.0f}/s)"
    in_flight = sum(lane["in_flight"] for lane in now.lanes)
    many = "or more " if len(now.review) >= REVIEW_SHOWN else ""
    review = f"{len(now.review)} {many}need review" if now.review else "nothing needs review"
    text = f"{now.at:%H:%M:%S} UTC  {now.backlog:,} not final{moving}, {in_flight:,} in flight, {review}"
    return click.style(text, bold=True, fg="red" if now.review else None)


def _by_need(lanes: Sequence[Row]) -> list[list[Row]]:
    operators: dict[str, list[Row]] = {}
    for lane in lanes:
        operators.setdefault(lane["operator_id"], []).append(lane)

    def need(own: list[Row]) -> tuple[bool, int, str]:
        return (
            all(map(is_well, own)),
            -sum(lane[state] for lane in own for state in _OPEN_STATES),
            own[0]["operator_id"],
        )

    return sorted(operators.values(), key=need)


def _of_all(operators: Sequence[Sequence[Row]]) -> str:
    """What those that are not shown have together."""
    ill = sum(not all(map(is_well, own)) for own in operators)
    ready = sum(lane["ready"] for own in operators for lane in own)
    return f"{rounded(ready)} ready, {f'{ill} not well' if ill else 'all well'}"


def _review_lines(review: Sequence[Row]) -> Iterator[str]:
    if review:
        yield click.style("the oldest that need review; see status", bold=True)
    for row in review[:5]:
        yield f"  {row['request_id']}  {row['operator_id']}  {row['method']}"
