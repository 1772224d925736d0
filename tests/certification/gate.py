"""A TCP gate ahead of an operator: while it is shut, it refuses connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Gate:
    """Forwards connections to an operator's URL; `url` is that of the gate."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self._upstream.path}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Refuse new connections, and reset the open ones."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        both = {writer, onward}
        self._writers |= both
        try:
            await asyncio.gather(_pump(reader, onward), _pump(onward_reader, writer))
        finally:
            self._writers -= both
            for each in both:
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while octets := await reader.read(65_536):
            writer.write(octets)
        writer.close()


@asynccontextmanager
async def gate_to(upstream: str) -> AsyncIterator[Gate]:
    """Open a gate; it is shut at the end of the block."""
    gate = Gate(upstream)
    await gate.open()
    try:
        yield gate
    finally:
        gate.shut()
