"""The demo's last screen: every check, the money of each operator, and the verdict.

It fits into 80 columns, and into 24 lines with the prompt after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rich.table import Table
from rich.text import Text

from predictu_dispatch.books_check.check import CURRENCY, Check, amount_text
from predictu_dispatch.books_check.money_checks import WalletSums
from predictu_dispatch.demo.screen import Screen

_FAULTS_SHOWN_MAX: Final = 10


def show_proof(screen: Screen, checks: Iterable[Check], sums: Mapping[str, WalletSums], sentence: str) -> None:
    """Show the proof; checks that do not hold are listed with their faults."""
    checks = list(checks)
    of_wallets = {name: next(check for check in checks if check.name.startswith(f"{name}: ")) for name in sums}
    screen.write(Text(), _checks([check for check in checks if check not in of_wallets.values()]))
    screen.write(Text(), _sums(sums, of_wallets), Text())
    for check in checks:
        for fault in check.faults[:_FAULTS_SHOWN_MAX]:
            screen.print(f"  {fault}")
        if len(check.faults) > _FAULTS_SHOWN_MAX:
            screen.print(f"  … and {len(check.faults) - _FAULTS_SHOWN_MAX} more: {check.name}")
    holds = all(check.holds for check in checks)
    screen.write(Text(sentence, style="bold green" if holds else "bold red"))


def _checks(checks: Iterable[Check]) -> Table:
    table = Table.grid(padding=(0, 2))
    for check in checks:
        figures = check.figures if check.rows else f"nothing to compare: {check.figures}"
        table.add_row(_mark(check), Text(check.name), Text(figures, overflow="fold"))
    return table


def _sums(sums: Mapping[str, WalletSums], checks: Mapping[str, Check]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column(f"wallets, {CURRENCY}", no_wrap=True)
    for heading in ("opening", "- debits", "+ credits", "= expected", "found"):
        table.add_column(heading, justify="right", min_width=10)
    for operator_id, row in sums.items():
        amounts = (row.opening, row.debits, row.credits, row.expected, row.wallets)
        table.add_row(_mark(checks[operator_id]), Text(operator_id), *map(amount_text, amounts))
    return table


def _mark(check: Check) -> Text:
    return Text("ok", style="green") if check.holds else Text("FAILED", style="bold red")
