"""A proxy before Postgres that can lose requests, keep answers, and cut connections.

It reads enough of the protocol to know which statement a message belongs to: a Parse names a
statement and its text, a Bind names the statement it runs, a Query has its own text. Source:
PostgreSQL documentation, "Message Formats".
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol
from urllib.parse import parse_qs, urlsplit


class Trick(Enum):
    """What the proxy does with the next run of a statement."""

    LOSE_REQUEST = "the server never receives it"
    KEEP_ANSWER = "the server receives it, and its answer stays in the proxy"


@dataclass(slots=True, eq=False)
class _Line:
    """One connection of the daemon and its connection to the server."""

    to_client: asyncio.StreamWriter
    to_server: asyncio.StreamWriter
    statements: dict[bytes, bytes] = field(default_factory=dict)
    kept: bytearray | None = None
    is_silent: bool = False

    def cut(self) -> None:
        self.to_client.transport.abort()
        self.to_server.transport.abort()


class PostgresProxy:
    """Forwards 127.0.0.1:`port` to the server of `dsn`, which may be a Unix socket."""

    def __init__(self, dsn: str) -> None:
        self._upstream = urlsplit(dsn)
        self._lines: set[_Line] = set()
        self._trick: tuple[bytes, Trick] | None = None
        self._wanted: bytes | None = None
        self._times = 0
        self._refuses = False
        self.refused = 0
        self._runs: list[bytes] = []
        self.caught = asyncio.Event()
        self.port = 0

    def dsn(self) -> str:
        """The same database and login, through the proxy."""
        login = self._upstream.netloc.rpartition("@")[0]
        return f"postgresql://{login}@127.0.0.1:{self.port}{self._upstream.path}?sslmode=disable"

    def on_next(self, marker: str, trick: Trick, *, times: int = 1) -> None:
        """Applies the trick to the next runs of a statement whose text has `marker`.

        `caught` is set after the last.
        """
        self._trick = (marker.encode(), trick)
        self._times = times
        self.caught.clear()

    def keep_answer_with(self, content: str) -> None:
        """Keeps the next answer that has this text; `caught` is set when it came."""
        self._wanted = content.encode()
        self.caught.clear()

    def runs(self, marker: str) -> int:
        """Returns how often statements whose text has `marker` were run."""
        return sum(marker.encode() in text for text in self._runs)

    def release_answers(self) -> None:
        """Sends every kept answer to its daemon."""
        for line in self._lines:
            if line.kept is not None:
                line.to_client.write(bytes(line.kept))
                line.kept = None

    def cut(self) -> None:
        """Cuts every connection; new ones are accepted."""
        for line in self._lines:
            line.cut()

    def refuse_connections(self) -> None:
        """Cuts every connection and refuses new ones."""
        self._refuses = True
        self.cut()

    def accept_connections(self) -> None:
        self._refuses = False

    def fall_silent(self) -> None:
        """Drops everything in both directions without closing, as a pulled cable does."""
        for line in self._lines:
            line.is_silent = True
            line.kept = line.kept or bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            self.refused += 1
            writer.transport.abort()
            return
        server_reader, server_writer = await self._connect()
        line = _Line(to_client=writer, to_server=server_writer)
        self._lines.add(line)
        try:
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(self._carry_requests(line, reader))
                both_ways.create_task(self._carry_answers(line, server_reader))
        finally:
            self._lines.discard(line)
            line.cut()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        query = parse_qs(self._upstream.query)
        if "host" in query:
            return await asyncio.open_unix_connection(f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}")
        return await asyncio.open_connection(self._upstream.hostname, self._upstream.port or 5432)

    async def _carry_requests(self, line: _Line, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            # The first message has no kind: protocol version and settings.
            first = await reader.readexactly(4)
            line.to_server.write(first + await reader.readexactly(int.from_bytes(first) - 4))
            while True:
                head = await reader.readexactly(5)
                content = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                self._read_message(line, head[:1], content)
                if not line.is_silent:
                    line.to_server.write(head + content)
                    await line.to_server.drain()
        line.cut()

    def _read_message(self, line: _Line, kind: bytes, content: bytes) -> None:
        if kind == b"P":
            name, text, _ = content.split(b"\0", 2)
            line.statements[name] = text
        elif kind == b"B":
            _, name, _ = content.split(b"\0", 2)
            self._note_run(line, line.statements.get(name, b""))
        elif kind == b"Q":
            self._note_run(line, content)

    def _note_run(self, line: _Line, text: bytes) -> None:
        self._runs.append(text)
        if self._trick is not None and self._trick[0] in text:
            line.is_silent = self._trick[1] is Trick.LOSE_REQUEST
            line.kept = bytearray()
            self._times -= 1
            if self._times == 0:
                self._trick = None
                self.caught.set()

    async def _carry_answers(self, line: _Line, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                if self._wanted is not None and self._wanted in piece:
                    self._wanted, line.kept = None, bytearray()
                    self.caught.set()
                if line.kept is not None:
                    line.kept += piece
                else:
                    line.to_client.write(piece)
                    await line.to_client.drain()
        line.cut()


class ProxyServer(Protocol):
    """A proxy that serves the connections to `port`."""

    port: int

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until it ends."""


@asynccontextmanager
async def serving(
    proxy: ProxyServer, close: Callable[[], None], listening: socket.socket | None = None
) -> AsyncIterator[None]:
    """Serves the proxy on this socket or a free port; `close` ends its connections afterwards."""
    server = await asyncio.start_server(proxy.serve, sock=listening or socket.create_server(("127.0.0.1", 0)))
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        close()
        await server.wait_closed()


@asynccontextmanager
async def proxied(dsn: str, listening: socket.socket | None = None) -> AsyncIterator[PostgresProxy]:
    """Serves a proxy in front of the server of `dsn`; cuts its connections afterwards."""
    proxy = PostgresProxy(dsn)
    async with serving(proxy, proxy.refuse_connections, listening):
        yield proxy
