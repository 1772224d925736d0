"""POSTs requests to an operator over HTTP and reports what was really sent and received.

The evidence comes from the request object: aiohttp calls its `send` after the TLS handshake, before
the first byte of the request. Until then nothing was sent; from then on something may have been.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_reqrep import ClientResponse
from aiohttp.connector import Connection
from typing_extensions import override

from predictu_dispatch.core.addresses import address_fault
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.edge.http.failure_reason import (
    TooLateError,
    UnsolicitedDataError,
    reason_not_sent,
    reason_sent,
    unwrapped,
)
from predictu_dispatch.edge.http.resolver import AddressRefusedError, LookUp, VettingResolver, look_up

_KEEPALIVE_S = 20.0
"""Load balancers close idle connections after 60 s, some after 30; we must close first."""
_DNS_TTL_S = 10
"""How long a resolved name is cached. Only permitted addresses are cached; failures are not."""
_NO_CEILING_S = 1e9
"""Keeps aiohttp from rounding timeouts above its `ceil_threshold` up to whole seconds."""
_HEADERS_BYTES_MAX = 16_384
"""Limit of an answer's headers, which are stored in the audit; aiohttp alone allows a megabyte."""
_ERROR_CHARS_MAX = 500
"""aiohttp's errors quote whole header lines, and the text is stored for every attempt."""


@dataclass(slots=True)
class _Progress:
    """The state of one exchange, from which its outcome is built when it ends or fails."""

    send_before_s: float
    started_s: float = field(default_factory=time.monotonic)
    sent: bool = False
    connected_s: float | None = None
    first_byte_s: float | None = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    chunks: list[bytes] = field(default_factory=list)

    def exchange(
        self, evidence: Evidence, *, reason: str | None = None, error: str | None = None, truncated: bool = False
    ) -> Exchange:
        return Exchange(
            evidence=evidence,
            reason=reason,
            error=error,
            status=self.status,
            headers=self.headers,
            body=b"".join(self.chunks),
            truncated=truncated,
            connect_ms=self._ms(self.connected_s),
            first_byte_ms=self._ms(self.first_byte_s),
            total_ms=(time.monotonic() - self.started_s) * 1000,
        )

    def too_large(self, error: str) -> Exchange:
        return self.exchange(Evidence.UNANSWERED, reason="too_large", error=error, truncated=True)

    def _ms(self, time_s: float | None) -> float | None:
        return None if time_s is None else (time_s - self.started_s) * 1000


_progress: ContextVar[_Progress] = ContextVar("_progress")


class _WatchedRequest(aiohttp.ClientRequest):
    """Records when the request begins to be sent, and sends nothing after `send_before_s`."""

    @override
    async def send(self, conn: Connection) -> ClientResponse:
        progress = _progress.get()
        progress.connected_s = time.monotonic()
        if progress.connected_s >= progress.send_before_s:
            raise TooLateError
        # aiohttp checks this when a connection returns to its pool, but not when it is taken out.
        if conn.protocol is not None and conn.protocol.should_close:
            raise UnsolicitedDataError
        progress.sent = True
        return await super().send(conn)

    @override
    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        # aiohttp writes one turn of the loop after send(). A process that was suspended in between
        # must not send a debit that was rolled back meanwhile.
        progress = _progress.get()
        if time.monotonic() < progress.send_before_s:
            await super().write_bytes(writer, conn, content_length)
            return
        progress.sent = False
        if conn.protocol is not None:
            conn.protocol.set_exception(TooLateError())
        conn.close()


class Transport:
    """The connection pool of one operator's lane. Answers are never followed, unpacked or trusted.

    `connecting` is called for each new connection.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        ssl_context: ssl.SSLContext | None = None,
        *,
        look_up: LookUp = look_up,
        connecting: Callable[[], None] = lambda: None,
    ) -> None:
        if not {"send", "write_bytes"} <= vars(aiohttp.ClientRequest).keys():
            # Without these hooks nothing would count as sent, and an unknown debit as never made.
            raise RuntimeError(
                "this aiohttp has no ClientRequest.send and write_bytes; install the one in deploy/requirements.txt"
            )
        self._url = settings.callback_url
        self._response_bytes_max = settings.limits.max_response_bytes
        self._allow_private_addresses = settings.allow_private_addresses
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                # The lane's slots bound the connections.
                limit=0,
                resolver=VettingResolver(allow_private_addresses=settings.allow_private_addresses, look_up=look_up),
                ttl_dns_cache=_DNS_TTL_S,
                keepalive_timeout=_KEEPALIVE_S,
                socket_factory=self._vetted_socket,
                ssl=ssl_context or _default_ssl_context(),
            ),
            request_class=_WatchedRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        self._connecting = connecting
        self._timeouts: set[asyncio.Timeout] = set()
        self._interrupted = False

    async def close(self) -> None:
        await self._session.close()

    def interrupt(self) -> None:
        """Ends all current and later exchanges with the reason `interrupted`."""
        self._interrupted = True
        for timeout in self._timeouts:
            # An expired timeout cannot be rescheduled and ends its exchange anyway.
            if not timeout.expired():
                timeout.reschedule(0)

    async def post(
        self,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        connect_timeout_s: float,
        send_before_s: float,
    ) -> Exchange:
        """Returns what happened, never raises; `timeout_s` ends at the answer's last byte."""
        progress = _Progress(send_before_s=send_before_s)
        if self._interrupted or progress.started_s >= send_before_s:
            return progress.exchange(Evidence.NOT_SENT, reason="interrupted" if self._interrupted else "too_late")
        token = _progress.set(progress)
        timeout = asyncio.timeout(timeout_s)
        self._timeouts.add(timeout)
        try:
            async with timeout:
                return await self._exchange(progress, headers, body, connect_timeout_s)
        except Exception as error:  # noqa: BLE001 - every attempt needs an outcome; a bug shows in the audit
            return self._failed(progress, error)
        finally:
            self._timeouts.discard(timeout)
            _progress.reset(token)

    async def _exchange(
        self, progress: _Progress, headers: Mapping[str, str], body: bytes, connect_timeout_s: float
    ) -> Exchange:
        async with self._session.post(
            self._url, data=body, headers=headers, allow_redirects=False, timeout=_connect_timeout(connect_timeout_s)
        ) as response:
            progress.first_byte_s = time.monotonic()
            progress.status = response.status
            whole = b"".join(chain.from_iterable(response.raw_headers))
            if len(whole) > _HEADERS_BYTES_MAX:
                response.close()
                return progress.too_large(f"the answer's headers are longer than {_HEADERS_BYTES_MAX} bytes")
            # The fast path: ASCII without NUL needs no escaping.
            printable = bytes.decode if whole.isascii() and b"\0" not in whole else _printable
            progress.headers = tuple([(printable(name), printable(value)) for name, value in response.raw_headers])
            room = self._response_bytes_max
            async for chunk in response.content.iter_any():
                progress.chunks.append(chunk[:room])
                room -= len(chunk)
                if room < 0:
                    response.close()
                    return progress.too_large(
                        f"the answer is longer than max_response_bytes = {self._response_bytes_max}"
                    )
            return progress.exchange(Evidence.ANSWERED)

    def _vetted_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Creates the socket for the next address to connect to; raises AddressRefusedError.

        Only here every address is seen: aiohttp does not resolve what looks like one.
        """
        host = str(address[4][0])
        if not self._allow_private_addresses and (why := address_fault(host)):
            raise AddressRefusedError(host, [(host, why)])
        self._connecting()
        return _reset_on_close_socket(address)

    def _failed(self, progress: _Progress, error: Exception) -> Exchange:
        error = unwrapped(error)
        evidence = Evidence.UNANSWERED if progress.sent else Evidence.NOT_SENT
        reason = reason_sent(error) if progress.sent else reason_not_sent(error)
        if self._interrupted and isinstance(error, TimeoutError):
            reason = "interrupted"
        text = f"{type(error).__name__}: {_printable(str(error))}"[:_ERROR_CHARS_MAX]
        return progress.exchange(evidence, reason=reason, error=text, truncated=progress.status is not None)


@cache
def _connect_timeout(connect_timeout_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_timeout_s, ceil_threshold=_NO_CEILING_S)


@cache
def _default_ssl_context() -> ssl.SSLContext:
    """Trusts the public authorities. Some OpenSSL builds would allow TLS 1.0."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reset_on_close_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Creates a socket that discards undelivered bytes and sends a reset when it is closed.

    Otherwise the kernel keeps delivering the request of a failed attempt: a debit could arrive
    minutes later, after its rollback. The loop's buffer is discarded by aiohttp's abort.
    """
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)  # noqa: FBT003 - the system's own signature
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return made


def _printable(raw: bytes | str) -> str:
    """Returns text that Postgres can store, with escapes for NUL, surrogates and invalid UTF-8."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
