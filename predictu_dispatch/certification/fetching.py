"""Fetches the ledger that an operator serves, with the limits of production's requests."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

from predictu_dispatch.certification.cutting import request_head
from predictu_dispatch.certification.ledger import read_ledger
from predictu_dispatch.certification.observation import Ledger
from predictu_dispatch.certification.target import Target
from predictu_dispatch.certification.tokens import Token
from predictu_dispatch.core.callback_url import url_fault
from predictu_dispatch.edge.http.connection import Connection
from predictu_dispatch.edge.http.connector import Connector
from predictu_dispatch.edge.http.failure_reason import reason_not_sent, unwrapped
from predictu_dispatch.edge.http.resolver import LookUp

LEDGER_BYTES_MAX: Final = 16 * 1024 * 1024
LEDGER_TIMEOUT_S: Final = 30.0
_OK: Final = 200


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
        async with asyncio.timeout(settings.settlement.connect_timeout_s):
            opened = await connector.open()
        connection = Connection(opened, response_bytes_max=LEDGER_BYTES_MAX)
        try:
            return await _ledger(connection, _request(target.ledger_url, token, since=since, until=until))
        finally:
            connection.abort()
    except Exception as failed:  # noqa: BLE001 - the fault is what the scenario is about
        error = unwrapped(failed)
        return Ledger(fault=f"{reason_not_sent(error)}: {type(error).__name__}: {error}".removesuffix(": "))
    finally:
        await connector.close()


async def _ledger(connection: Connection, request: bytes) -> Ledger:
    timer = asyncio.get_running_loop().call_later(
        LEDGER_TIMEOUT_S, connection.fail, "timeout", f"the ledger was not complete after {LEDGER_TIMEOUT_S:g} s"
    )
    try:
        connection.send(request)
        await connection.answered()
    finally:
        timer.cancel()
    if connection.failure is not None:
        reason, error = connection.failure
        return Ledger(fault=f"{reason}: {error}")
    if connection.status != _OK:
        return Ledger(fault=f"the operator answered {connection.status}, not {_OK}")
    return read_ledger(connection.body())


def _request(url: str, token: Token, *, since: datetime, until: datetime) -> bytes:
    period = urlencode({"from": _rfc3339(since), "until": _rfc3339(until)})
    headers = {
        "Authorization": f"Bearer {token.compact}",
        "Accept": "text/csv",
        "Accept-Encoding": "identity",
        "User-Agent": "predictu-dispatch",
        "Connection": "close",
    }
    return request_head("GET", f"{url}{'&' if urlsplit(url).query else '?'}{period}", headers, 0)


def _rfc3339(at: datetime) -> str:
    return f"{at.isoformat(timespec='milliseconds')[:-6]}Z"
