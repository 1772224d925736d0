"""What the demo shows: a live table on a terminal, lines elsewhere, and the proof."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import asyncpg
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from predictu_dispatch.books_check.check import CURRENCY, Check, amount_text
from predictu_dispatch.books_check.ledgers import PredictuLedger
from predictu_dispatch.demo.environment import Environment
from predictu_dispatch.embedded_postgres.binaries import find_binaries

_REDRAW_S: Final = 0.4
_LINE_S: Final = 3.0
_WIDTH_WITHOUT_TERMINAL: Final = 120
_FAULTS_SHOWN_MAX: Final = 10

_CALLBACKS: Final = """
    select operator_id, count(*) filter (where state in ('waiting', 'ready')) as backlog,
           count(*) filter (where state = 'in_flight') as in_flight,
           coalesce(sum(greatest(attempts - 1, 0)), 0)::bigint as retries,
           count(*) filter (where state = 'delivered') as delivered,
           count(*) filter (where review_since is not null) as needs_review
      from predictu_dispatch.callback group by operator_id
"""
_BETS: Final = "select operator_id, state, count(*) as bets from predictu_dispatch.bet group by operator_id, state"


class _Figures(NamedTuple):
    """One operator's column; `wallet` is the sum of its players' balances in subunits."""

    bets: Counter[str]
    wallet: int
    backlog: int = 0
    in_flight: int = 0
    retries: int = 0
    delivered: int = 0
    needs_review: int = 0


async def _read_figures(environment: Environment, support: asyncpg.Connection[asyncpg.Record]) -> dict[str, _Figures]:
    callbacks = {row[0]: row[1:] for row in map(tuple, await support.fetch(_CALLBACKS))}
    bets: dict[str, Counter[str]] = {operator_id: Counter() for operator_id in environment.operators}
    for operator_id, state, count in await support.fetch(_BETS):
        bets[operator_id][state] = count
    return {
        operator_id: _Figures(
            bets[operator_id], await asyncio.to_thread(_wallet_sum, operator.wallet), *callbacks.get(operator_id, ())
        )
        for operator_id, operator in environment.operators.items()
    }


def _wallet_sum(wallet: Path) -> int:
    with closing(sqlite3.connect(f"{wallet.absolute().as_uri()}?mode=ro", uri=True)) as sql:
        total: int = sql.execute("select coalesce(sum(balance), 0) from players").fetchone()[0]
        return total


class Screen:
    """Writes to one stream: a live table if it is a terminal, otherwise lines and a final table."""

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
        self._console = console or Console(file=stream, width=width, highlight=False)
        self._is_live = self._console.is_terminal and not self._console.record and not os.environ.get("CI")

    def print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    @asynccontextmanager
    async def following(self, environment: Environment) -> AsyncIterator[None]:
        """Show the environment while the block runs, and the final table after it."""
        support = await asyncpg.connect(environment.dsn("demo_support"))
        live = Live(console=self._console, auto_refresh=False) if self._is_live else None

        async def show() -> None:
            figures = await _read_figures(environment, support)
            if live is not None:
                live.update(_table(environment, figures), refresh=True)
            else:
                self._print_figures(environment, figures)

        async def repeat() -> None:
            while True:
                await show()
                await asyncio.sleep(_LINE_S if live is None else _REDRAW_S)

        try:
            with live or nullcontext():
                async with asyncio.TaskGroup() as tasks:
                    repeating = tasks.create_task(repeat(), name="screen")
                    yield
                    repeating.cancel()
                await show()
            if live is None:
                self._console.print("", _table(environment, await _read_figures(environment, support)), sep="\n")
        finally:
            await support.close()

    def _print_figures(self, environment: Environment, figures: dict[str, _Figures]) -> None:
        while environment.notices:
            self.print(environment.notices.pop(0))
        parts = [
            f"{operator_id} {row.bets['closed'] + row.bets['void']} of {row.bets.total()}"
            for operator_id, row in figures.items()
        ]
        retries = sum(row.retries for row in figures.values())
        self.print(f"{environment.elapsed_s:5.1f} s  bets ended: {', '.join(parts)}; {retries} retries")

    def show_checks(self, checks: list[Check], sentence: str, *, holds: bool) -> None:
        table = Table(title="Proof", title_justify="left", box=None, padding=(0, 1))
        table.add_column("")
        table.add_column("what must hold", overflow="fold")
        table.add_column("figures", overflow="fold")
        for check in checks:
            mark = Text("ok", style="green") if check.holds else Text("FAILED", style="bold red")
            figures = check.figures if check.rows else f"nothing to compare: {check.figures}"
            table.add_row(mark, Text(check.name), Text(figures))
        self._console.print("", table, "", sep="\n")
        for check in checks:
            for fault in check.faults[:_FAULTS_SHOWN_MAX]:
                self.print(f"  {fault}")
            if len(check.faults) > _FAULTS_SHOWN_MAX:
                self.print(f"  … and {len(check.faults) - _FAULTS_SHOWN_MAX} more: {check.name}")
        self._console.print(Text(sentence, style="bold green" if holds else "bold red"))


def _table(environment: Environment, figures: dict[str, _Figures]) -> Group:
    """One column for each operator, so that it fits into 80 characters; the notices below it."""
    table = Table(title=f"predictu-dispatch demo, {environment.elapsed_s:.0f} s", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for operator_id, operator in environment.operators.items():
        name = operator_id if operator.process.is_running else Text(f"{operator_id}: down", style="bold red")
        table.add_column(name, justify="right", min_width=13)
    rows = figures.values()
    for state in ("placing", "open", "closing", "closed", "void"):
        table.add_row(f"bets {state}", *(str(row.bets[state]) for row in rows))
    table.add_section()
    table.add_row("callbacks waiting or ready", *(str(row.backlog) for row in rows))
    table.add_row("in flight", *(str(row.in_flight) for row in rows))
    table.add_row("retries", *(str(row.retries) for row in rows))
    table.add_row("delivered", *(str(row.delivered) for row in rows))
    table.add_row("needs review", *(str(row.needs_review) for row in rows))
    table.add_section()
    table.add_row(f"players' wallets, {CURRENCY}", *(amount_text(row.wallet) for row in rows))
    lines = [Text(notice) for notice in environment.notices]
    if not environment.daemon.is_running:
        lines.append(Text("the daemon is down", style="bold red"))
    return Group(table, *lines)


def inspection_lines(environment: Environment, predictu: PredictuLedger) -> Iterator[str]:
    """How to inspect a running demo: commands to copy into a shell, and addresses."""
    installed = shutil.which("predictu-dispatch", path=str(Path(sys.executable).parent))
    command = shlex.quote(installed) if installed else f"{shlex.quote(sys.executable)} -m predictu_dispatch"
    psql = find_binaries(os.environ) / "psql"
    yield "Everything keeps running until Ctrl-C. To inspect it:"
    yield f"  database       {psql if psql.exists() else 'psql'} {shlex.quote(environment.dsn('demo_support'))}"
    for review in predictu.reviews[:1]:
        config = shlex.quote(str(environment.config))
        yield f"  one bet        {command} show --config {config} --bet {review.operator_id} {review.bet_id}"
    yield f"  metrics        http://127.0.0.1:{environment.http_port}/metrics"
    for operator_id, operator in environment.operators.items():
        yield f"  {operator_id:14} {operator.admin_url}/_admin/ledger"
    yield f"  files, logs    {environment.folder}"
