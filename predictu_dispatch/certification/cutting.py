"""Sends a request on a connection of its own and resets the connection before the answer is read.

Connections are opened by edge/http; only what follows is done here. A reset discards what the
kernel has not sent yet, so before it the peer's kernel must have acknowledged every byte.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Mapping
from typing import Final, cast

from typing_extensions import override

from predictu_dispatch.certification.steps import Delivery
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.callback_url import host_header, request_target
from predictu_dispatch.edge.http.connector import Connector, peer_of
from predictu_dispatch.edge.http.failure_reason import reason_not_sent, unwrapped

NEVER_READ_S: Final = 2.0
"""How long a connection stays open whose answer is not read."""
CUT: Final = "cut"
"""The reason of a request whose connection we reset on purpose."""
_POLL_S: Final = 0.001
_QUIET_POLLS: Final = 3
"""Polls with nothing left to send. Under TLS the loop may still have bytes for the kernel."""


def request_head(method: str, url: str, headers: Mapping[str, str], length: int) -> bytes:
    """Return a request's first line and headers, as edge/http/transport.py writes them."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    first_lines = f"{method} {request_target(url)} HTTP/1.1\r\nHost: {host_header(url)}\r\n"
    return f"{first_lines}{fields}Content-Length: {length}\r\n\r\n".encode()


async def cut(
    connector: Connector, *, head: bytes, body: bytes, delivery: Delivery, timeout_s: float, connect_timeout_s: float
) -> Exchange:
    """Send the request, or half of its body, and reset the connection. Never raises.

    The evidence is `unanswered` as soon as a byte was written: the operator may have booked it.
    """
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(min(timeout_s, connect_timeout_s)):
            opened = await connector.open()
    except Exception as failed:  # noqa: BLE001 - every sending needs an outcome
        error = unwrapped(failed)
        return Exchange(
            evidence=Evidence.NOT_SENT,
            reason=reason_not_sent(error),
            error=f"{type(error).__name__}: {error}".removesuffix(": "),
            total_ms=_ms_since(started_s),
        )
    connect_ms = _ms_since(started_s)
    transport = cast("asyncio.Transport", opened.transport)
    peer, certificate = peer_of(transport)
    try:
        transport.set_protocol(_UnreadProtocol())
        transport.pause_reading()
        sent = head + (body[: len(body) // 2] if delivery is Delivery.CUT_INSIDE_BODY else body)
        transport.write(sent)
        fault = await _fault_of_sending(transport, until_s=started_s + timeout_s)
        if delivery is Delivery.NEVER_READ and not fault:
            await asyncio.sleep(NEVER_READ_S)
    finally:
        # The socket lingers for 0 s, so this sends a reset.
        transport.abort()
        opened.close()
    return Exchange(
        evidence=Evidence.UNANSWERED,
        reason=CUT,
        error=fault or _DONE[delivery],
        connect_ms=connect_ms,
        total_ms=_ms_since(started_s),
        peer=peer,
        peer_certificate_sha256=certificate,
    )


_DONE: Final = {
    Delivery.CUT_AFTER_BODY: "the connection was reset on purpose after the whole request",
    Delivery.CUT_INSIDE_BODY: "the connection was reset on purpose inside the body",
    Delivery.NEVER_READ: "the answer was not read on purpose",
}


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


def _ms_since(started_s: float) -> float:
    return (time.monotonic() - started_s) * 1000
