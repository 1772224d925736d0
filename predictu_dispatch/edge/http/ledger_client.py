"""Downloads an operator's ledger into a file: the whole body, or a reason why not.

Addresses are checked as for callbacks. No redirect is followed, no cookie is kept, no proxy is
used.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Final

import aiohttp
from yarl import URL

from predictu_dispatch.core.ledger_request import LedgerRefusal, answer_refusal, is_page
from predictu_dispatch.edge.http.connector import require_aiohttp, vetting_connector
from predictu_dispatch.edge.http.failure_reason import reason_not_sent, unwrapped
from predictu_dispatch.edge.http.resolver import LookUp, look_up

_CHUNK_BYTES: Final = 65_536
_ERROR_CHARS_MAX: Final = 300
_AGAIN: Final = "Run it again later."
_SMALLER: Final = "Give a shorter period, or the ledger as files."
_TLS: Final = "Check [tls] in the operator's file, and their certificate."
_TODO: Final = {
    "address_refused": "",
    "dns_failed": "Check the host name in the URL.",
    "tls_failed": _TLS,
    "connect_refused": "Their server must run and accept connections from this host.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """What ends a download."""

    bytes_max: int = 2 * 1024**3
    total_s: float = 1800.0
    idle_s: float = 60.0
    """Between two parts of the answer."""
    connect_s: float = 10.0


async def pull_ledger(
    url: str,
    headers: Mapping[str, str],
    file: IO[bytes],
    *,
    limits: PullLimits,
    ssl_context: ssl.SSLContext | None,
    allow_private_addresses: bool,
    url_key: str,
    look_up: LookUp = look_up,
) -> LedgerRefusal | None:
    """Write the whole body into the file, or return why not.

    `url_key` names the setting that has the URL.
    """
    require_aiohttp()
    connector = vetting_connector(
        ssl_context, allow_private_addresses=allow_private_addresses, look_up=look_up, connecting=lambda: None
    )
    timeout = aiohttp.ClientTimeout(total=limits.total_s, connect=limits.connect_s, sock_read=limits.idle_s)
    has_begun = False
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            ) as session,
            session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer,
        ):
            if refusal := answer_refusal(answer.status, answer.headers, url_key=url_key):
                return refusal
            has_begun = True
            return await _written(answer.content, file, limits, url_key)
    except _WriteError as error:
        return LedgerRefusal(f"cannot write the temporary file: {error}", "Set TMPDIR to a folder with room.")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return _refusal(error, limits, has_begun=has_begun)


class _WriteError(Exception):
    """The disk did not take the body."""


async def _written(
    content: aiohttp.StreamReader, file: IO[bytes], limits: PullLimits, url_key: str
) -> LedgerRefusal | None:
    count = 0
    async for chunk in content.iter_chunked(_CHUNK_BYTES):
        if not count and is_page(chunk):
            return LedgerRefusal("the operator answered with a page, not with a ledger", f"Check {url_key}.")
        count += len(chunk)
        if count > limits.bytes_max:
            return LedgerRefusal(f"the ledger is larger than {limits.bytes_max:,} bytes", _SMALLER)
        try:
            file.write(chunk)
        except OSError as error:
            raise _WriteError(error.strerror or str(error)) from error
    try:
        file.flush()
    except OSError as error:
        raise _WriteError(error.strerror or str(error)) from error
    return None


def _refusal(error: Exception, limits: PullLimits, *, has_begun: bool) -> LedgerRefusal:
    match error:
        case aiohttp.ConnectionTimeoutError():
            return LedgerRefusal(f"no connection within {limits.connect_s:g} s", "Their server may be down.")
        case aiohttp.SocketTimeoutError():
            return LedgerRefusal(f"the operator sent nothing for {limits.idle_s:g} s", _AGAIN)
        case TimeoutError():
            return LedgerRefusal(f"the ledger was not complete after {limits.total_s:g} s", _SMALLER)
        case _ if has_begun:
            return LedgerRefusal("the connection ended before the ledger did, so nothing of it is used", _AGAIN)
        case aiohttp.InvalidURL():
            return LedgerRefusal("the URL cannot be used; write an IP address in full")
        case aiohttp.ClientConnectorError() | aiohttp.ClientSSLError() | ssl.SSLError():
            cause = unwrapped(error)
            reason = reason_not_sent(cause)
            return LedgerRefusal(f"{reason}: {_text(cause)}", _TODO.get(reason, _AGAIN))
        case _:
            return LedgerRefusal(f"the connection broke before the answer: {_text(error)}", _AGAIN)


def _text(error: Exception) -> str:
    # Its text has the URL, whose query may hold a secret.
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:_ERROR_CHARS_MAX]
