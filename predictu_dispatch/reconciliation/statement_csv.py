"""The rows of a statement as texts for CSV.

Every value is exact, so that a program can join and add it: no text is changed, also if it begins
with = + - or @, as a formula does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from predictu_dispatch.reconciliation.statement import Kind, Scope, rows_of

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.statement_reader import StatementReader

COLUMNS: Final = (
    "kind",
    "accounting_day",
    "confirmed_at",
    "request_id",
    "bet_id",
    "player_id",
    "currency",
    "direction",
    "amount",
    "amount_subunits",
    "method",
    "operator_transaction_id",
    "unknown_since",
    "state",
)
AMOUNT: Final = COLUMNS.index("amount")
"""The column that is empty if the amount cannot be read."""
_UNKNOWN: Final = (Kind.OPENING, Kind.CLOSING)


async def csv_batches(reader: StatementReader, scope: Scope) -> AsyncIterator[Sequence[Sequence[str]]]:
    """Yield the header and then all rows, in batches, one kind after another."""
    yield [COLUMNS]
    async for kind, rows in rows_of(reader, scope):
        if kind in _UNKNOWN:
            yield list(_unknown(kind, rows, scope))
        else:
            yield list(_confirmed(kind, rows, scope))


def _unknown(kind: Kind, rows: Sequence[Any], scope: Scope) -> Iterator[Sequence[str]]:
    for row in rows:
        yield (
            kind.value,
            "",
            "",
            *_named(row, scope),
            row["method"],
            "",
            utc_text(row["since"]),
            row["state"],
        )


def _confirmed(kind: Kind | None, rows: Sequence[Any], scope: Scope) -> Iterator[Sequence[str]]:
    """They come in the order of `confirmed_at`, so the day only moves on."""
    edges, number = scope.edges, 0
    day = scope.day(number).isoformat()
    for row in rows:
        at = row["confirmed_at"]
        while at >= edges[number + 1]:
            number += 1
            day = scope.day(number).isoformat()
        yield (
            kind.value if kind is not None else row["kind"],
            day,
            utc_text(at),
            *_named(row, scope),
            row["method"],
            row["operator_transaction_id"] or "",
            "",
            "",
        )


def _named(row: Any, scope: Scope) -> tuple[str, ...]:  # noqa: ANN401 - a record of asyncpg
    amount = row["amount"]
    return (
        str(row["request_id"]),
        row["bet_id"],
        row["player_id"],
        scope.currency,
        row["direction"],
        "" if amount is None else decimal_text(amount, scope.minor_digits),
        "" if amount is None else str(amount),
    )


def decimal_text(subunits: int, minor_digits: int) -> str:
    """An amount as a number: 1250 is `12.50` with two digits; without thousands' separators."""
    sign, digits = "-" if subunits < 0 else "", str(abs(subunits)).rjust(minor_digits + 1, "0")
    return f"{sign}{digits[:-minor_digits]}.{digits[-minor_digits:]}" if minor_digits else f"{sign}{digits}"


def utc_text(at: datetime) -> str:
    """A time in UTC to the microsecond, so that rows and accounting days are in its order."""
    return f"{at.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
