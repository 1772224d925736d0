"""All that is shown: a live table on a terminal, plain lines elsewhere, and the proof. Only this module knows rich."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TextIO

import asyncpg
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from predictu_dispatch.demo.check import units
from predictu_dispatch.demo.proof import Proof
from predictu_dispatch.demo.snapshot import BET_STATES, OperatorFigures, take_snapshot
from predictu_dispatch.demo.stage import Stage

_REDRAW_S: Final = 0.4
_LINE_S: Final = 3.0
_WIDTH_WITHOUT_TERMINAL: Final = 150
_FAULTS_SHOWN_MAX: Final = 10

Figures = Mapping[str, OperatorFigures]


class View:
    """Writes to one stream; whether that is a terminal decides between a table that moves and lines that stay."""

    def __init__(self, stream: TextIO) -> None:
        self._is_live = stream.isatty() and not os.environ.get("CI")
        self._console = Console(
            file=stream, width=None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False
        )

    def say(self, text: str) -> None:
        """One line for a person."""
        self._console.print(text, markup=False, soft_wrap=True)

    @asynccontextmanager
    async def following(self, stage: Stage) -> AsyncIterator[None]:
        """The stage is shown while the block runs, and once more after it."""
        support = await asyncpg.connect(stage.dsn("demo_support"))
        try:
            if not self._is_live:
                async with _repeating(_LINE_S, lambda figures: self._print_lines(stage, figures), stage, support):
                    yield
                return
            with Live(console=self._console, auto_refresh=False, transient=False) as live:
                async with _repeating(
                    _REDRAW_S, lambda figures: live.update(_table(stage, figures), refresh=True), stage, support
                ):
                    yield
        finally:
            await support.close()

    def _print_lines(self, stage: Stage, figures: Figures) -> None:
        while stage.notices:
            self.say(stage.notices.pop(0))
        parts = [
            f"{operator_id}: {row.bets.total()} bets, {row.bets['closed'] + row.bets['void']} over, "
            f"backlog {row.backlog}, in flight {row.in_flight}, retries {row.retries}"
            for operator_id, row in figures.items()
        ]
        self.say(f"{stage.elapsed_s:5.1f} s  " + "; ".join(parts))

    def show_proof(self, proof: Proof) -> None:
        """The paths, the reviews, the checks with their numbers and faults, and the sentence."""
        self._console.print(_paths_table(proof))
        self._console.print(_reviews_table(proof))
        checks = Table(title="The proof", title_justify="left", expand=False)
        for column in ("", "what must hold", "figures"):
            checks.add_column(column, overflow="fold")
        for check in proof.checks:
            mark = Text("yes", style="green") if check.holds else Text("NO", style="bold red")
            checks.add_row(
                mark,
                escape(check.name),
                escape(check.figures if check.rows else f"nothing to compare; {check.figures}"),
            )
        self._console.print(checks)
        for check in proof.checks:
            for fault in check.faults[:_FAULTS_SHOWN_MAX]:
                self.say(f"  {fault}")
            if len(check.faults) > _FAULTS_SHOWN_MAX:
                self.say(f"  … and {len(check.faults) - _FAULTS_SHOWN_MAX} more: {check.name}")
        self._console.print(Text(proof.sentence, style="bold green" if proof.holds else "bold red"), soft_wrap=True)


@asynccontextmanager
async def _repeating(
    interval_s: float,
    show: Callable[[Figures], None],
    stage: Stage,
    support: asyncpg.Connection[asyncpg.Record],
) -> AsyncIterator[None]:
    wallets = {operator_id: operator.wallet for operator_id, operator in stage.operators.items()}

    async def repeat() -> None:
        while True:
            show(await take_snapshot(support, wallets))
            await asyncio.sleep(interval_s)

    async with asyncio.TaskGroup() as tasks:
        repeating = tasks.create_task(repeat(), name="live view")
        yield
        repeating.cancel()
    show(await take_snapshot(support, wallets))


def _table(stage: Stage, figures: Figures) -> Group:
    """One column for each operator, so that it fits into 80 characters; below it what was killed and what came back."""
    table = Table(title=f"predictu-dispatch demo, {stage.elapsed_s:.0f} s", title_justify="left")
    table.add_column("")
    for operator_id, operator in stage.operators.items():
        is_up = operator.child.is_running
        table.add_column(
            operator_id if is_up else Text(f"{operator_id}: down", style="bold red"), justify="right", min_width=13
        )
    rows = figures.values()
    for state in BET_STATES:
        table.add_row(f"bets {state}", *(str(row.bets[state]) for row in rows))
    table.add_section()
    table.add_row("callbacks waiting or due", *(str(row.backlog) for row in rows))
    table.add_row("in flight", *(str(row.in_flight) for row in rows))
    table.add_row("retries", *(str(row.retries) for row in rows))
    table.add_row("delivered", *(str(row.delivered) for row in rows))
    table.add_row("needs review", *(str(row.needs_review) for row in rows))
    table.add_section()
    table.add_row("in the players' wallets", *(units(row.wallet) for row in rows))
    lines = [Text(notice) for notice in stage.notices]
    if not stage.daemon.is_running:
        lines.append(Text("the daemon is dead", style="bold red"))
    return Group(table, *lines)


def _paths_table(proof: Proof) -> Table:
    table = Table(title="Paths of a bet's life, and how many bets took each", title_justify="left")
    table.add_column("path", overflow="fold")
    table.add_column("bets", justify="right")
    for path, count in proof.paths.items():
        table.add_row(escape(path), str(count) if count else Text("never", style="bold red"))
    return table


def _reviews_table(proof: Proof) -> Table:
    table = Table(title="Needs review", title_justify="left")
    for column in ("operator", "bet", "method", "state", "reason"):
        table.add_column(column, overflow="fold")
    for review in proof.reviews:
        table.add_row(review.operator_id, review.bet_id, review.method, review.state, escape(review.reason))
    return table
