"""Fetches the ledger that an operator serves, and parses it: CSV, one booking a line.

Address guard and TLS are those of production.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime
from typing import Final

from predictu_dispatch.certification.connections import exchange_on, open_connection, request_head
from predictu_dispatch.certification.observation import Ledger, LedgerRow
from predictu_dispatch.certification.target import Target
from predictu_dispatch.certification.tokens import Token
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.callback_url import url_fault
from predictu_dispatch.core.ledger_request import ledger_headers, ledger_url
from predictu_dispatch.core.methods import Method
from predictu_dispatch.edge.http.connector import Connector
from predictu_dispatch.edge.http.resolver import LookUp

LEDGER_BYTES_MAX: Final = 16 * 1024 * 1024
LEDGER_TIMEOUT_S: Final = 30.0
_OK: Final = 200
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


async def fetch_ledger(target: Target, token: Token, *, since: datetime, until: datetime, look_up: LookUp) -> Ledger:
    """Return the ledger from `since` to before `until`, or why it could not be read."""
    settings = target.settings
    if allowed := url_fault(
        target.ledger_url,
        allow_insecure_http=settings.allow_insecure_http,
        allow_private_addresses=settings.allow_private_addresses,
    ):
        return Ledger(fault=f"the ledger's URL must be {allowed}")
    settings = settings.model_copy(update={"callback_url": target.ledger_url})
    connector = Connector(settings, target.ssl_context, look_up=look_up, connecting=lambda: None)
    try:
        opened = await open_connection(connector, timeout_s=settings.settlement.connect_timeout_s)
        if isinstance(opened, Exchange):
            return Ledger(fault=f"{opened.reason}: {opened.error}")
        exchange = await exchange_on(
            opened,
            _request(target.ledger_url, token, since=since, until=until),
            timeout_s=LEDGER_TIMEOUT_S,
            response_bytes_max=LEDGER_BYTES_MAX,
        )
    finally:
        await connector.close()
    if exchange.evidence is not Evidence.ANSWERED:
        return Ledger(fault=f"{exchange.reason}: {exchange.error}")
    if exchange.status != _OK:
        return Ledger(fault=f"the operator answered {exchange.status}, not {_OK}")
    return read_ledger(exchange.body)


def _request(url: str, token: Token, *, since: datetime, until: datetime) -> bytes:
    headers = {**ledger_headers(token.compact, accept="text/csv"), "Connection": "close"}
    return request_head("GET", ledger_url(url, since=since, until=until), headers)


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
