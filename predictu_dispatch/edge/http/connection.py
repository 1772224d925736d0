"""One HTTP/1.1 connection: writes a request, parses the answer, and sees every byte of both.

A connection has at most one exchange at a time. An exchange ends once: by the answer's last byte,
or by `fail()`, also called for a lost connection, invalid HTTP, an exceeded limit or a timeout.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from contextlib import suppress
from itertools import chain
from typing import cast

from aiohttp.connector import Connection as OpenConnection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from typing_extensions import override

from predictu_dispatch.edge.http.connector import peer_of

HEAD_BYTES_MAX = 16_384
"""Limit of an answer's headers, which are stored in the audit, together with those of the interim
answers (1xx) before it; and of its trailers."""
_STATUS_LINE_BYTES_MAX = 256
"""Room for the status line while the headers are incomplete."""
_BESIDE_A_HEADER = len(": \r\n")
_STATUS_LINE_BYTES = len("HTTP/1.1 100 Continue\r\n\r\n")
"""Of an interim answer."""
_WIRE_PER_BODY = 8
"""Limit of an answer's bytes on the wire, as a multiple of max_response_bytes. A chunk of one byte
takes six. It also bounds chunk extensions."""
_CHUNKS_MAX = 4_096
"""Each costs the loop microseconds: one operator's answers must not delay those of others."""
_IDLE_S = 20.0
"""Load balancers close idle connections after 60 s, some after 30; we must close first."""
_KEEP_ALIVE_MARGIN_S = 1.0
"""An operator that promises `Keep-Alive: timeout=N` may close at N: reuse ends this much before."""
_SWITCHING_PROTOCOLS = 101
_WITHOUT_BODY = {_SWITCHING_PROTOCOLS, 204, 304}
"""Answers without a body, whatever their headers say (RFC 9112, section 6.3)."""
_INTERIM_MIN = 100
_FINAL_MIN = 200
_UNFINISHED = ("internal_error", "the exchange did not end")
_NO_PARSER = HttpResponseParser(None)
"""Of a connection without an exchange. A parser of its own refers back to it."""


class Connection(asyncio.Protocol):
    """A connection that aiohttp has opened. httptools calls the methods `on_...`."""

    def __init__(self, opened: OpenConnection, *, response_bytes_max: int) -> None:
        self._opened = opened
        self._transport = cast("asyncio.Transport", opened.transport)
        self._response_bytes_max = response_bytes_max
        self._ended: asyncio.Future[None] | None = None
        self._is_open = True
        self.is_tls = self._transport.get_extra_info("ssl_object") is not None
        self.peer, self.peer_certificate_sha256 = peer_of(self._transport)
        self.got_unsolicited_data = False
        self.idle_until_s = 0.0
        """Until when it may be reused, in monotonic seconds; set by each complete answer."""
        self._parser = _NO_PARSER
        self._transport.set_protocol(self)
        self._poll = select.poll()
        self._poll.register(self._transport.get_extra_info("socket"), select.POLLIN)

    @property
    def is_idle(self) -> bool:
        """True if the connection is open and has no exchange."""
        return self._is_open and self._ended is None and not self._transport.is_closing()

    def is_readable(self) -> bool:
        """Returns whether the operator sent bytes, or closed, since the loop polled the socket.

        On an idle connection, such bytes would be read as the answer to the next request.
        """
        return bool(self._poll.poll(0))

    # ── The exchange ──────────────────────────────────────────────────────────────────────────────

    def send(self, request: bytes) -> None:
        """Begins an exchange and writes the request; answered() waits for its end."""
        self.status: int | None = None
        self.head = b""
        """Names and values of the headers in turn, joined by NUL, which none of them has."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self.first_byte_s: float | None = None
        self.failure: tuple[str, str] | None = _UNFINISHED
        """Reason and error of an exchange without a complete answer."""
        self._head_bytes = 0
        self._interim_bytes = 0
        """Those of `_head_bytes` that belong to interim answers."""
        self._chunks_left = _CHUNKS_MAX
        self._body_room = self._response_bytes_max
        self._wire_room = HEAD_BYTES_MAX + _WIRE_PER_BODY * self._response_bytes_max
        self._is_complete = False
        self._keeps_alive = False
        # A new one each time, so that nothing of one answer is left for the next.
        self._parser = HttpResponseParser(self)
        # As aiohttp: real servers send such headers and line ends.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)

    async def answered(self) -> None:
        """Returns when the exchange has ended; `failure` tells whether the answer is complete."""
        if self._ended is not None:
            await self._ended

    def body(self) -> bytes:
        """Returns the answer's body and forgets it: an idle connection must not keep it."""
        body = b"".join(self._chunks)
        self._chunks.clear()
        return body

    def fail(self, reason: str, error: str) -> None:
        """Ends the exchange, if it has not ended, and closes the connection."""
        if self._ended is not None:
            self.failure = (reason, error)
            self._end()
        self.abort()

    def abort(self) -> None:
        """Closes the connection at once; unsent bytes are discarded."""
        self._is_open = False
        self._transport.abort()
        self._opened.close()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        # The task that waits may be cancelled.
        if ended is not None and not ended.done():
            ended.set_result(None)

    # ── What the event loop calls ─────────────────────────────────────────────────────────────────

    @override
    def data_received(self, data: bytes) -> None:
        if len(data) > HEAD_BYTES_MAX:
            # In pieces, so that the limits do not depend on how much comes at once.
            for start in range(0, len(data), HEAD_BYTES_MAX):
                self.data_received(data[start : start + HEAD_BYTES_MAX])
            return
        if self._ended is None:
            # Unsolicited: it could be read as the answer to the next request.
            self.got_unsolicited_data = True
            self.abort()
            return
        if self.first_byte_s is None:
            self.first_byte_s = time.monotonic()
        self._head_bytes += len(data) if self.status is None else 0
        self._wire_room -= len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            # Bytes behind a complete answer do not change it, and the connection is not reused.
            if self._is_complete:
                self._keeps_alive = False
            else:
                self.fail("bad_http", f"the answer is not valid HTTP: {error}")
                return
        if self._ended is None:
            # A callback of the parser has found a limit exceeded.
            return
        if self._is_complete:
            self._finish()
        else:
            self._check_limits()

    def _check_limits(self) -> None:
        """Ends the exchange if what has come without an end is too long."""
        if self.status is None and self._head_bytes > HEAD_BYTES_MAX + _STATUS_LINE_BYTES_MAX:
            self._fail_head()
        elif self._wire_room < 0:
            self.fail("too_large", f"the answer takes more than {_WIRE_PER_BODY} times max_response_bytes")

    @override
    def eof_received(self) -> None:
        """Sends no request any more: TLS drops without an error what is written from now on."""
        self._is_open = False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._ended is not None:
            if exc is None and self._ends_with_connection():
                self.failure = None
                self._end()
            elif isinstance(exc, ssl.SSLError):
                # In TLS 1.3 the request is sent before a server can refuse our certificate.
                self.fail("tls_failed", f"{type(exc).__name__}: {exc}")
            else:
                how = "closed the connection" if exc is None else f"broke the connection ({exc})"
                reason, what = ("reset", "answering") if self.status is None else ("truncated", "the answer's end")
                self.fail(reason, f"the operator {how} before {what}")
        self.abort()
        # Without the cycle, TLS buffers are freed now and not at the next garbage collection.
        self._parser = _NO_PARSER

    def _ends_with_connection(self) -> bool:
        """Returns whether the end of the connection is the end of the answer."""
        framing = {b"content-length", b"transfer-encoding"}
        # The parser accepts spaces before a colon.
        return self.status is not None and not any(name.strip().lower() in framing for name, _ in self._headers)

    def _finish(self) -> None:
        now_s = time.monotonic()
        idle_s = _idle_s(self._headers) if self._keeps_alive else 0.0
        self.idle_until_s = now_s + idle_s
        # A request that is answered before it is sent leaves bytes behind.
        if idle_s <= 0 or self._transport.is_closing() or self._transport.get_write_buffer_size():
            self.abort()
        self.failure = None
        self._end()

    def _fail_head(self) -> None:
        # The code is known even if the headers have no end, unless the line itself has none.
        code = self._parser.get_status_code()
        self.status = code if code >= _FINAL_MIN else None
        self.fail("too_large", f"the answer's headers are longer than {HEAD_BYTES_MAX} bytes")

    # ── What httptools calls ──────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        if self._is_complete:
            # A second answer.
            self._keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status is None:
            self._headers.append((name, value.rstrip(b" \t")))
        elif self._ended is not None and not self._is_complete:
            self._head_bytes += len(name) + len(value) + _BESIDE_A_HEADER
            if self._head_bytes > HEAD_BYTES_MAX:
                self.fail("too_large", f"the answer's trailers are longer than {HEAD_BYTES_MAX} bytes")

    def on_headers_complete(self) -> None:
        if self._ended is None or self.status is not None:
            # The exchange has ended, or this is a second answer.
            return
        status = self._parser.get_status_code()
        head = b"\0".join(chain.from_iterable(self._headers))
        if status < _INTERIM_MIN:
            self.fail("bad_http", f"the answer is not valid HTTP: the status code {status:03}")
        elif head.count(b"\0") >= 2 * len(self._headers) > 0:
            # The leniency for headers lets it pass (RFC 9110, section 5.5).
            self.fail("bad_http", "the answer is not valid HTTP: a NUL in a header")
        elif self._interim_bytes + len(head) + 2 * len(self._headers) >= HEAD_BYTES_MAX:
            # On the wire each header has four more bytes; in `head` two, and the last one has one.
            self._fail_head()
        elif status >= _FINAL_MIN or status == _SWITCHING_PROTOCOLS:
            self.status, self.head = status, head
            self._is_complete = status in _WITHOUT_BODY
            # From here on, of the trailers.
            self._head_bytes = 0

    def on_body(self, chunk: bytes) -> None:
        if self._is_complete or self._ended is None:
            return
        self._chunks.append(chunk[: self._body_room])
        self._body_room -= len(chunk)
        if self._body_room < 0:
            self.fail("too_large", f"the answer is longer than max_response_bytes = {self._response_bytes_max}")

    def on_chunk_header(self) -> None:
        self._chunks_left -= 1
        if self._chunks_left < 0 and not self._is_complete and self._ended is not None:
            self.fail("too_large", f"the answer has more than {_CHUNKS_MAX} chunks")

    def on_message_complete(self) -> None:
        if self.status is None:
            # An interim answer (1xx): the final one follows.
            self._interim_bytes += sum(len(name) + len(value) + _BESIDE_A_HEADER for name, value in self._headers)
            self._interim_bytes += _STATUS_LINE_BYTES
            self._headers.clear()
            self._head_bytes = self._interim_bytes
        elif not self._is_complete:
            self._is_complete = True
            self._keeps_alive = self._parser.should_keep_alive()


def _idle_s(headers: list[tuple[bytes, bytes]]) -> float:
    """Returns how long the connection may be idle before it is reused."""
    idle_s = _IDLE_S
    for name, value in headers:
        if name.lower() == b"keep-alive":
            for parameter in value.lower().split(b","):
                key, _, seconds = parameter.partition(b"=")
                if key.strip() == b"timeout":
                    with suppress(ValueError):
                        idle_s = min(idle_s, float(seconds.strip(b' "')) - _KEEP_ALIVE_MARGIN_S)
    return idle_s
