"""`top`: what `status` shows, live, with problems first and the trend of the backlog."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from predictu_dispatch.commands.invocation import EXIT_MISCONFIGURED, Invocation, config_option, database, fail
from predictu_dispatch.commands.output import Row, count, live_screen, styled, timestamp
from predictu_dispatch.commands.status import (
    NO_OPERATOR,
    REVIEW_SHOWN_MAX,
    daemon_lines,
    is_well,
    operator_lines,
    read_overview,
    rounded,
    silent_daemon_lines,
)
from predictu_dispatch.core.database import DatabaseUnavailable

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_OPEN_STATES: Final = ("waiting", "ready", "in_flight")
_REVIEW_LINES_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the database answered at `at`; `at_s` is the same time on the monotonic clock."""

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
    following = asyncio.create_task(_follow(invocation, every_s), name="top")
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, following.cancel)
    await asyncio.wait([following])
    if not following.cancelled():
        following.result()


async def _follow(invocation: Invocation, every_s: float) -> None:
    before: Overview | None = None
    async with database(invocation) as db:
        # The screen is taken only now, so that an error about the DSN or the schema stays readable.
        with live_screen() as screen:
            while True:
                now, lines = await _read_or_keep(db, before)
                lines += frame(now, before, height=screen.height - len(lines)) if now is not None else []
                screen.show(lines)
                before = now
                await asyncio.sleep(every_s)


async def _read_or_keep(db: Database, before: Overview | None) -> tuple[Overview | None, list[str]]:
    """The newest overview; in an outage the one `before`, with the lines that say so."""
    try:
        lanes, daemons, review = await read_overview(db)
    except DatabaseUnavailable as error:
        title = "the database can't be reached; retrying. Last answer:"
        # Two lines, because a line that does not fit the terminal is cut.
        return before, [styled(title, colour="red", bold=True), f"  {error}"]
    at_s = asyncio.get_running_loop().time()
    return Overview(at=datetime.now(UTC), at_s=at_s, lanes=lanes, daemons=daemons, review=review), []


def frame(now: Overview, before: Overview | None, *, height: int) -> list[str]:
    """The lines of one screen, at most `height`: problems first, then by backlog."""
    is_served = any(daemon["is_live"] for daemon in now.daemons)
    head = [_headline(now, before), *silent_daemon_lines(now.daemons)]
    tail = ["", *daemon_lines(now.daemons), *_review_lines(now.review)]
    if not now.lanes:
        return [*head, NO_OPERATOR, *tail][:height]
    operators = _by_urgency(now.lanes)
    shown = len(operators)
    while True:
        lanes = [lane for operator in operators[:shown] for lane in operator]
        hidden = operators[shown:]
        lines = [*head, "", *operator_lines(lanes, is_served=is_served)]
        if hidden:
            lines.append(f"… and {count(len(hidden), 'more operator')}, {_summary(hidden)}")
        if shown == 1 or len(lines) + len(tail) <= height:
            return [*lines, *tail][:height]
        # An operator with a problem also has a sentence, so how many fit is found by trying.
        shown -= max(1, min(shown - 1, (len(lines) + len(tail) - height) // 4))


def _headline(now: Overview, before: Overview | None) -> str:
    trend = ""
    if before is not None and now.at_s > before.at_s:
        per_s = round((now.backlog - before.backlog) / (now.at_s - before.at_s))
        trend = f" ({'-' if per_s < 0 else '+'}{rounded(abs(per_s))}/s)"
    in_flight = sum(lane["in_flight"] for lane in now.lanes)
    more = "+" if len(now.review) >= REVIEW_SHOWN_MAX else ""
    review = f"{len(now.review)}{more} need review" if now.review else "nothing needs review"
    at = timestamp(now.at, timespec="seconds")
    text = f"{at}  {rounded(now.backlog)} not final{trend}, {rounded(in_flight)} in flight, {review}"
    return styled(text, bold=True, colour="red" if now.review else None)


def _by_urgency(lanes: Sequence[Row]) -> list[list[Row]]:
    operators: dict[str, list[Row]] = {}
    for lane in lanes:
        operators.setdefault(lane["operator_id"], []).append(lane)

    def urgency(own: list[Row]) -> tuple[bool, int, str]:
        backlog = sum(lane[state] for lane in own for state in _OPEN_STATES)
        return (all(map(is_well, own)), -backlog, own[0]["operator_id"])

    return sorted(operators.values(), key=urgency)


def _summary(operators: Sequence[Sequence[Row]]) -> str:
    ill = sum(not all(map(is_well, own)) for own in operators)
    ready = sum(lane["ready"] for own in operators for lane in own)
    return f"{rounded(ready)} ready, {f'{ill} with problems' if ill else 'no problems'}"


def _review_lines(review: Sequence[Row]) -> Iterator[str]:
    if review:
        yield styled("the oldest callbacks that need review; to list more: predictu-dispatch status", bold=True)
    for row in review[:_REVIEW_LINES_MAX]:
        yield f"  {row['request_id']}  {row['operator_id']}  {row['method']}"
