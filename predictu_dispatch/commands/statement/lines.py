"""A statement as lines for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import time
from typing import TYPE_CHECKING, Any, Final

from predictu_dispatch.commands.output import (
    count,
    styled,
    table,
    terminal_columns,
    timestamp,
    wrapped,
)
from predictu_dispatch.core.printable import printable
from predictu_dispatch.reconciliation.statement import APART, CREDITS, DEBIT, SETTLED_AFTER, Kind
from predictu_dispatch.reconciliation.statement_csv import decimal_text

if TYPE_CHECKING:
    from predictu_dispatch.commands.statement.accounting import Accounting
    from predictu_dispatch.reconciliation.statement import Listing, Scope, Statement, Sum, Totals

SHOWN_MAX: Final = 10
"""Rows of each list on a terminal."""
JSON_ROWS_MAX: Final = 1_000
"""Rows of each list in JSON."""
_DAYS_OF_A_MONTH: Final = 31
_NAMES: Final = {
    "BET_MAKE": "debits",
    "BET_WIN": "wins",
    "BET_SELL": "sales",
    "BET_REFUND": "refunds",
    "BET_ROLLBACK": "rollbacks",
}
_STATES: Final = {"in_flight": "in flight", "ready": "being retried", "rejected": "rejected", "exhausted": "exhausted"}
_APART: Final = {
    Kind.UNCONFIRMED_ROLLBACK: "reversed; the debit was never confirmed",
    Kind.NOTHING_TO_REVERSE: "nothing to reverse; the debit was never confirmed",
    Kind.DEBIT_STANDING: "nothing to reverse, but the debit was confirmed: it stands",
}


def statement_lines(statement: Statement, accounting: Accounting) -> Iterator[str]:
    """The statement in as many columns as the terminal has."""
    scope = statement.scope
    yield from _head(scope, accounting)
    yield ""
    yield from _days(statement)
    yield ""
    yield from _methods(statement)
    yield ""
    yield from _unknown(statement.opening, scope, f"at the start, {_moment(scope.starts_at)}")
    if statement.opening.rows:
        yield ""
    yield from _unknown(statement.closing, scope, f"at the end, {_moment(scope.closes_at)}")
    yield from _apart(statement)


def not_finished(scope: Scope) -> str:
    """Why the statement may change, and when it is final."""
    final_at = _moment(scope.ends_at + SETTLED_AFTER)
    return f"The period is not finished: read at {_moment(scope.read_at)}, final from {final_at}."


def _head(scope: Scope, accounting: Accounting) -> Iterator[str]:
    period = f"{scope.first} to {scope.last}" if scope.last > scope.first else f"{scope.first}"
    starts = accounting.days.day_starts
    begins = "" if starts == time(0) else f", days from {starts:%H:%M}"
    yield styled(f"{scope.operator_id}, {scope.currency}, {period} {accounting.zone}{begins}", bold=True)
    yield f"{_moment(scope.starts_at)} to {_moment(scope.ends_at)}"
    if accounting.is_assumed:
        yield from wrapped(f"This host has no file of {scope.operator_id}: days of UTC; --zone names another zone.")
    if not scope.is_finished:
        yield from (styled(line, colour="yellow") for line in wrapped(not_finished(scope)))


def _days(statement: Statement) -> Iterator[str]:
    """One line for each accounting day; with the credits by method if they fit."""
    methods = (DEBIT, *CREDITS)
    named = list(_named_days(statement))
    whole = [
        ["day", "rows", *(_NAMES[method] for method in methods), "net"],
        *(
            [day, f"{one.rows:,}", *(_money(one[m].amount, statement) for m in methods), _net(one, statement)]
            for day, one in named
        ),
    ]
    lines = table(whole, right=range(1, len(whole[0])))
    if len(lines[0]) > terminal_columns():
        short = [
            ["day", "rows", "debits", "credits", "net for players"],
            *(
                [
                    day,
                    f"{one.rows:,}",
                    _money(one.debits, statement),
                    _money(one.credits, statement),
                    _net(one, statement),
                ]
                for day, one in named
            ),
        ]
        lines = table(short, right=range(1, len(short[0])))
    yield styled(lines[0], bold=True)
    yield from lines[1:-1]
    yield styled(lines[-1], bold=True)
    if left_out := len(statement.days) + 1 - len(named):
        yield f"{count(left_out, 'day')} without a movement {'is' if left_out == 1 else 'are'} left out."


def _named_days(statement: Statement) -> Iterator[tuple[str, Totals]]:
    """Every day of a month; of a longer period only those with movements."""
    for number, totals in enumerate(statement.days):
        if totals.rows or totals.unreadable or len(statement.days) <= _DAYS_OF_A_MONTH:
            yield statement.scope.day(number).isoformat(), totals
    yield "total", statement.total


def _methods(statement: Statement) -> Iterator[str]:
    """The total by method, and what it is for whom."""
    total = statement.total
    rows = [["total, " + statement.scope.currency, "rows", "amount"]]
    rows += [[_NAMES[DEBIT], *_sum(total[DEBIT], statement, sign=-1)]]
    rows += [[_NAMES[method], *_sum(total[method], statement)] for method in CREDITS]
    rows += [["net for players", f"{total.rows:,}", _net(total, statement)]]
    rows += [["net for the house", "", _signed(-total.net, statement)]]
    lines = table(rows, right=(1, 2))
    yield styled(lines[0], bold=True)
    yield from lines[1:]


def _sum(one: Sum, statement: Statement, *, sign: int = 1) -> list[str]:
    return [f"{one.rows:,}", _signed(sign * one.amount, statement)]


def _unknown(found: Listing, scope: Scope, when: str) -> Iterator[str]:
    if not found.rows:
        yield f"Unknown outcome {when}: none"
        return
    amounts = f"debits {_text(found.debits, scope)}, credits {_text(found.credits, scope)}"
    yield from (
        styled(line, bold=True)
        for line in wrapped(f"Unknown outcome {when}: {count(found.rows, 'callback')}, {amounts}")
    )
    yield from _listed(
        found, scope, [f"{_STATES[row['state']]} since {timestamp(row['since'])}" for row in found.shown]
    )


def _apart(statement: Statement) -> Iterator[str]:
    for kind in APART:
        found = statement.apart[kind]
        if found.rows:
            money = _text(found.credits, statement.scope)
            yield ""
            title = f"Not in the totals: {count(found.rows, 'rollback')} of {money}: {_APART[kind]}"
            yield from (styled(line, bold=True) for line in wrapped(title))
            notes = [f"confirmed {timestamp(row['confirmed_at'])}" for row in found.shown]
            yield from _listed(found, statement.scope, notes)


def _listed(found: Listing, scope: Scope, notes: Sequence[str]) -> Iterator[str]:
    """Two or three lines for each shown row, and how many there are more."""
    amounts = ["unreadable" if row["amount"] is None else _text(row["amount"], scope) for row in found.shown]
    cells = [[row["method"], amount, note] for row, amount, note in zip(found.shown, amounts, notes, strict=True)]
    for row, line in zip(found.shown, table(cells, right={1}), strict=True):
        yield f"  {line}".rstrip()
        yield from _ids(row)
    if found.rows > len(found.shown):
        yield f"  … and {found.rows - len(found.shown):,} more; --csv prints all"


def _ids(row: Any) -> Iterator[str]:  # noqa: ANN401 - a record of asyncpg
    """The ids, whole, because they are copied; on one line if they fit."""
    names = f"bet {printable(row['bet_id'])}  player {printable(row['player_id'])}"
    line = f"    {row['request_id']}  {names}"
    if len(line) <= terminal_columns():
        yield line
    else:
        yield f"    {row['request_id']}"
        yield f"    {names}"


def _net(totals: Totals, statement: Statement) -> str:
    return _signed(totals.net, statement)


def _signed(amount: int, statement: Statement) -> str:
    text = _money(amount, statement)
    return f"+{text}" if amount > 0 else text


def _money(amount: int, statement: Statement) -> str:
    return _grouped(amount, statement.scope)


def _text(amount: int, scope: Scope) -> str:
    return f"{_grouped(amount, scope)} {scope.currency}"


def _grouped(amount: int, scope: Scope) -> str:
    whole, dot, part = decimal_text(amount, scope.minor_digits).partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{int(digits):,}{dot}{part}"


def _moment(at: Any) -> str:  # noqa: ANN401 - a datetime
    return timestamp(at, timespec="seconds")


def as_json(statement: Statement, accounting: Accounting) -> dict[str, Any]:
    """The statement for --json; amounts are subunits. Its lists have at most 1,000 callbacks."""
    scope = statement.scope
    return {
        "operator_id": scope.operator_id,
        "currency": scope.currency,
        "minor_digits": scope.minor_digits,
        "from": scope.first.isoformat(),
        "until": scope.last.isoformat(),
        "time_zone": accounting.zone,
        "day_starts": f"{accounting.days.day_starts:%H:%M}",
        "starts_at": scope.starts_at,
        "ends_at": scope.ends_at,
        "read_at": scope.read_at,
        "is_finished": scope.is_finished,
        "days": [
            {"day": scope.day(number).isoformat(), "starts_at": scope.edges[number], **_totals(one)}
            for number, one in enumerate(statement.days)
        ],
        "total": _totals(statement.total),
        "opening": {"at": scope.starts_at, **_listing(statement.opening)},
        "closing": {"at": scope.closes_at, **_listing(statement.closing)},
        "apart": {kind.value: _listing(statement.apart[kind]) for kind in APART},
    }


def _totals(one: Totals) -> dict[str, Any]:
    return {
        "rows": one.rows,
        "unreadable": one.unreadable,
        "debits": one.debits,
        "credits": one.credits,
        "net_for_players": one.net,
        "net_for_house": -one.net,
        "by_method": {
            method.value: {"rows": each.rows, "amount": each.amount} for method, each in one.by_method.items()
        },
    }


def _listing(found: Listing) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "unreadable": found.unreadable,
        "debits": found.debits,
        "credits": found.credits,
        "is_shortened": found.rows > len(found.shown),
        "callbacks": [dict(row) for row in found.shown],
    }
