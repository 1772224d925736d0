"""POSTs requests to an operator over HTTP and reports what was really sent and received.

Evidence: until `Connection.send` nothing was sent; from then on something may have been.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.callback_url import host_header, request_target
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.edge.http.connection import Connection
from predictu_dispatch.edge.http.connector import Connector
from predictu_dispatch.edge.http.failure_reason import (
    CLOSED_BEFORE_REQUEST,
    UnsolicitedDataError,
    reason_not_sent,
    unwrapped,
)
from predictu_dispatch.edge.http.resolver import LookUp, look_up

_ERROR_CHARS_MAX = 500
"""aiohttp's errors quote what the operator sent, and the text is stored for every attempt."""
_TURNS_MAX = 5
"""More than the loop needs to read what has come; who sends on and on is not called."""


class Transport:
    """The connections of one operator's lane. Answers are never followed, unpacked or trusted.

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
        self._connector = Connector(settings, ssl_context, look_up=look_up, connecting=connecting)
        url = settings.callback_url
        self._request_line = f"POST {request_target(url)} HTTP/1.1\r\nHost: {host_header(url)}\r\n"
        self._response_bytes_max = settings.limits.max_response_bytes
        self._idle: list[Connection] = []
        """The last one is reused first, so that those that are not needed reach their end."""
        self._idle_check: asyncio.TimerHandle | None = None
        self._idle_check_s = 0.0
        self._busy: set[Connection] = set()
        self._connecting: set[asyncio.Timeout] = set()
        self._is_interrupted = False

    async def close(self) -> None:
        """Interrupts all exchanges and closes all connections."""
        self.interrupt()
        if self._idle_check is not None:
            self._idle_check.cancel()
        for connection in self._idle:
            connection.abort()
        await self._connector.close()

    def interrupt(self) -> None:
        """Ends all current and later exchanges with the reason `interrupted`."""
        self._is_interrupted = True
        for connection in self._busy:
            connection.fail("interrupted", "this daemon stopped")
        for timeout in self._connecting:
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
        started_s = now_s = time.monotonic()
        if self._is_interrupted or started_s >= send_before_s:
            return _not_sent(started_s, reason="interrupted" if self._is_interrupted else "too_late")
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        request = f"{self._request_line}{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body
        connection = self._take_idle(now_s)
        if connection is None:
            try:
                connection = await self._connect(min(timeout_s, connect_timeout_s))
            except Exception as error:  # noqa: BLE001 - every attempt needs an outcome; a bug shows in the audit
                return self._failed_to_connect(started_s, unwrapped(error))
            now_s = time.monotonic()
        # Checked at the last moment: a process that was suspended must not send a debit that was
        # rolled back meanwhile.
        if time.monotonic() >= send_before_s:
            connection.abort()
            return _not_sent(started_s, reason="too_late", connected_s=now_s)
        timer = asyncio.get_running_loop().call_later(
            timeout_s - (now_s - started_s), connection.fail, "timeout", "the timeout ended before the answer"
        )
        self._busy.add(connection)
        try:
            connection.send(request)
            await connection.answered()
        except Exception as error:  # noqa: BLE001 - as above; something may have been sent
            connection.failure = ("internal_error", f"{type(error).__name__}: {error}")
        finally:
            timer.cancel()
            self._busy.discard(connection)
            self._keep(connection)
        return exchange_of(connection, started_s=started_s, connected_s=now_s)

    async def connect(self, timeout_s: float) -> str | None:
        """Opens a connection for later requests; returns why it could not be opened, else None."""
        started_s = time.monotonic()
        try:
            connection = await self._connect(timeout_s)
        except Exception as error:  # noqa: BLE001 - as above
            return self._failed_to_connect(started_s, unwrapped(error)).reason
        self._keep(connection)
        return None

    async def _connect(self, timeout_s: float) -> Connection:
        timeout = asyncio.timeout(timeout_s)
        self._connecting.add(timeout)
        try:
            async with timeout:
                opened = await self._connector.open()
                connection = Connection(opened, response_bytes_max=self._response_bytes_max)
                try:
                    is_quiet = await _is_read_to_the_end(connection)
                except BaseException:
                    connection.abort()
                    raise
        finally:
            self._connecting.discard(timeout)
        if self._is_interrupted:
            # In the turn of the loop in which it was opened.
            connection.abort()
            raise TimeoutError
        if not connection.is_idle or not is_quiet:
            connection.abort()
            if connection.got_unsolicited_data:
                raise UnsolicitedDataError
            raise ConnectionResetError(CLOSED_BEFORE_REQUEST)
        return connection

    def _take_idle(self, now_s: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle and now_s < connection.idle_until_s and not connection.is_readable():
                return connection
            connection.abort()
        return None

    def _keep(self, connection: Connection) -> None:
        """Keeps the connection for reuse if its exchange allows it, else closes it."""
        if self._is_interrupted or not connection.is_idle:
            connection.abort()
            return
        self._idle.append(connection)
        if self._idle_check is None or connection.idle_until_s < self._idle_check_s:
            self._check_idle_at(connection.idle_until_s)

    def _check_idle_at(self, at_s: float) -> None:
        if self._idle_check is not None:
            self._idle_check.cancel()
        self._idle_check_s = at_s
        delay_s = max(0.0, at_s - time.monotonic())
        self._idle_check = asyncio.get_running_loop().call_later(delay_s, self._close_idle)

    def _close_idle(self) -> None:
        """Closes connections that were idle for too long."""
        self._idle_check = None
        now_s = time.monotonic()
        for connection in self._idle:
            if now_s >= connection.idle_until_s:
                connection.abort()
        self._idle = [connection for connection in self._idle if connection.is_idle]
        if self._idle:
            self._check_idle_at(min(connection.idle_until_s for connection in self._idle))

    def _failed_to_connect(self, started_s: float, error: Exception) -> Exchange:
        is_interrupted = self._is_interrupted and isinstance(error, TimeoutError)
        reason = "interrupted" if is_interrupted else reason_not_sent(error)
        return _not_sent(started_s, reason=reason, error=f"{type(error).__name__}: {error}".removesuffix(": "))


async def _is_read_to_the_end(connection: Connection) -> bool:
    """Lets the loop read what the operator sent with the handshake: TLS tickets, or its end.

    Returns whether nothing is left, as of this turn of the loop.
    """
    turns = _TURNS_MAX
    # TLS may hold bytes that it has read with the handshake.
    while (is_readable := connection.is_readable()) or (connection.is_tls and turns == _TURNS_MAX):
        if not turns:
            break
        turns -= 1
        await asyncio.sleep(0)
    return not is_readable


def _not_sent(started_s: float, *, reason: str, error: str | None = None, connected_s: float | None = None) -> Exchange:
    return Exchange(
        evidence=Evidence.NOT_SENT,
        reason=reason,
        error=None if error is None else _printable(error)[:_ERROR_CHARS_MAX],
        connect_ms=None if connected_s is None else (connected_s - started_s) * 1000,
        total_ms=(time.monotonic() - started_s) * 1000,
    )


def exchange_of(connection: Connection, *, started_s: float, connected_s: float) -> Exchange:
    """Returns what came of a request that was sent."""
    reason, error = connection.failure or (None, None)
    head = connection.head.decode("utf-8", "backslashreplace").split("\0")
    return Exchange(
        evidence=Evidence.ANSWERED if reason is None else Evidence.UNANSWERED,
        reason=reason,
        error=None if error is None else _printable(error)[:_ERROR_CHARS_MAX],
        status=connection.status,
        headers=tuple(zip(head[::2], head[1::2], strict=False)),
        body=connection.body(),
        truncated=reason is not None and connection.status is not None,
        connect_ms=(connected_s - started_s) * 1000,
        first_byte_ms=None if connection.first_byte_s is None else (connection.first_byte_s - started_s) * 1000,
        total_ms=(time.monotonic() - started_s) * 1000,
        peer=connection.peer,
        peer_certificate_sha256=connection.peer_certificate_sha256,
    )


def _printable(text: str) -> str:
    """Returns text that Postgres can store, with escapes for NUL and surrogates."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
