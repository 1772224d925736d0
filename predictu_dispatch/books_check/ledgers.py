"""Reads both sides: what Predictu recorded in Postgres, and each operator in SQLite.

Each side in one transaction, without the daemon's or the operator's code.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg


class BetRow(NamedTuple):
    """A bet in Postgres."""

    operator_id: str
    bet_id: str
    state: str
    player_id: str
    amount: int
    placement_request_id: str


class CallbackRow(NamedTuple):
    """A callback in Postgres; `amount` and `player_id` come from its params."""

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

    @property
    def label(self) -> str:
        return f"{self.operator_id} {self.bet_id or self.player_id}: {self.method} {self.request_id}"


class AttemptRow(NamedTuple):
    """A row of the audit."""

    operator_id: str
    request_id: str
    method: str
    attempt: int
    evidence: str
    verdict: str
    reason: str | None
    instance: str
    started_at: datetime
    finished_at: datetime
    request_body: str | None
    is_duplicate: bool


class ReviewRow(NamedTuple):
    """A row of needs_review."""

    operator_id: str
    request_id: str
    method: str
    bet_id: str | None
    state: str
    reason: str


class BetHistory(NamedTuple):
    """A bet with its callbacks and their attempts; an adopted bet has no placement.

    `terminal` is the one that counts, `cancelled` were never sent.
    """

    bet: BetRow
    placement: CallbackRow | None
    terminal: CallbackRow | None
    cancelled: tuple[CallbackRow, ...]
    attempts: tuple[AttemptRow, ...]


class PredictuLedger(NamedTuple):
    """Predictu's side."""

    bets: tuple[BetRow, ...]
    callbacks: tuple[CallbackRow, ...]
    attempts: tuple[AttemptRow, ...]
    reviews: tuple[ReviewRow, ...]

    def attempts_by_callback(self) -> dict[tuple[str, str], list[AttemptRow]]:
        """The audit rows by operator_id and request_id, in the order of attempts."""
        found: dict[tuple[str, str], list[AttemptRow]] = defaultdict(list)
        for attempt in self.attempts:
            found[attempt.operator_id, attempt.request_id].append(attempt)
        return found

    def histories(self) -> list[BetHistory]:
        attempts = self.attempts_by_callback()
        callbacks: dict[tuple[str, str | None], list[CallbackRow]] = defaultdict(list)
        for callback in self.callbacks:
            callbacks[callback.operator_id, callback.bet_id].append(callback)
        return [_history(bet, callbacks[bet.operator_id, bet.bet_id], attempts) for bet in self.bets]


def _history(
    bet: BetRow, callbacks: list[CallbackRow], attempts: dict[tuple[str, str], list[AttemptRow]]
) -> BetHistory:
    terminals = [callback for callback in callbacks if callback.method != "BET_MAKE"]
    return BetHistory(
        bet=bet,
        placement=next((callback for callback in callbacks if callback.method == "BET_MAKE"), None),
        terminal=next((terminal for terminal in terminals if terminal.state != "cancelled"), None),
        cancelled=tuple(terminal for terminal in terminals if terminal.state == "cancelled"),
        attempts=tuple(
            row for callback in callbacks for row in attempts.get((bet.operator_id, callback.request_id), ())
        ),
    )


class LedgerEntry(NamedTuple):
    """A row of an operator's ledger; `amount` is the change of the balance in subunits."""

    request_id: str
    method: str
    bet_id: str
    player_id: str
    amount: int


class OperatorLedger(NamedTuple):
    """An operator's side.

    `received` holds the verified bodies by request_id. Of an unverified arrival the operator keeps
    the SHA-256 only; None if the body was not complete.
    """

    operator_id: str
    balances: dict[str, int]
    entries: tuple[LedgerEntry, ...]
    received: dict[str, list[bytes]]
    unverified: tuple[str | None, ...]


# Operators store ids as text, so both sides are compared as text.
_BETS: Final = """
    select operator_id, bet_id, state, player_id, amount, placement_request_id::text
      from predictu_dispatch.bet order by operator_id, bet_id
"""
_CALLBACKS: Final = """
    select operator_id, request_id::text, method, bet_id, state, reason, effect, attempts,
           (params ->> 'amount')::bigint as amount, params ->> 'player_id' as player_id, balance,
           created_at, finished_at, retry_stopped, review_since is not null as in_review
      from predictu_dispatch.callback order by created_at, request_id
"""
_ATTEMPTS: Final = """
    select operator_id, request_id::text, method, attempt, evidence, verdict, reason, instance,
           started_at, finished_at, request_body,
           coalesce(position('"DUPLICATE"'::bytea in response_body) > 0, false) as is_duplicate
      from predictu_dispatch.attempt order by operator_id, request_id, attempt, finished_at
"""
_REVIEWS: Final = """
    select operator_id, request_id::text, method, bet_id, state, reason
      from predictu_dispatch.needs_review order by since
"""


async def read_predictu(dsn: str) -> PredictuLedger:
    """Predictu's side as it is now, readable for `predictu_support`."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return PredictuLedger(
                bets=tuple(BetRow(*row) for row in await connection.fetch(_BETS)),
                callbacks=tuple(CallbackRow(*row) for row in await connection.fetch(_CALLBACKS)),
                attempts=tuple(AttemptRow(*row) for row in await connection.fetch(_ATTEMPTS)),
                reviews=tuple(ReviewRow(*row) for row in await connection.fetch(_REVIEWS)),
            )
    finally:
        await connection.close()


def read_operator(operator_id: str, wallet: Path) -> OperatorLedger:
    """An operator's side as it is now, also while the operator runs or after it stopped."""
    with closing(sqlite3.connect(f"{wallet.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as sql:
        sql.execute("begin")
        received: dict[str, list[bytes]] = defaultdict(list)
        for request_id, body in sql.execute("select request_id, body from callback_record"):
            received[request_id].append(body)
        entries = sql.execute(
            "select request_id, method, bet_id, player_id, amount from transactions where method <> 'DEPOSIT'"
        )
        return OperatorLedger(
            operator_id=operator_id,
            balances=dict(sql.execute("select player_id, balance from players")),
            entries=tuple(LedgerEntry(*row) for row in entries),
            received=dict(received),
            unverified=tuple(row[0] for row in sql.execute("select body_sha256 from unverified_arrivals")),
        )
