"""Reads a ledger file in CSV for the naive classifier: character by character, with lists only."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from tests.reconciliation.naive_audit import METHODS

IGNORED = "ignore"
OUR_COLUMNS = (
    *("booked_at", "amount", "currency", "request_id", "transaction_id", "method", "direction", "bet_id", "player_id"),
)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How an operator writes its ledger; the names are those of [reconcile]."""

    time_zone: str = "UTC"
    day_starts: str = "00:00"
    amount_format: str = "subunits"
    amount_sign: str = "player"
    columns: Mapping[str, str] = field(default_factory=lambda: {name: name for name in OUR_COLUMNS})
    methods: Mapping[str, str] = field(default_factory=dict)
    """The operator's word for a method, and ours."""
    digits: Mapping[str, int] = field(default_factory=lambda: {"EUR": 2, "USD": 2, "JPY": 0})

    def start_of(self, day: date) -> datetime:
        hours, minutes = self.day_starts.split(":")
        return datetime.combine(day, time(int(hours), int(minutes)), ZoneInfo(self.time_zone)).astimezone(UTC)

    def day_of(self, at: datetime) -> date:
        near = at.astimezone(ZoneInfo(self.time_zone)).date()
        for step in (-1, 0, 1):
            day = near + timedelta(days=step)
            if self.start_of(day) <= at < self.start_of(day + timedelta(days=1)):
                return day
        raise AssertionError(f"{at} is on no day")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One booking; `amount` is in subunits, negative for a debit of the player."""

    source: int
    number: int
    booked_at: datetime
    day: date
    request_id: uuid.UUID | None = None
    transaction_id: str | None = None
    method: str | None = None
    bet_id: str | None = None
    player_id: str | None = None
    currency: str = "EUR"
    amount: int = 0
    is_debit: bool = False

    @property
    def place(self) -> tuple[int, int]:
        return self.source, self.number

    @property
    def content(self) -> tuple[object, ...]:
        return (
            *(self.booked_at, self.request_id, self.transaction_id, self.method, self.bet_id, self.player_id),
            *(self.currency, self.amount, self.is_debit),
        )


def read_files(texts: Sequence[str], dialect: Dialect) -> tuple[list[Line], list[tuple[int, int]]]:
    """Return the lines that can be read, and the places of those that cannot."""
    lines: list[Line] = []
    unreadable: list[tuple[int, int]] = []
    seen = set()
    for source, text in enumerate(texts):
        records = _records(text)
        header = records[0][1]
        for number, values in records[1:]:
            try:
                # Raises ValueError if the line has another number of columns.
                texts_by_name = dict(zip(header, values, strict=True))
                if dialect.methods.get(texts_by_name.get(dialect.columns["method"], "")) == IGNORED:
                    continue
                line = _line(source, number, texts_by_name, dialect)
            except (ValueError, ArithmeticError):
                unreadable.append((source, number))
                continue
            if line.content in seen:
                unreadable.append((source, number))
                continue
            seen.add(line.content)
            lines.append(line)
    return lines, unreadable


def _records(text: str) -> list[tuple[int, list[str]]]:
    records: list[tuple[int, list[str]]] = []
    values, value, is_quoted, number, begins = [], "", False, 1, 1
    position = 0
    while position < len(text):
        sign = text[position]
        if is_quoted and sign == '"' and text[position + 1 : position + 2] == '"':
            value += '"'
            position += 1
        elif sign == '"':
            is_quoted = not is_quoted
        elif is_quoted:
            value += sign
        elif sign == ",":
            values.append(value)
            value = ""
        elif sign == "\n":
            records.append((begins, [*values, value.removesuffix("\r")]))
            values, value, begins = [], "", number + 1
        else:
            value += sign
        number += sign == "\n"
        position += 1
    if values or value:
        records.append((begins, [*values, value]))
    return [(begins, values) for begins, values in records if values != [""]]


def _line(source: int, number: int, values: dict[str, str], dialect: Dialect) -> Line:
    found = {ours: values.get(theirs, "") for ours, theirs in dialect.columns.items() if theirs}
    currency = found["currency"]
    if currency not in dialect.digits:
        raise ValueError("unknown currency")
    method = found.get("method") or None
    if method is not None:
        method = dialect.methods.get(method, method)
        if method not in METHODS:
            raise ValueError("unknown method")
    booked_at = datetime.fromisoformat(found["booked_at"])
    if booked_at.tzinfo is None:
        booked_at = booked_at.replace(tzinfo=ZoneInfo(dialect.time_zone))
    booked_at = booked_at.astimezone(UTC)
    amount = _subunits(found["amount"], dialect, currency)
    is_debit = _is_debit(amount, method, found.get("direction", ""), dialect)
    return Line(
        source=source,
        number=number,
        booked_at=booked_at,
        day=dialect.day_of(booked_at),
        request_id=uuid.UUID(found["request_id"]) if found.get("request_id") else None,
        transaction_id=found.get("transaction_id") or None,
        method=method,
        bet_id=found.get("bet_id") or None,
        player_id=found.get("player_id") or None,
        currency=currency,
        amount=-abs(amount) if is_debit else abs(amount),
        is_debit=is_debit,
    )


def _subunits(text: str, dialect: Dialect, currency: str) -> int:
    if not text or any(sign not in "0123456789.-" for sign in text):
        raise ValueError("no amount")
    exact = Fraction(text) * (10 ** dialect.digits[currency] if dialect.amount_format == "decimal" else 1)
    if exact.denominator != 1:
        raise ValueError("more digits than the currency has")
    return int(exact)


def _is_debit(amount: int, method: str | None, direction: str, dialect: Dialect) -> bool:
    if dialect.amount_sign == "none":
        if amount < 0 or not (direction or method):
            raise ValueError("a sign, or no direction")
        return direction == "debit" if direction else method == "BET_MAKE"
    if amount == 0:
        return method == "BET_MAKE" or (method is None and direction == "debit")
    is_debit = amount < 0 if dialect.amount_sign == "player" else amount > 0
    if method is not None and is_debit != (method == "BET_MAKE"):
        raise ValueError("the sign contradicts the method")
    if direction and is_debit != (direction == "debit"):
        raise ValueError("the sign contradicts the direction")
    return is_debit
