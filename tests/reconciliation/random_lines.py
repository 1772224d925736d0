"""Draws the lines of random books: right ones, and some that match nothing or say otherwise."""

from __future__ import annotations

import random
import uuid
from datetime import datetime, timedelta

from tests.reconciliation.naive_audit import METHODS
from tests.reconciliation.naive_lines import Line
from tests.reconciliation.random_rows import RandomBooks, Values


class DrawnLines:
    """Adds lines to the books of one example."""

    rng: random.Random
    made: RandomBooks
    at: datetime
    is_given_all: bool

    def moment(self, after: datetime | None = None) -> datetime:
        """A moment from half a day before the period until days after, or one after another."""
        minutes = self.rng.randint(*((-800, 4500) if after is None else (0, 2000)))
        microseconds = len(self.made.lines) + 1000 * (len(self.made.callbacks) + 1)
        return (after or self.at) + timedelta(minutes=minutes, microseconds=microseconds)

    def near_line(self, row: Values) -> None:
        """Add a line that says what the callback says, or differs in one thing."""
        booked_at = row["finished_at"] - timedelta(microseconds=len(self.made.lines) + 1)
        otherwise = self.rng.choice((*("",) * 8, "amount", "currency", "player", "day", "transaction", "bet"))
        if otherwise == "day":
            booked_at += timedelta(days=self.rng.choice((-1, 1)))
        if not self.is_given_all and not self.made.period.has(booked_at):
            return
        amount, bet = row["params"].get("amount", 0), self.made.bets[-1]
        if otherwise == "amount":
            amount += self.rng.choice((1, 100))
        currency = {"EUR": "JPY", "JPY": "EUR"}[bet["currency"]] if otherwise == "currency" else bet["currency"]
        self.made.lines.append(
            Line(
                source=self.rng.randint(0, 1),
                number=len(self.made.lines) + 2,
                booked_at=booked_at,
                day=self.made.period.dialect.day_of(booked_at),
                request_id=None if otherwise in ("transaction", "bet") else row["request_id"],
                transaction_id=row["operator_transaction_id"] if otherwise == "transaction" else None,
                bet_id=bet["bet_id"] if otherwise in ("transaction", "bet") else None,
                player_id="p3" if otherwise == "player" else None,
                method=row["method"],
                currency=currency,
                amount=-amount if row["method"] == "BET_MAKE" else amount,
                is_debit=row["method"] == "BET_MAKE",
            )
        )

    def any_line(self, bet: Values) -> None:
        """Add a line that says what it likes, and names the bet in one way or another."""
        own = [row for row in self.made.callbacks if row["bet_id"] == bet["bet_id"]]
        row = self.rng.choice([None, *own])
        method = row["method"] if row else self.rng.choice(METHODS)
        amount = row["params"].get("amount", 0) if row else bet["amount"]
        is_like_ours = self.rng.randint(0, 2) > 0
        if not is_like_ours:
            amount += self.rng.choice((0, 0, 1, 100))
        near = row["finished_at"] or row["created_at"] if row else None
        booked_at = self.moment() if near is None or not self.rng.randint(0, 3) else self.moment(near)
        if is_like_ours and near is not None:
            booked_at = near - timedelta(microseconds=len(self.made.lines) + 1)
        if not self.is_given_all and not self.made.period.has(booked_at):
            return
        is_debit = method == "BET_MAKE"
        ids = self.rng.choice(("request", "request", "transaction", "bet", "unknown", "nothing"))
        request_id = {"request": row["request_id"] if row else bet["placement_request_id"], "unknown": uuid.uuid4()}
        # Two callbacks may have one transaction, and a line that of another bet.
        known = [one["operator_transaction_id"] for one in self.made.callbacks if one["operator_transaction_id"]]
        transaction_id = row["operator_transaction_id"] if row else None
        if ids == "transaction" and known and self.rng.randint(0, 3) == 0:
            transaction_id = self.rng.choice(known)
        self.made.lines.append(
            Line(
                source=self.rng.randint(0, 1),
                number=len(self.made.lines) + 2,
                booked_at=booked_at,
                day=self.made.period.dialect.day_of(booked_at),
                request_id=request_id.get(ids),
                transaction_id=transaction_id or f"there-{len(self.made.lines)}" if ids != "bet" else None,
                method=self.rng.choice((method, method, None)),
                bet_id=None if ids == "nothing" else bet["bet_id"],
                player_id=self.rng.choice((bet["player_id"], bet["player_id"], None, "p3")),
                currency=bet["currency"] if is_like_ours else self.rng.choice(("EUR", "JPY")),
                amount=-amount if is_debit else amount,
                is_debit=is_debit,
            )
        )
