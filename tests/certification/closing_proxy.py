"""An HTTP proxy that sends each request on a connection of its own and closes both after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


@asynccontextmanager
async def closing_proxy(url: str, *, delay_s: float) -> AsyncIterator[str]:
    """Forward every request after `delay_s`; yield the URL of the proxy for this URL."""
    parts = urlsplit(url)
    open_connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await _forward(reader, writer, (str(parts.hostname), int(parts.port or 0)), delay_s)
        except asyncio.CancelledError:
            # At the end of the block; asyncio's streams would log a cancelled connection.
            pass
        finally:
            open_connections.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{parts.path}"
    finally:
        server.close()
        for task in tuple(open_connections):
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: tuple[str, int], delay_s: float
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    first_line, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = dict(header.split(b": ", 1) for header in headers)
    length = next((int(value) for name, value in fields.items() if name.lower() == b"content-length"), 0)
    body = await reader.readexactly(length)
    await asyncio.sleep(delay_s)
    upstream_reader, upstream_writer = await asyncio.open_connection(*upstream)
    try:
        # The operator then closes the connection and says so in its answer.
        upstream_writer.write(b"\r\n".join([first_line, *headers, b"Connection: close"]) + b"\r\n\r\n" + body)
        answer = await upstream_reader.read(-1)
    finally:
        upstream_writer.close()
    writer.write(answer)
    await writer.drain()
