"""The wallet: writes what a callback books, its stored answer and its record, all or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import uuid4

from .answer import Answer, Reply, Status
from .callback import Callback, Method, Names
from .database import WalletError, utc_now
from .faults import Fault
from .rules import Bet, BetState, Ruling, rule


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlayer:
    """A wallet to create; the balance is in subunits."""

    player_id: str
    currency: str
    balance: int


class Outcome(StrEnum):
    """What happened to a callback."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    READ = "read"
    UNAUTHORIZED = "unauthorized"
    BAD_REQUEST = "bad_request"
    REQUEST_ID_REUSED = "request_id_reused"
    NOT_PROCESSED = "not_processed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A verified callback as it arrived, without its token: a credential until it expires."""

    received_at: str
    body: bytes
    signature: str
    fault: Fault | None = None


UNVERIFIED_MAX = 10_000
"""Rows of unverified arrivals; each new one replaces the oldest. Anyone can send them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unverified:
    """What is kept of an arrival that nobody has proved to come from Predictu.

    Nothing in it is parsed. Without a complete body there is no hash.
    """

    received_at: str
    body_sha256: str | None
    body_bytes: int | None
    reason: str
    http_status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision on a callback and the reply; a fault may change the reply, not `status`."""

    outcome: Outcome
    status: Status | None
    reply: Reply


class Wallet:
    """The changes that the writer runs. If one raises, its savepoint is rolled back."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def create_players(self, players: Sequence[NewPlayer], *, skip_existing: bool = False) -> int:
        """Creates all players or none; returns how many. Raises WalletError if one exists."""
        created = 0
        for player in players:
            added = self._sql.execute(
                "insert into players (player_id, currency, balance) values (?, ?, ?) on conflict do nothing",
                (player.player_id, player.currency, player.balance),
            ).rowcount
            if not added and not skip_existing:
                raise WalletError(f"player {player.player_id} already has a wallet in {player.currency}")
            if added:
                self._book(
                    method="DEPOSIT",
                    request_id=str(uuid4()),
                    bet_id=None,
                    player_id=player.player_id,
                    currency=player.currency,
                    amount=player.balance,
                )
            created += added
        return created

    def apply(self, callback: Callback, arrival: Arrival, to_reply: Callable[[Answer], Reply]) -> Decision:
        outcome, answer = self._decide(callback)
        decision = Decision(outcome=outcome, status=answer.status, reply=to_reply(answer))
        self.record(callback.names, arrival, decision)
        return decision

    def record(self, names: Names, arrival: Arrival, decision: Decision) -> None:
        """Adds a row to the append-only record of callbacks."""
        self._sql.execute(
            "insert into callback_record (received_at, request_id, method, bet_id, body, signature, outcome, status,"
            " http_status, answer, fault) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                arrival.received_at,
                names.request_id,
                names.method,
                names.bet_id,
                arrival.body,
                arrival.signature,
                decision.outcome,
                decision.status,
                decision.reply.http_status,
                decision.reply.body,
                arrival.fault,
            ),
        )

    def record_unverified(self, arrival: Unverified) -> None:
        """Adds a row to the newest unverified arrivals, and removes those beyond the limit."""
        added = self._sql.execute(
            "insert into unverified_arrivals (received_at, body_sha256, body_bytes, reason, http_status)"
            " values (?, ?, ?, ?, ?)",
            (arrival.received_at, arrival.body_sha256, arrival.body_bytes, arrival.reason, arrival.http_status),
        )
        oldest = (added.lastrowid or 0) - UNVERIFIED_MAX
        self._sql.execute("delete from unverified_arrivals where arrival_id <= ?", (oldest,))

    def _decide(self, callback: Callback) -> tuple[Outcome, Answer]:
        row = self._sql.execute(
            "select body_sha256, final, http_status, status, message, balance, currency, transaction_id"
            " from answers where request_id = ?",
            (callback.request_id,),
        ).fetchone()
        if row is not None and row[0] != callback.body_sha256:
            message = "this request_id was used with another body; nothing was done"
            return Outcome.REQUEST_ID_REUSED, Answer(http_status=409, status=Status.REQUEST_ID_REUSED, message=message)
        if row is not None and row[1]:
            return Outcome.DUPLICATE, _repeated(row)
        bets = self._bets(callback)
        currency = callback.currency or (bets[0].currency if bets else "")
        balance = self._balance(callback.player_id, currency)
        ruling = rule(callback, bets=bets, balance=balance)
        answer = self._carry_out(callback, ruling, balance, currency)
        self._sql.execute(
            "insert or replace into answers (request_id, body_sha256, final, http_status, status, message, balance,"
            " currency, transaction_id) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                callback.request_id,
                callback.body_sha256,
                ruling.final,
                answer.http_status,
                answer.status,
                answer.message,
                answer.balance,
                answer.currency,
                answer.transaction_id,
            ),
        )
        if ruling.status is not Status.OK:
            return Outcome.REFUSED, answer
        return (Outcome.READ if ruling.delta is None else Outcome.APPLIED), answer

    def _carry_out(self, callback: Callback, ruling: Ruling, balance: int | None, currency: str) -> Answer:
        """Writes the bet, the balance and the transaction of a ruling."""
        if ruling.bet is not None:
            self._save(ruling.bet)
        transaction_id = None
        if ruling.delta is not None and balance is not None:
            balance += ruling.delta
            self._sql.execute(
                "update players set balance = ? where player_id = ? and currency = ?",
                (balance, callback.player_id, currency),
            )
            transaction_id = self._book(
                method=callback.method,
                request_id=callback.request_id,
                bet_id=callback.bet_id,
                player_id=callback.player_id,
                currency=currency,
                amount=ruling.delta,
            )
        return Answer(
            http_status=ruling.http_status,
            status=ruling.status,
            message=ruling.message,
            balance=balance if ruling.with_balance else None,
            currency=currency if ruling.with_balance else None,
            transaction_id=transaction_id,
        )

    def _bets(self, callback: Callback) -> list[Bet]:
        """Returns the bet with the callback's bet_id, then the one with the debit that it names."""
        debit_request_id = callback.request_id if callback.method is Method.BET_MAKE else callback.rollback_of
        rows = self._sql.execute(
            "select bet_id, debit_request_id, player_id, currency, amount, state, ended_by from bets"
            " where bet_id = ?1 or debit_request_id = ?2 order by bet_id <> ?1",
            (callback.bet_id, debit_request_id),
        ).fetchall()
        return [
            Bet(
                bet_id=row[0],
                debit_request_id=row[1],
                player_id=row[2],
                currency=row[3],
                amount=row[4],
                state=BetState(row[5]),
                ended_by=row[6],
            )
            for row in rows
        ]

    def _balance(self, player_id: str, currency: str) -> int | None:
        row = self._sql.execute(
            "select balance from players where player_id = ? and currency = ?", (player_id, currency)
        ).fetchone()
        return None if row is None else int(row[0])

    def _save(self, bet: Bet) -> None:
        self._sql.execute(
            "insert into bets (bet_id, debit_request_id, player_id, currency, amount, state, ended_by)"
            " values (?, ?, ?, ?, ?, ?, ?)"
            " on conflict (bet_id) do update set state = excluded.state, ended_by = excluded.ended_by",
            (bet.bet_id, bet.debit_request_id, bet.player_id, bet.currency, bet.amount, bet.state, bet.ended_by),
        )

    def _book(
        self, *, method: str, request_id: str, bet_id: str | None, player_id: str, currency: str, amount: int
    ) -> str:
        transaction_id = f"tx-{uuid4()}"
        self._sql.execute(
            "insert into transactions (transaction_id, request_id, method, bet_id, player_id, currency, amount,"
            " created_at) values (?, ?, ?, ?, ?, ?, ?, ?)",
            (transaction_id, request_id, method, bet_id, player_id, currency, amount, utc_now()),
        )
        return transaction_id


def _repeated(row: Sequence[object]) -> Answer:
    """Returns the stored answer, with DUPLICATE for OK: nothing is booked a second time."""
    _, _, http_status, status, message, balance, currency, transaction_id = row
    answer = Answer(
        http_status=int(str(http_status)),
        status=Status(str(status)),
        message=str(message),
        balance=None if balance is None else int(str(balance)),
        currency=None if currency is None else str(currency),
        transaction_id=None if transaction_id is None else str(transaction_id),
    )
    return replace(answer, status=Status.DUPLICATE) if answer.status is Status.OK else answer
