"""A proxy of our own, served on a port of this machine for as long as somebody needs it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol


class Served(Protocol):
    """What stands between two sides; `port` is where the one connects."""

    port: int

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""


@asynccontextmanager
async def served(proxy: Served, leave: Callable[[], None]) -> AsyncIterator[None]:
    """The proxy on a free port; `leave` ends its connections afterwards."""
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        leave()
        await server.wait_closed()
