"""The books of both sides, read apart: what Predictu believes, from Postgres; what operators did, from their SQLite.

Neither reading passes through the daemon's code or the operator's: plain statements on the tables themselves, in one
transaction each, so that every book is of one moment.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg

BetKey = tuple[str, str]
CallbackKey = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BetRow:
    """A bet in Postgres."""

    operator_id: str
    bet_id: str
    state: str
    player_id: str
    amount: int
    placement_request_id: str
    terminal_request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRow:
    """A callback in Postgres; `amount` is that of its params, None where it carries none."""

    operator_id: str
    request_id: str
    method: str
    bet_id: str | None
    state: str
    reason: str | None
    effect: str
    attempts: int
    amount: int | None
    player_id: str | None
    balance: int | None
    created_at: datetime
    finished_at: datetime | None
    retry_stopped: bool
    in_review: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """A row of the audit."""

    operator_id: str
    request_id: str
    method: str
    attempt: int
    evidence: str
    verdict: str
    reason: str | None
    started_at: datetime
    finished_at: datetime
    request_body: str | None
    is_duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRow:
    """A row of needs_review."""

    operator_id: str
    request_id: str
    method: str
    bet_id: str | None
    state: str
    reason: str


@dataclass(slots=True, kw_only=True)
class PredictuBooks:
    """Predictu's side."""

    bets: tuple[BetRow, ...]
    callbacks: tuple[CallbackRow, ...]
    attempts: tuple[AttemptRow, ...]
    reviews: tuple[ReviewRow, ...]
    _of_bet: dict[BetKey, list[CallbackRow]] = field(init=False)
    _of_callback: dict[CallbackKey, list[AttemptRow]] = field(init=False)

    def __post_init__(self) -> None:
        self._of_bet, self._of_callback = defaultdict(list), defaultdict(list)
        for callback in self.callbacks:
            if callback.bet_id is not None:
                self._of_bet[callback.operator_id, callback.bet_id].append(callback)
        for attempt in self.attempts:
            self._of_callback[attempt.operator_id, attempt.request_id].append(attempt)

    def callbacks_of(self, bet: BetRow) -> list[CallbackRow]:
        """The bet's callbacks, oldest first."""
        return self._of_bet.get((bet.operator_id, bet.bet_id), [])

    def attempts_of(self, callback: CallbackRow) -> list[AttemptRow]:
        """The callback's audit rows, by number."""
        return self._of_callback.get((callback.operator_id, callback.request_id), [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A row of an operator's ledger; `amount` is what it did to the balance."""

    request_id: str
    method: str
    bet_id: str
    player_id: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorBook:
    """An operator's side: balances by player, verified bodies by request_id, and how many came without a signature."""

    operator_id: str
    balances: dict[str, int]
    bookings: tuple[Booking, ...]
    arrivals: dict[str, list[bytes]]
    unverified: int


_CALLBACKS: Final = """
    select operator_id, request_id, method, bet_id, state, reason, effect, attempts,
           (params ->> 'amount')::bigint as amount, params ->> 'player_id' as player_id, balance,
           created_at, finished_at, retry_stopped,
           review_since is not null as in_review
      from predictu_dispatch.callback order by created_at, request_id
"""
_ATTEMPTS: Final = """
    select operator_id, request_id, method, attempt, evidence, verdict, reason, started_at, finished_at, request_body,
           coalesce(position('"DUPLICATE"'::bytea in response_body) > 0, false) as is_duplicate
      from predictu_dispatch.attempt order by operator_id, request_id, attempt, finished_at
"""
_BETS: Final = """
    select operator_id, bet_id, state, player_id, amount, placement_request_id, terminal_request_id
      from predictu_dispatch.bet order by operator_id, bet_id
"""
_REVIEWS: Final = """
    select operator_id, request_id, method, bet_id, state, reason from predictu_dispatch.needs_review order by since
"""

_RowT = TypeVar("_RowT", BetRow, CallbackRow, AttemptRow, ReviewRow)


async def read_predictu(dsn: str) -> PredictuBooks:
    """Predictu's side of this moment, as `predictu_support` may read it."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return PredictuBooks(
                bets=_rows(BetRow, await connection.fetch(_BETS)),
                callbacks=_rows(CallbackRow, await connection.fetch(_CALLBACKS)),
                attempts=_rows(AttemptRow, await connection.fetch(_ATTEMPTS)),
                reviews=_rows(ReviewRow, await connection.fetch(_REVIEWS)),
            )
    finally:
        await connection.close()


def _rows(kind: type[_RowT], records: list[asyncpg.Record]) -> tuple[_RowT, ...]:
    names = [column.name for column in fields(kind)]
    return tuple(kind(**{name: _plain(record[name]) for name in names}) for record in records)


def _plain(value: Any) -> Any:  # noqa: ANN401 -- whatever a column holds.
    # The operators write ids as text, so both sides are compared as text.
    return str(value) if isinstance(value, UUID) else value


def read_operator(operator_id: str, wallet: Path) -> OperatorBook:
    """An operator's side of this moment; read beside a running wallet, or from what a stopped one left."""
    with closing(sqlite3.connect(f"{wallet.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as sql:
        sql.execute("begin")
        arrivals: dict[str, list[bytes]] = defaultdict(list)
        for request_id, body in sql.execute(
            "select request_id, body from callback_record where signature = 'verified'"
        ):
            arrivals[request_id].append(body)
        return OperatorBook(
            operator_id=operator_id,
            balances=dict(sql.execute("select player_id, balance from players")),
            bookings=tuple(
                Booking(request_id=row[0], method=row[1], bet_id=row[2], player_id=row[3], amount=row[4])
                for row in sql.execute(
                    "select request_id, method, bet_id, player_id, amount from transactions where method <> 'DEPOSIT'"
                )
            ),
            arrivals=dict(arrivals),
            unverified=sql.execute("select count(*) from callback_record where signature <> 'verified'").fetchone()[0],
        )
