"""Serves the ledger to Predictu: every booking of a period as CSV, so that both can compare books.

`GET {path}/ledger?from=…&until=…` with a token like a callback's: `method` is LEDGER, `digest` that
of an empty body. The admin routes have another ledger, for tests.
"""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web

from .answer import Answer, Status, shown
from .settings import Settings
from .verify import verify_token

METHOD = "LEDGER"
"""The `method` of the token. It is no callback, and a callback's token cannot read the ledger."""
COLUMNS = ("booked_at", "transaction_id", "request_id", "method", "bet_id", "player_id", "currency", "amount")
ROWS_AT_ONCE = 500
WRITE_TIMEOUT_S = 10.0
"""A slower reader is disconnected: the database's log grows as long as it reads."""
_log = logging.getLogger("reference_operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From the first time to before the second, as the database spells them; None: unbounded."""

    since: str | None
    until: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRoute:
    """Answers with the ledger's rows, or why not."""

    settings: Settings

    async def receive(self, request: web.Request) -> web.StreamResponse:
        period = self._read(request)
        if isinstance(period, Answer):
            _log.info("ledger.refused", extra={"fields": {"http_status": period.http_status, "reason": period.message}})
            return web.Response(
                status=period.http_status, text=period.to_json(self.settings.money), content_type="application/json"
            )
        reply = web.StreamResponse(headers={"Content-Type": "text/csv; charset=utf-8"})
        rows = 0
        with closing(open_to_read(self.settings.database)) as sql:
            cursor = await asyncio.to_thread(_select, sql, period)
            await reply.prepare(request)
            try:
                page: list[Sequence[object]] = [COLUMNS]
                while page:
                    async with asyncio.timeout(WRITE_TIMEOUT_S):
                        await reply.write(_csv(page))
                    page = await asyncio.to_thread(cursor.fetchmany, ROWS_AT_ONCE)
                    rows += len(page)
                await reply.write_eof()
            except (TimeoutError, sqlite3.Error):
                # Half a ledger must not look like a whole one.
                if request.transport is not None:
                    request.transport.abort()
                raise
        _log.info("ledger.answered", extra={"fields": {"http_status": reply.status, "rows": rows}})
        return reply

    def _read(self, request: web.Request) -> Period | Answer:
        claims = verify_token(
            request.headers.getall("Authorization", []),
            b"",
            keyring=self.settings.keyring,
            operator_id=self.settings.operator_id,
            audience=self.settings.audience,
            token_ttl_max_s=self.settings.token_ttl_max_s,
        )
        if isinstance(claims, Answer):
            return claims
        if claims.method != METHOD:
            return Answer(
                http_status=401,
                status=Status.UNAUTHORIZED,
                message=f"token claims: method {shown(claims.method)}, expected {METHOD}",
            )
        try:
            return Period(since=_query_time(request.query, "from"), until=_query_time(request.query, "until"))
        except ValueError as fault:
            return Answer(http_status=400, status=Status.BAD_REQUEST, message=str(fault))


def _query_time(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name)
    return None if text is None else parse_time(text, f"query: {name}")


def parse_time(text: str, name: str) -> str:
    """Returns the time in UTC, as the database spells it. Raises ValueError."""
    try:
        time = datetime.fromisoformat(text)
        # Bookings have whole milliseconds: the first one from this time on.
        utc = (time + timedelta(microseconds=-time.microsecond % 1000)).astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):
        utc = None
    if utc is None:
        raise ValueError(f"{name} is {shown(text)}, not RFC 3339 such as 2026-03-19T14:30:00.000Z")
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def open_to_read(file: Path) -> sqlite3.Connection:
    """Returns a connection that only reads. Raises sqlite3.Error."""
    # Calls come from several threads, one after the other.
    return sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )


def _select(sql: sqlite3.Connection, period: Period) -> sqlite3.Cursor:
    """Returns the rows of one consistent snapshot, which ends when the connection is closed.

    A deposit is not Predictu's.
    """
    return sql.execute(
        "select created_at, transaction_id, request_id, method, bet_id, player_id, currency, amount from transactions"
        " where method <> 'DEPOSIT' and created_at >= coalesce(?, '') and created_at < coalesce(?, 'x')"
        " order by created_at, transaction_id",
        (period.since, period.until),
    )


def csv_pages(sql: sqlite3.Connection, period: Period) -> Iterator[bytes]:
    """Yields the ledger of the period in pieces, from one snapshot. Raises sqlite3.Error."""
    cursor = _select(sql, period)
    page: list[Sequence[object]] = [COLUMNS]
    while page:
        yield _csv(page)
        page = cursor.fetchmany(ROWS_AT_ONCE)


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
