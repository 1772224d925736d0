"""An operator that records every byte of every connection, also of those that are reset."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from typing_extensions import override

from tests.support.raw_server import BOUND_S, OK


class Arrival(asyncio.Protocol):
    """One connection at the operator: what arrived on it, and how it ended."""

    def __init__(self, server: "Operator") -> None:
        self.server = server
        self.received = b""
        self.error: Exception | None = None
        self.ended = asyncio.get_running_loop().create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.arrivals.append(self)
        self.server.got_connection.set()
        if not self.server.reads:
            self.transport.pause_reading()

    @override
    def data_received(self, data: bytes) -> None:
        self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        if body and len(body) == int(head.lower().partition(b"content-length: ")[2].split()[0]):
            self.transport.write(self.server.answer)
            self.server.got_request.set()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.ended.set_result(None)

    @property
    def body(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[2]


class Operator:
    """Answers each complete request.

    With `reads` false it reads later, or never, and its kernel takes a few kilobytes meanwhile.
    """

    def __init__(self, *, answer: bytes = OK, reads: bool = True) -> None:
        self.answer = answer
        self.reads = reads
        self.arrivals: list[Arrival] = []
        self.got_connection = asyncio.Event()
        self.got_request = asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Operator"]:
        listener = socket.create_server(("127.0.0.1", 0))
        if not self.reads:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server = await asyncio.get_running_loop().create_server(lambda: Arrival(self), sock=listener, ssl=tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/predictu"
        try:
            yield self
        finally:
            server.close()
            for arrival in self.arrivals:
                arrival.transport.abort()
            await server.wait_closed()

    async def only_arrival(self) -> Arrival:
        """Return the only connection once it has ended."""
        async with asyncio.timeout(BOUND_S):
            [arrival] = self.arrivals
            await arrival.ended
        return arrival
