"""Reads one page of hits: which entries of an index, then their rows. Nothing is ever scanned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from predictu_dispatch.commands.invocation import fail
from predictu_dispatch.commands.output import Row, timestamp
from predictu_dispatch.core.request_id import Beginning
from predictu_dispatch.core.search_input import Amount
from predictu_dispatch.core.search_page import Cursor, Found, complete, page_of, per_source
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_ROWS_READ: Final = 100
"""More rows than a page has, because a bet is never split between two pages."""
_NEEDED_INDEXES: Final = {
    "player": ("bet_of_player",),
    "bet": (),
    "transaction": ("callback_of_transaction",),
    "request": (),
    "amount": ("bet_of_stake", "callback_of_payout"),
    "time": ("bet_placed",),
}
"""By what is searched for."""
_BET_QUERIES: Final = {"player": "find_bets_by_player", "bet": "find_bets_by_id", "time": "find_bets_by_time"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is searched for: at most one of player, bet, transaction, request and amount."""

    operator: str | None
    player: str | None
    bet: str | None
    transaction: str | None
    request: Beginning | None
    amount: Amount | None
    since: datetime | None
    until: datetime | None
    state: str | None
    method: str | None
    after: Cursor | None
    rows_max: int

    @property
    def kind(self) -> str:
        """Which of them it is; `time` if none."""
        names = ("player", "bet", "transaction", "request", "amount")
        return next((name for name in names if getattr(self, name) is not None), "time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page: its rows, where the next one begins, and what was searched."""

    rows: list[Row]
    next: Cursor | None
    back_to: datetime | None
    has_more_ids: bool
    """More request ids have this beginning than a page shows."""
    operators: list[str]
    unknown_operator: str | None
    currencies: list[str]
    """The currencies in which an amount was searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of the time before the oldest bet."""

    oldest_at: datetime | None = None
    removed: tuple[str, ...] = ()
    """What retention removed of that id, a sentence each."""


async def read_past(db: Database, search: Search, operators: list[str]) -> Past:
    """Read when the oldest bet was placed, and what was removed of the searched id."""
    removed: list[str] = []
    if search.bet is not None:
        for row in await db.fetch(query("find_removed_bets"), operators, search.bet):
            name = f"Bet {search.bet} of operator {row['operator_id']}"
            removed.append(f"{name} ended {row['state']}; retention removed it at {timestamp(row['removed_at'])}.")
    if search.request is not None:
        arguments = (search.request.first, search.request.last, search.operator)
        for row in await db.fetch(query("removed_with_beginning"), *arguments):
            name = f"{row['method']} {row['request_id']} of operator {row['operator_id']}"
            removed.append(f"{name} ended {row['state']}; retention removed it at {timestamp(row['removed_at'])}.")
    (oldest,) = await db.fetch(query("find_oldest_bet"), operators)
    return Past(oldest_at=oldest["at"], removed=tuple(removed))


async def read_page(db: Database, search: Search) -> Page:
    """Read the page; ends the command with exit code 1 if an index is missing."""
    named = await db.fetch(query("find_operators"), search.operator, list(_NEEDED_INDEXES[search.kind]))
    missing = named[0]["missing_indexes"] if named else []
    if missing:
        fail(
            f"the index {' and '.join(missing)} is missing or not complete",
            hint="Run `predictu-dispatch migrate`; it builds the search indexes while callbacks are delivered.",
        )
    operators = [row["operator_id"] for row in named]
    currencies: list[str] = []
    limit = search.rows_max + 1
    match search.kind:
        case "request":
            found = await _requests(db, search, limit)
        case "amount":
            found, currencies, limit = await _amounts(db, search, operators)
        case _:
            limit = _limit(search, len(operators))
            found = await _entries(db, search, operators, limit)
    entries, has_more = complete(found, limit)
    if search.kind == "request":
        entries, has_more = found[: search.rows_max], False
    end = entries[-1].cursor if has_more else None
    # A bet whose payout equals its stake was found twice.
    unique: dict[tuple[str, str], Found] = {}
    for one in entries:
        unique.setdefault((one.cursor.operator_id, one.cursor.id), one)
    entries = list(unique.values())
    rows = await _rows(db, search, entries)
    cut = page_of([row["number"] for row in rows], search.rows_max, search.rows_max + _ROWS_READ)
    if cut < len(rows):
        end = entries[rows[cut - 1]["number"] - 1].cursor
    unknown = search.operator if named and not named[0]["is_known"] else None
    return Page(
        rows=rows[:cut],
        next=end,
        back_to=end.at if end else None,
        has_more_ids=search.kind == "request" and len(found) > search.rows_max,
        operators=operators,
        unknown_operator=unknown,
        currencies=currencies,
    )


def _limit(search: Search, sources: int) -> int:
    is_filtered = search.state is not None or search.method is not None
    return per_source(search.rows_max + 1, sources, is_filtered=is_filtered)


def _window(search: Search) -> tuple[Any, ...]:
    after = search.after
    return (search.since, search.until, *((after.at, after.operator_id, after.id) if after else (None, None, None)))


async def _entries(db: Database, search: Search, operators: list[str], limit: int) -> list[Found]:
    """The bets of a player, with an id or in a time, or the callbacks with a transaction id."""
    key = {"player": search.player, "bet": search.bet, "transaction": search.transaction, "time": None}[search.kind]
    statement = _BET_QUERIES.get(search.kind, "find_by_transaction")
    rows = await db.fetch(query(statement), operators, key, *_window(search), limit)
    return [_found(row) for row in rows]


async def _amounts(db: Database, search: Search, operators: list[str]) -> tuple[list[Found], list[str], int]:
    assert search.amount is not None  # noqa: S101 - the kind says so
    wanted = [
        (row["operator_id"], row["currency"], subunits)
        for row in await db.fetch(query("find_currencies"), operators)
        for subunits in search.amount.in_subunits(row["currency"], row["minor_digits"])
    ]
    limit = _limit(search, 2 * len(wanted))
    columns = [list(column) for column in zip(*wanted, strict=True)] or [[], [], []]
    rows = await db.fetch(query("find_bets_by_amount"), *columns, *_window(search), limit)
    return [_found(row) for row in rows], sorted({currency for _, currency, _ in wanted}), limit


async def _requests(db: Database, search: Search, limit: int) -> list[Found]:
    assert search.request is not None  # noqa: S101 - the kind says so
    arguments = (search.request.first, search.request.last, search.operator, limit)
    rows = await db.fetch(query("requests_with_beginning"), *arguments)
    return [
        Found(row["operator_id"], Cursor(row["created_at"], row["operator_id"], str(row["request_id"]))) for row in rows
    ]


def _found(row: Row) -> Found:
    identifier = row["bet_id"] if "bet_id" in row.keys() else row["request_id"]  # noqa: SIM118 - a record
    return Found(row["source"], Cursor(row["at"], row["operator_id"], identifier))


async def _rows(db: Database, search: Search, entries: Sequence[Found]) -> list[Row]:
    owners = [one.cursor.operator_id for one in entries]
    ids = [one.cursor.id for one in entries]
    read_max = search.rows_max + _ROWS_READ
    if search.kind in ("transaction", "request"):
        keys: list[Any] = [UUID(one) for one in ids]
        rows = await db.fetch(query("find_rows_of_requests"), owners, keys, search.state, search.method, read_max)
    else:
        rows = await db.fetch(query("find_rows_of_bets"), owners, ids, search.state, search.method, read_max)
    return [dict(row) for row in rows]
