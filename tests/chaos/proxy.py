"""A proxy before any TCP service that does to it what networks do: delay, dripping, black holes, cuts and resets."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.postgres_proxy import serving

_PIECE = 65_536
_DRIP_S = 0.01
_RESET = struct.pack("ii", 1, 0)
Upstream = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with the line; each direction is treated alike."""

    latency_s: float = 0.0
    # So many bytes at a time, with a pause after each.
    drip_bytes: int = 0
    # What was sent stays on the way until the line is well again.
    is_black_hole: bool = False
    # New connections are reset at once.
    refuses: bool = False
    # A connection is cut after so many bytes of either direction.
    cut_after_bytes: int | None = None


WELL = Trouble()


class Proxy:
    """Forwards 127.0.0.1:`port` to `upstream` with the `trouble` of this moment."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._trouble = WELL
        self._changed = asyncio.Event()
        self._lines: set[_Line] = set()
        self.port = 0

    @property
    def trouble(self) -> Trouble:
        return self._trouble

    def suffer(self, trouble: Trouble) -> None:
        """From now on the line is so, for connections that are there as well."""
        self._trouble = trouble
        self._changed.set()
        self._changed = asyncio.Event()

    def cut(self) -> None:
        """Every connection is reset in this moment."""
        for line in tuple(self._lines):
            line.reset()

    async def through(self, *, size: int) -> None:
        """A piece of this size has made its way; returns at once where nothing is wrong."""
        while self._trouble.is_black_hole:
            await self._changed.wait()
        if self._trouble.latency_s:
            await asyncio.sleep(self._trouble.latency_s)
        if self._trouble.drip_bytes:
            await asyncio.sleep(_DRIP_S * size / self._trouble.drip_bytes)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._upstream, str):
            return await asyncio.open_unix_connection(self._upstream)
        return await asyncio.open_connection(*self._upstream)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        if self._trouble.refuses:
            _reset(writer)
            return
        try:
            upstream_reader, upstream_writer = await self.connect()
        except OSError:
            # Whom we stand for is away, and so are we.
            _reset(writer)
            return
        line = _Line(self, writer, upstream_writer)
        self._lines.add(line)
        try:
            await asyncio.gather(line.carry(reader, upstream_writer), line.carry(upstream_reader, writer))
        except asyncio.CancelledError:
            # The world is ending; asyncio's streams would complain of a cancelled connection.
            pass
        finally:
            self._lines.discard(line)
            line.end()


class _Line:
    """One connection of a client, and ours for it."""

    def __init__(self, proxy: Proxy, *ends: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._ends = ends
        self._carried = 0

    def reset(self) -> None:
        for end in self._ends:
            _reset(end)

    def end(self) -> None:
        for end in self._ends:
            end.close()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_PIECE):
                room = self._proxy.trouble.cut_after_bytes
                if room is not None and self._carried + len(piece) > room:
                    writer.write(piece[: max(0, room - self._carried)])
                    self.reset()
                    return
                self._carried += len(piece)
                await self._proxy.through(size=len(piece))
                writer.write(piece)
                await writer.drain()
            # One side has said all it will: HTTP and Postgres both end with that.
        self.end()


def _reset(writer: asyncio.StreamWriter) -> None:
    ours: socket.socket | None = writer.get_extra_info("socket")
    if ours is not None and ours.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def proxied(upstream: Upstream) -> AsyncIterator[Proxy]:
    """A proxy before `upstream`, gone with all its connections afterwards."""
    proxy = Proxy(upstream)

    def leave() -> None:
        proxy.suffer(WELL)
        proxy.cut()

    async with serving(proxy, leave):
        yield proxy
