"""A small HTTP/1.1 server for GET and HEAD, whose clients cannot slow down deliveries.

It limits the connections, the bytes of a request, and the time for a request, for an answer and
between requests. A request has no body, and the next one comes after the answer.
Nothing that a client sends is logged.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import unquote, urlsplit

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser
from typing_extensions import override

CONNECTIONS_MAX: Final = 128
"""Of one address. Past it, a new one replaces the one that has waited longest for a request."""
_BACKLOG: Final = 64
"""Below CONNECTIONS_MAX, so that a flood of connections leaves a new one a turn of the loop."""
REQUEST_TIMEOUT_S: Final = 5.0
"""From the connection, or from a later request's first byte, to the end of the request."""
IDLE_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 15.0
_LINGER_S: Final = 1.0
"""How long the client may read the last answer; a reset at once could discard it."""
REQUEST_BYTES_MAX: Final = 8192
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer to a request; the parts are written one by one, so that none blocks the loop."""

    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    parts: Sequence[bytes] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[str], Awaitable[Answer]]
"""Returns the answer to GET for a path, which is percent-decoded and has no query."""


class Listener:
    """The connections of one address."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._waiting: dict[_Connection, None] = {}
        """Connections without a request, the one that has waited longest first."""

    async def start(self, host: str, port: int) -> str:
        """Starts listening; returns the URL, with the system's port for 0. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self, self._respond), host, port, backlog=_BACKLOG)
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return f"http://[{bound_host}]:{bound_port}" if ":" in bound_host else f"http://{bound_host}:{bound_port}"

    def stop(self) -> None:
        """Stops listening and closes every connection at once."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close()

    def opened(self, connection: _Connection) -> None:
        self._connections.add(connection)
        if len(self._connections) > CONNECTIONS_MAX:
            # The new one itself if all others are being answered.
            next(iter(self._waiting)).close()

    def closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._waiting.pop(connection, None)

    def waits(self, connection: _Connection) -> None:
        self._waiting.setdefault(connection)

    def answers(self, connection: _Connection) -> None:
        self._waiting.pop(connection, None)


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time. httptools calls the methods `on_...`."""

    def __init__(self, listener: Listener, respond: Respond) -> None:
        self._listener = listener
        self._respond = respond
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._answering: asyncio.Task[None] | None = None
        self._is_last = False
        """True once the last answer is written; what still comes is dropped."""
        self._writable = asyncio.Event()
        self._writable.set()

    def close(self) -> None:
        """Closes the connection at once."""
        self._listener.closed(self)
        self._transport.abort()

    def _limit(self, timeout_s: float) -> None:
        """Closes the connection unless the next step comes within this time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(timeout_s, self.close)

    def _wait(self, timeout_s: float) -> None:
        """Waits for a request."""
        self._parser = HttpRequestParser(self)
        self._received = 0
        self._method = ""
        self._url = b""
        self._has_head = self._is_complete = False
        self._keeps_alive = True
        self._answering = None
        self._listener.waits(self)
        self._limit(timeout_s)

    # ── What the event loop calls ─────────────────────────────────────────────────────────────────

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._wait(REQUEST_TIMEOUT_S)
        self._listener.opened(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.closed(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._answering is not None:
            self._answering.cancel()

    @override
    def pause_writing(self) -> None:
        self._writable.clear()

    @override
    def resume_writing(self) -> None:
        self._writable.set()

    @override
    def eof_received(self) -> bool:
        """Returns whether the connection stays open: a client may send its end with its request."""
        self._keeps_alive = False
        return self._answering is not None and not self._is_last

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_last or self._transport.is_closing():
            return
        if self._answering is not None:
            # Before its answer is complete: not read, and the last request.
            self._keeps_alive = False
            self._transport.pause_reading()
            return
        if self._received == 0:
            self._limit(REQUEST_TIMEOUT_S)
        is_method = self._received > 0 or _TOKEN.match(data) is not None
        self._received += len(data)
        refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if self._received > REQUEST_BYTES_MAX else None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._keeps_alive = False
        except HttpParserError as error:
            self._keeps_alive = False
            if not self._has_head:
                unknown = isinstance(error, HttpParserInvalidMethodError) and is_method
                refusal = refusal or (HTTPStatus.METHOD_NOT_ALLOWED if unknown else HTTPStatus.BAD_REQUEST)
        if refusal is not None or self._has_head:
            self._begin(refusal)

    # ── What httptools calls ──────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        if self._has_head:
            # A second request before the first one's answer.
            self._keeps_alive = False

    def on_url(self, url: bytes) -> None:
        if not self._has_head:
            self._url += url

    def on_headers_complete(self) -> None:
        if not self._has_head:
            self._has_head = True
            self._method = self._parser.get_method().decode("ascii")

    def on_message_complete(self) -> None:
        if not self._is_complete:
            self._is_complete = True
            self._keeps_alive = self._keeps_alive and self._parser.should_keep_alive()

    def on_body(self, _: bytes) -> None:
        self._keeps_alive = False

    # ── The answer ────────────────────────────────────────────────────────────────────────────────

    def _begin(self, refusal: HTTPStatus | None) -> None:
        self._listener.answers(self)
        self._limit(ANSWER_TIMEOUT_S)
        if refusal is None and self._method not in ("GET", "HEAD"):
            refusal = HTTPStatus.METHOD_NOT_ALLOWED
        if refusal is not None or not self._is_complete:
            self._keeps_alive = False
        self._answering = self._loop.create_task(self._answer(refusal), name="http answer")

    async def _answer(self, refusal: HTTPStatus | None) -> None:
        answer = None
        try:
            answer = await self._respond(_path(self._url)) if refusal is None else _refused(refusal)
            for part in (self._head(answer), *(answer.parts if self._method != "HEAD" else ())):
                await self._writable.wait()
                if self._transport.is_closing():
                    return
                self._transport.write(part)
            await self._writable.wait()
        finally:
            if answer is None:
                # A bug, which the event loop logs, or a lost connection.
                self.close()
        if self._transport.is_closing():
            return
        if self._keeps_alive:
            self._wait(IDLE_TIMEOUT_S)
        else:
            self._is_last = True
            # A new connection may replace it.
            self._listener.waits(self)
            self._limit(_LINGER_S)
            self._transport.write_eof()
            self._transport.resume_reading()

    def _head(self, answer: Answer) -> bytes:
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Type": answer.content_type,
            "Content-Length": str(sum(map(len, answer.parts))),
            "Connection": "keep-alive" if self._keeps_alive else "close",
            **answer.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n{lines}\r\n".encode("latin-1")


def _path(url: bytes) -> str:
    """Returns the path of a request target; "" if it has none."""
    try:
        return unquote(urlsplit(url.decode("ascii")).path)
    except ValueError:
        return ""


def _refused(status: HTTPStatus) -> Answer:
    headers = {"Allow": "GET, HEAD"} if status is HTTPStatus.METHOD_NOT_ALLOWED else {}
    return Answer(status=status, parts=[f"{status.phrase.lower()}\n".encode()], headers=headers)
