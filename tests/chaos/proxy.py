"""A TCP proxy that impairs connections: latency, low bandwidth, black holes, cuts."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.chaos.answers import AnswerLog
from tests.support.postgres_proxy import serving

_PIECE = 65_536
_BANDWIDTH_PERIOD_S = 0.01
_RESET = struct.pack("ii", 1, 0)
Upstream = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""
Tap = Callable[[bytes], None]
"""Is called with a piece of a stream."""


def _untapped(_: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """What is wrong with the network, in both directions."""

    latency_s: float = 0.0
    # 0: unlimited.
    bytes_per_10_ms: int = 0
    # Nothing arrives until the impairment ends.
    is_black_hole: bool = False
    # New connections are reset at once.
    refuses: bool = False
    # A connection is cut after this many bytes of both directions.
    cut_after_bytes: int | None = None


UNIMPAIRED = Impairment()


class Proxy:
    """Forwards 127.0.0.1:`port` to `upstream` with the current `impairment`."""

    def __init__(self, upstream: Upstream, answers: AnswerLog | None) -> None:
        self._upstream = upstream
        self._answers = answers
        self._impairment = UNIMPAIRED
        self._changed = asyncio.Event()
        self._connections: set[_Connection] = set()
        self.port = 0

    @property
    def impairment(self) -> Impairment:
        return self._impairment

    def impair(self, impairment: Impairment) -> None:
        """Impair all connections from now on, open ones as well."""
        self._impairment = impairment
        self._changed.set()
        self._changed = asyncio.Event()

    def cut(self) -> None:
        for connection in tuple(self._connections):
            connection.reset()

    async def through(self, *, size: int) -> None:
        """Wait as long as a piece of this size takes."""
        while self._impairment.is_black_hole:
            await self._changed.wait()
        if self._impairment.latency_s:
            await asyncio.sleep(self._impairment.latency_s)
        if self._impairment.bytes_per_10_ms:
            await asyncio.sleep(_BANDWIDTH_PERIOD_S * size / self._impairment.bytes_per_10_ms)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._upstream, str):
            return await asyncio.open_unix_connection(self._upstream)
        return await asyncio.open_connection(*self._upstream)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side ends it."""
        if self._impairment.refuses:
            _reset(writer)
            return
        try:
            upstream_reader, upstream_writer = await self.connect()
        except OSError:
            _reset(writer)
            return
        connection = _Connection(self, writer, upstream_writer)
        self._connections.add(connection)
        log = self._answers.connection() if self._answers is not None else None
        try:
            await asyncio.gather(
                connection.forward(reader, upstream_writer, sent=log.request if log else _untapped),
                connection.forward(upstream_reader, writer, forwarded=log.answer if log else _untapped),
            )
        except asyncio.CancelledError:
            # At the end of a run; asyncio's streams would log a cancelled connection.
            pass
        finally:
            self._connections.discard(connection)
            connection.close()


class _Connection:
    """A client's connection, and ours to the upstream."""

    def __init__(self, proxy: Proxy, *ends: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._ends = ends
        self._forwarded = 0

    def reset(self) -> None:
        for end in self._ends:
            _reset(end)

    def close(self) -> None:
        for end in self._ends:
            end.close()

    async def forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        sent: Tap = _untapped,
        forwarded: Tap = _untapped,
    ) -> None:
        """Forward until the end; `sent` gets each piece at once, `forwarded` when it leaves."""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_PIECE):
                sent(piece)
                room = self._proxy.impairment.cut_after_bytes
                if room is not None and self._forwarded + len(piece) > room:
                    writer.write(piece[: max(0, room - self._forwarded)])
                    self.reset()
                    return
                self._forwarded += len(piece)
                await self._proxy.through(size=len(piece))
                forwarded(piece)
                writer.write(piece)
                await writer.drain()
            # HTTP and Postgres both end with the first end of input.
        self.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    ours: socket.socket | None = writer.get_extra_info("socket")
    if ours is not None and ours.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def proxied(upstream: Upstream, *, answers: AnswerLog | None = None) -> AsyncIterator[Proxy]:
    """Run a proxy in front of `upstream`; its connections are cut after the block.

    `answers` gets the answers of an operator as `upstream`.
    """
    proxy = Proxy(upstream, answers)

    def leave() -> None:
        proxy.impair(UNIMPAIRED)
        proxy.cut()

    async with serving(proxy, leave):
        yield proxy
