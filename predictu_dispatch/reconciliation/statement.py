"""An operator's statement: movements by accounting day, and unknown outcomes at its start and end.

README.md in this folder defines its parts. Memory is flat: rows are summed and
counted as they come, and only the first ones of a list are kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from predictu_dispatch.core.methods import Method

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.statement_reader import StatementReader

DEBIT: Final = Method.BET_MAKE
CREDITS: Final = (Method.BET_WIN, Method.BET_SELL, Method.BET_REFUND, Method.BET_ROLLBACK)
MOVING: Final = (DEBIT, *CREDITS)
"""The methods that move money."""
SETTLED_AFTER: Final = timedelta(minutes=10)
"""What happened before a moment is in the database this much later: the longest attempt takes five
minutes, and a transaction commits after the time that it recorded."""


class Kind(StrEnum):
    """What a row of a statement is."""

    OPENING = "opening"
    """Its outcome was unknown at the start of the period."""
    MOVEMENT = "movement"
    UNCONFIRMED_ROLLBACK = "unconfirmed_rollback"
    """Reversed, and the debit was never confirmed: no row of `ledger`."""
    NOTHING_TO_REVERSE = "nothing_to_reverse"
    """The operator had no debit to reverse, and none was confirmed: no money moved."""
    DEBIT_STANDING = "debit_standing"
    """The operator had nothing to reverse, and the debit was confirmed: the player may be owed."""
    CLOSING = "closing"
    """Its outcome was unknown at the end of the period."""


APART: Final = (Kind.UNCONFIRMED_ROLLBACK, Kind.NOTHING_TO_REVERSE, Kind.DEBIT_STANDING)
"""Delivered rollbacks that are no movement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a statement is about, and the moment at which it was read."""

    operator_id: str
    currency: str
    minor_digits: int
    first: date
    last: date
    edges: Sequence[datetime]
    """The first moments of the accounting days, and the period's end; in UTC."""
    read_at: datetime

    @property
    def starts_at(self) -> datetime:
        return self.edges[0]

    @property
    def ends_at(self) -> datetime:
        return self.edges[-1]

    @property
    def is_finished(self) -> bool:
        """True if nothing can be added to the period any more."""
        return self.ends_at + SETTLED_AFTER <= self.read_at

    @property
    def closes_at(self) -> datetime:
        """The moment of the closing list."""
        return min(self.ends_at, self.read_at)

    def day(self, number: int) -> date:
        """The accounting day with this number, from 0."""
        return self.first + timedelta(days=number)


@dataclass(slots=True)
class Sum:
    """A number of rows, their amount in subunits, and of how many rows it cannot be read."""

    rows: int = 0
    amount: int = 0
    unreadable: int = 0

    def add(self, rows: int, amount: int, unreadable: int) -> None:
        self.rows += rows
        self.amount += amount
        self.unreadable += unreadable


class Totals:
    """The sums of one accounting day, or of all of them, by method."""

    def __init__(self) -> None:
        self.by_method = {method: Sum() for method in MOVING}

    def __getitem__(self, method: Method) -> Sum:
        return self.by_method[method]

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.by_method.values())

    @property
    def unreadable(self) -> int:
        return sum(one.unreadable for one in self.by_method.values())

    @property
    def debits(self) -> int:
        return self.by_method[DEBIT].amount

    @property
    def credits(self) -> int:
        return sum(self.by_method[method].amount for method in CREDITS)

    @property
    def net(self) -> int:
        """The effect on players' wallets; the house has the opposite."""
        return self.credits - self.debits


@dataclass(slots=True)
class Listing:
    """A list of callbacks: its sums, and the first rows of it."""

    rows: int = 0
    debits: int = 0
    credits: int = 0
    unreadable: int = 0
    shown: list[Any] = field(default_factory=list)

    def add(self, row: Any, shown_max: int) -> None:  # noqa: ANN401 - a record of asyncpg
        self.rows += 1
        if row["amount"] is None:
            self.unreadable += 1
        elif row["direction"] == "debit":
            self.debits += row["amount"]
        else:
            self.credits += row["amount"]
        if len(self.shown) < shown_max:
            self.shown.append(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """All sums of a statement, and the first rows of its lists."""

    scope: Scope
    days: Sequence[Totals]
    total: Totals
    opening: Listing
    closing: Listing
    apart: dict[Kind, Listing]

    @property
    def unreadable(self) -> int:
        """Rows whose amount is missing in the sums."""
        return self.total.unreadable + self.opening.unreadable + self.closing.unreadable


async def read_statement(reader: StatementReader, scope: Scope, *, shown_max: int) -> Statement:
    """Return the statement; each of its lists has at most `shown_max` rows, and counts all."""
    days = [Totals() for _ in scope.edges[1:]]
    total = Totals()
    for row in await reader.fetch("statement_totals", scope.operator_id, scope.currency, list(scope.edges)):
        method = Method(row["method"])
        for totals in (days[row["day"] - 1], total):
            totals[method].add(row["movements"], int(row["amount"]), row["unreadable"])
    lists: dict[Kind, Listing] = {kind: Listing() for kind in Kind if kind is not Kind.MOVEMENT}
    for kinds in ((Kind.OPENING,), APART, (Kind.CLOSING,)):
        async for kind, rows in rows_of(reader, scope, kinds):
            for row in rows:
                lists[kind or Kind(row["kind"])].add(row, shown_max)
    return Statement(
        scope=scope,
        days=days,
        total=total,
        opening=lists[Kind.OPENING],
        closing=lists[Kind.CLOSING],
        apart={kind: lists[kind] for kind in APART},
    )


async def rows_of(
    reader: StatementReader, scope: Scope, kinds: Sequence[Kind] = tuple(Kind)
) -> AsyncIterator[tuple[Kind | None, Sequence[Any]]]:
    """Yield the rows of these kinds in batches; those of APART name their kind themselves."""
    of, period = (scope.operator_id, scope.currency), (scope.starts_at, scope.ends_at)
    parts: tuple[tuple[Kind, Kind | None, str, tuple[datetime, ...]], ...] = (
        (Kind.OPENING, Kind.OPENING, "statement_unknown", (scope.starts_at,)),
        (Kind.MOVEMENT, Kind.MOVEMENT, "statement_movements", period),
        (APART[0], None, "statement_rollbacks", period),
        (Kind.CLOSING, Kind.CLOSING, "statement_unknown", (scope.closes_at,)),
    )
    for wanted, kind, name, moments in parts:
        if wanted in kinds:
            async for batch in reader.rows(name, *of, *moments):
                yield kind, batch
