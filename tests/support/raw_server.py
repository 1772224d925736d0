"""A scripted server on a real socket, and the transport connected to it."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.operator_settings import OperatorSettings, TlsSettings
from predictu_dispatch.edge.config.operator_file import read_tls
from predictu_dispatch.edge.http.transport import Transport

BODY = '{"method":"PING","params":{"note":"€"}}'.encode()
HEADERS = (("Content-Type", "application/json"), ("Authorization", "Bearer a.b.c"), ("Accept-Encoding", "identity"))
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"OK"}'
TIMEOUT_S = 5.0
"""The timeout of exchanges that are not about timeouts."""
BOUND_S = 3.0
"""An exchange with a timeout of a fraction of a second ends within this on a slow machine."""


class Peer:
    """One connection, from the server's side."""

    def __init__(self, server: "RawServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Reads and records one complete request. Raises IncompleteReadError if it never comes."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        request = head + await self.reader.readexactly(int(lines[b"content-length"]))
        self.server.requests.append(request)
        self.server.arrivals.put_nowait(request)
        return request

    async def send(self, answer: bytes) -> None:
        """Sends these bytes. Raises ConnectionError once the other side has closed."""
        self.writer.write(answer)
        await self.writer.drain()
        self.server.bytes_sent += len(answer)

    async def send_forever(self, piece: bytes, *, pause_s: float = 0.0) -> None:
        while True:
            await self.send(piece)
            await asyncio.sleep(pause_s)

    def reset(self) -> None:
        """Closes the connection with a RST instead of a FIN."""
        tcp: socket.socket = self.writer.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def read_until_closed(self) -> None:
        """Records everything that still comes until the other side closes."""
        while received := await self.reader.read(65_536):
            self.server.unexpected_bytes += received


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """Runs a script for each TCP connection on 127.0.0.1 and records the bytes received."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ("127.0.0.1", 0)
        self.connections = 0
        self.requests: list[bytes] = []
        self.unexpected_bytes = b""
        self.bytes_sent = 0
        self.arrivals: asyncio.Queue[bytes] = asyncio.Queue()
        self.got_connection = asyncio.Event()
        self.hung_up = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}/predictu"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.got_connection.set()
        task = asyncio.get_running_loop().create_task(self._talk(Peer(self, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, peer: Peer) -> None:
        try:
            await self._script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            # The other side closed, which several tests are about.
            pass
        finally:
            self.hung_up.set()
            peer.writer.close()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["RawServer"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)
        self.address = server.sockets[0].getsockname()
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()


def answering(*answers: bytes) -> Script:
    """Answers each request with the next of `answers`, then reads until the client closes."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.read_until_closed()

    return script


def settings_for(url: str, **tables: Any) -> OperatorSettings:
    return OperatorSettings.model_validate(
        {
            "operator_id": "op_abc123",
            "callback_url": url,
            "allow_insecure_http": True,
            "allow_private_addresses": True,
            "signing": {"key_file": "op_abc123.pem"},
            **tables,
        }
    )


def tls_context(tls: TlsSettings) -> ssl.SSLContext | None:
    """Returns the context that the daemon makes from an operator's [tls]."""
    files, faults = read_tls(tls, Path("op_abc123.toml"), {})
    assert faults == ()
    return files.context


@asynccontextmanager
async def transport_to(url: str, **tables: Any) -> AsyncIterator[Transport]:
    settings = settings_for(url, **tables)
    transport = Transport(settings, tls_context(settings.tls))
    try:
        yield transport
    finally:
        await transport.close()


async def post(
    transport: Transport,
    *,
    timeout_s: float = TIMEOUT_S,
    connect_timeout_s: float = TIMEOUT_S,
    send_before_s: float = float("inf"),
    body: bytes = BODY,
) -> Exchange:
    return await transport.post(
        headers=dict(HEADERS),
        body=body,
        timeout_s=timeout_s,
        connect_timeout_s=connect_timeout_s,
        send_before_s=send_before_s,
    )


async def exchange_with(script: Script, *, timeout_s: float = TIMEOUT_S, **tables: Any) -> tuple[Exchange, RawServer]:
    async with RawServer(script).running() as server, transport_to(server.url, **tables) as transport:
        async with asyncio.timeout(BOUND_S):
            exchange = await post(transport, timeout_s=timeout_s)
        return exchange, server


def evidence_and_reason(exchange: Exchange) -> tuple[Evidence, str | None]:
    return exchange.evidence, exchange.reason


async def never_answer(peer: Peer) -> None:
    await peer.request()
    await peer.read_until_closed()
