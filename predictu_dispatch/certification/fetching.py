"""Fetches the ledger that an operator serves, with the address guard and TLS of production."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

from predictu_dispatch.certification.connections import exchange_on, open_connection, request_head
from predictu_dispatch.certification.ledger import read_ledger
from predictu_dispatch.certification.observation import Ledger
from predictu_dispatch.certification.target import Target
from predictu_dispatch.certification.tokens import Token
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.callback_url import url_fault
from predictu_dispatch.edge.http.connector import Connector
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
    period = urlencode({"from": _rfc3339(since), "until": _rfc3339(until)})
    headers = {
        "Authorization": f"Bearer {token.compact}",
        "Accept": "text/csv",
        "Accept-Encoding": "identity",
        "User-Agent": "predictu-dispatch",
        "Connection": "close",
    }
    return request_head("GET", f"{url}{'&' if urlsplit(url).query else '?'}{period}", headers)


def _rfc3339(at: datetime) -> str:
    """Return this time in UTC, `at` being in UTC."""
    return f"{at.isoformat(timespec='milliseconds')[:-6]}Z"
