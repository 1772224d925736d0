"""Parses the ledger that an operator serves: CSV, one booking a line."""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime
from typing import Final

from predictu_dispatch.certification.observation import Ledger, LedgerRow
from predictu_dispatch.core.methods import Method

COLUMNS: Final = (
    "booked_at",
    "transaction_id",
    "request_id",
    "method",
    "bet_id",
    "player_id",
    "currency",
    "amount",
)
_AMOUNT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")


def read_ledger(body: bytes) -> Ledger:
    """Return the ledger's rows, or what is wrong with its first bad line."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return Ledger(fault="the ledger is not UTF-8")
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[LedgerRow] = []
    try:
        header = next(lines, [])
        if tuple(header) != COLUMNS:
            return Ledger(fault=f"the ledger's first line is {','.join(header)[:200]!r}, not {','.join(COLUMNS)!r}")
        for fields in lines:
            row = _row(fields)
            if isinstance(row, str):
                return Ledger(fault=f"the ledger's line {lines.line_num}: {row}")
            rows.append(row)
    except csv.Error as fault:
        return Ledger(fault=f"the ledger's line {lines.line_num} is not CSV: {fault}")
    return Ledger(rows=tuple(rows))


def _row(fields: list[str]) -> LedgerRow | str:
    """Return the booking, or what is wrong with the line."""
    if len(fields) != len(COLUMNS):
        return f"{len(fields)} fields instead of {len(COLUMNS)}"
    booked_at, transaction_id, request_id, method, bet_id, player_id, currency, amount = fields
    if not _is_time(booked_at):
        return f"booked_at is {booked_at!r}, not an RFC 3339 time with an offset"
    if method not in frozenset(Method):
        return f"method is {method!r}, not one of {', '.join(Method)}"
    if not _AMOUNT.fullmatch(amount):
        return f"amount is {amount!r}, not a whole number of subunits"
    return LedgerRow(
        request_id=request_id,
        transaction_id=transaction_id,
        method=method,
        bet_id=bet_id,
        player_id=player_id,
        currency=currency,
        amount=int(amount),
    )


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
