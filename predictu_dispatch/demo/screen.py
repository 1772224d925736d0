"""What the demo shows while it runs: events and progress; on a terminal also a live table."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TextIO

import asyncpg
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from predictu_dispatch.books_check.check import CURRENCY, amount_text
from predictu_dispatch.demo.environment import Environment
from predictu_dispatch.demo.figures import Figures, Progress, playing_s, read_figures
from predictu_dispatch.demo.fixtures import OPERATORS

_REDRAW_S: Final = 0.4
_LINE_S: Final = 3.0
_WIDTH_WITHOUT_TERMINAL: Final = 120
_HEIGHT_OF_TABLE: Final = 21
_WIDTH_FOR_TOTAL: Final = 100
_BAR_WIDTH: Final = 32
_ENDING_S: Final = 5.0
"""Start and proof, which take about this long."""


class Screen:
    """Writes to one stream: lines, and above the last line of a terminal a table that changes."""

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
        self.console = console or Console(file=stream, width=width, highlight=False)
        self._is_live = (
            stream.isatty()
            and not self.console.is_dumb_terminal
            and not self.console.record
            and not os.environ.get("CI")
            and self.console.height > _HEIGHT_OF_TABLE
        )
        self.started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def print(self, text: str) -> None:
        """Print a text that a terminal may break, but we do not: paths and commands."""
        self.console.print(text, markup=False, soft_wrap=True)

    def write(self, *parts: RenderableType) -> None:
        for part in parts:
            self.console.print(part)

    def announce(self, sentence: str) -> None:
        """Print an event with its time at once, above the live table if there is one."""
        self.console.print(f"{self.elapsed_s:5.1f} s  {sentence}", markup=False)

    def introduce(self, *, bets: int, seed: int) -> None:
        """Say what will happen, in words that need no knowledge of this project."""
        takes_s = 5 * round((playing_s(bets) + _ENDING_S) / 5)
        text = Text()
        text.append(f"This demo plays {bets} bets with three casinos on this machine, in about {takes_s} s.\n")
        text.append(
            "The casinos (operators) own the players' wallets. Predictu's daemon debits and credits them by signed"
            " HTTP requests (callbacks), and repeats a request that fails. In the middle an operator goes down and"
            " the daemon is killed. At the end wallets, bets and audit must agree to the cent, and each row of the"
            " audit must be in its operator's signed log."
        )
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for fixture in OPERATORS:
            table.add_row(Text(fixture.operator_id), Text(fixture.about))
        self.write(text, table)
        self.print(f"Repeat this demo with --seed {seed}")

    @asynccontextmanager
    async def following(self, environment: Environment, *, bets: int) -> AsyncIterator[None]:
        """Show the progress while the block runs."""
        support = await asyncpg.connect(environment.dsn("demo_support"))
        # Nothing of the table stays: what follows is the whole last screen.
        live = Live(console=self.console, auto_refresh=False, transient=True) if self._is_live else None
        first_bet_s = self.elapsed_s

        async def repeat() -> None:
            while True:
                figures = await read_figures(environment, support)
                progress = Progress.of(figures.values(), bets=bets, elapsed_s=self.elapsed_s - first_bet_s)
                if live is not None:
                    live.update(self._view(environment, figures, progress), refresh=True)
                else:
                    retries = sum(row.retries for row in figures.values())
                    self.announce(f"{progress}; {retries} requests repeated")
                await asyncio.sleep(_LINE_S if live is None else _REDRAW_S)

        try:
            async with asyncio.TaskGroup() as tasks:
                if live is not None:
                    live.start()
                repeating = tasks.create_task(repeat(), name="screen")
                yield
                repeating.cancel()
        finally:
            if live is not None:
                live.stop()
            await support.close()

    def _view(self, environment: Environment, figures: Mapping[str, Figures], progress: Progress) -> Group:
        line = Table.grid(padding=(0, 2))
        line.add_row(ProgressBar(total=progress.bets, completed=progress.ended, width=_BAR_WIDTH), Text(str(progress)))
        down = [name for name, operator in environment.operators.items() if not operator.process.is_running]
        last = Text("the daemon is down", style="bold red") if not environment.daemon.is_running else Text()
        return Group(Text(), line, _table(figures, down=down, has_total=self.console.width >= _WIDTH_FOR_TOTAL), last)


def _table(figures: Mapping[str, Figures], *, down: Iterable[str], has_total: bool) -> Table:
    """One column for each operator, so that it fits into 80 characters."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for operator_id in figures:
        name = Text(f"{operator_id}: down", style="bold red") if operator_id in down else Text(operator_id)
        table.add_column(name, justify="right", min_width=13)
    if has_total:
        table.add_column("all", justify="right", min_width=13)

    def add(label: str, values: list[int], *, is_money: bool = False) -> None:
        shown = [*values, sum(values)] if has_total else values
        table.add_row(label, *(amount_text(value) if is_money else str(value) for value in shown))

    rows = figures.values()
    for label, state in (
        ("bets: placed, not answered yet", "placing"),
        ("open: the stake is debited", "open"),
        ("ending: last request sent", "closing"),
        ("closed: paid, lost or returned", "closed"),
        ("void: nothing was debited", "void"),
    ):
        add(label, [row.bets[state] for row in rows])
    table.add_section()
    add("callbacks: waiting", [row.backlog for row in rows])
    add("on their way", [row.in_flight for row in rows])
    add("repeated after a failure", [row.retries for row in rows])
    add("confirmed by the operator", [row.delivered for row in rows])
    add("to be reviewed by a person", [row.needs_review for row in rows])
    table.add_section()
    add(f"players' wallets, {CURRENCY}", [row.wallet for row in rows], is_money=True)
    return table
