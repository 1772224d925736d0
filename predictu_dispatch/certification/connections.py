"""Sends one request on a connection of its own: reads the answer, or resets the connection.

Connections are opened and answers are read by edge/http. A reset discards what the kernel has not
sent yet, so before it the peer's kernel must have acknowledged every byte.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from aiohttp.connector import Connection as OpenConnection
from typing_extensions import override

from predictu_dispatch.certification.steps import Delivery
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.callback_url import host_header, request_target
from predictu_dispatch.edge.http.connection import Connection
from predictu_dispatch.edge.http.connector import Connector, peer_of
from predictu_dispatch.edge.http.failure_reason import CLOSED_BEFORE_REQUEST, reason_not_sent, unwrapped
from predictu_dispatch.edge.http.transport import exchange_of

NEVER_READ_S: Final = 2.0
"""How long a connection stays open whose answer is not read."""
READ_S: Final = 0.1
"""Time for the operator's process to read a request: a reset discards what only its kernel has."""
CUT: Final = "cut"
"""The reason of a request whose connection we reset on purpose."""
_DONE: Final = {
    Delivery.CUT_AFTER_BODY: "the connection was reset on purpose after the whole request",
    Delivery.CUT_AT_ONCE: "the connection was reset on purpose after the whole request",
    Delivery.CUT_INSIDE_BODY: "the connection was reset on purpose inside the body",
    Delivery.NEVER_READ: "the answer was not read on purpose",
}
_POLL_S: Final = 0.001
_QUIET_POLLS: Final = 3
"""Polls with nothing left to send. Under TLS the loop may still have bytes for the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open connection that has carried nothing."""

    connection: OpenConnection
    transport: asyncio.Transport
    took_s: float

    def reset(self) -> None:
        """Close it at once, if it is open. The socket lingers for 0 s, so this sends a reset."""
        self.transport.abort()
        self.connection.close()


async def open_connection(connector: Connector, *, timeout_s: float) -> Opened | Exchange:
    """Return an open connection, or the exchange of a request that could not be sent."""
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            opened = await connector.open()
    except Exception as failed:  # noqa: BLE001 - every sending needs an outcome
        return _not_sent(unwrapped(failed), started_s)
    return Opened(
        connection=opened,
        transport=cast("asyncio.Transport", opened.transport),
        took_s=time.monotonic() - started_s,
    )


def request_head(method: str, url: str, headers: Mapping[str, str]) -> bytes:
    """Return a request's first line and headers, as edge/http/transport.py writes them."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {request_target(url)} HTTP/1.1\r\nHost: {host_header(url)}\r\n{fields}\r\n".encode()


async def exchange_on(opened: Opened, request: bytes, *, timeout_s: float, response_bytes_max: int) -> Exchange:
    """Send the request, return what came of it and close the connection."""
    connected_s = time.monotonic()
    started_s = connected_s - opened.took_s
    connection = Connection(opened.connection, response_bytes_max=response_bytes_max)
    if not connection.is_idle:
        connection.abort()
        return _not_sent(ConnectionResetError(CLOSED_BEFORE_REQUEST), started_s)
    timer = asyncio.get_running_loop().call_later(
        timeout_s, connection.fail, "timeout", "the timeout ended before the answer"
    )
    try:
        connection.send(request)
        await connection.answered()
        return exchange_of(connection, started_s=started_s, connected_s=connected_s)
    finally:
        timer.cancel()
        connection.abort()


async def cut(opened: Opened, *, head: bytes, body: bytes, delivery: Delivery, timeout_s: float) -> Exchange:
    """Send the request, or half of its body, and reset the connection.

    The evidence is `unanswered` whatever was written: the operator may have booked it.
    """
    started_s = time.monotonic()
    transport = opened.transport
    peer, certificate = peer_of(transport)
    try:
        transport.set_protocol(_UnreadProtocol())
        transport.pause_reading()
        transport.write(head + (body[: len(body) // 2] if delivery is Delivery.CUT_INSIDE_BODY else body))
        fault = await _fault_of_sending(transport, until_s=started_s + timeout_s)
        if not fault:
            open_s = {Delivery.CUT_AFTER_BODY: READ_S, Delivery.NEVER_READ: NEVER_READ_S}.get(delivery, 0.0)
            await asyncio.sleep(open_s)
    finally:
        opened.reset()
    return Exchange(
        evidence=Evidence.UNANSWERED,
        reason=CUT,
        error=fault or _DONE[delivery],
        connect_ms=opened.took_s * 1000,
        total_ms=(opened.took_s + time.monotonic() - started_s) * 1000,
        peer=peer,
        peer_certificate_sha256=certificate,
    )


def _not_sent(error: Exception, started_s: float) -> Exchange:
    return Exchange(
        evidence=Evidence.NOT_SENT,
        reason=reason_not_sent(error),
        error=f"{type(error).__name__}: {error}".removesuffix(": "),
        total_ms=(time.monotonic() - started_s) * 1000,
    )


class _UnreadProtocol(asyncio.Protocol):
    """Ignores what comes: an answer may arrive before reading is paused."""

    @override
    def data_received(self, data: bytes) -> None:
        """Nobody reads the answer."""


async def _fault_of_sending(transport: asyncio.Transport, *, until_s: float) -> str:
    """Wait until the peer's kernel has every byte; return what kept it from that, else ""."""
    connection: socket.socket = transport.get_extra_info("socket")
    quiet_polls = 0
    while quiet_polls < _QUIET_POLLS:
        if transport.is_closing() or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return "the operator closed the connection before it had the whole request"
        if time.monotonic() >= until_s:
            return "the operator's host did not take the whole request before the timeout"
        is_quiet = transport.get_write_buffer_size() == 0 and _unacknowledged_bytes(connection) == 0
        quiet_polls = quiet_polls + 1 if is_quiet else 0
        await asyncio.sleep(_POLL_S)
    return ""


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """Return the bytes in the kernel that the peer has not acknowledged (SIOCOUTQ, tcp(7))."""
    count = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", count)[0])
