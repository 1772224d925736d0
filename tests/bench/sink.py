"""Minimal HTTP/1.1 operators, one port each, all in one process.

The sink records the arrival of each request on the monotonic clock. Its ports `answer` after some
milliseconds, `never` answer, `drip` one byte of an endless answer every 100 ms, or `reset` the
connection.
"""

import asyncio
import re
import socket
import struct
import time
from typing import Any, cast

from typing_extensions import override

from tests.bench.json_lines import Question, answer_lines

_BODY = b'{"status":"OK","balance":100000,"transaction_id":"op-tx-1"}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
_DRIPPED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n" + b" " * 60_000
_DRIP_EVERY_S = 0.1
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb'"request_id":"([0-9a-f-]{36})"')

arrived_at_s: dict[str, float] = {}
"""First arrival of each request; retries are ignored."""
answered_at_s: dict[str, float] = {}
"""Time of the answer."""


class Connection(asyncio.Protocol):
    """One connection to a port with the behaviour `manner`."""

    def __init__(self, manner: str, delay_s: float) -> None:
        self._manner = manner
        self._delay_s = delay_s
        self._received = b""
        self._began_at_s = 0.0
        self._transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self._manner == "reset":
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        if not self._received:
            self._began_at_s = time.monotonic()
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return
        # The client does not pipeline requests.
        self._received = b""
        found = _REQUEST_ID.search(body)
        request_id = found[1].decode() if found else ""
        arrived_at_s.setdefault(request_id, self._began_at_s)
        if self._manner == "answer":
            asyncio.get_running_loop().call_later(self._delay_s, self._answer, request_id)
        elif self._manner == "drip":
            self._drip(0)

    def _answer(self, request_id: str) -> None:
        answered_at_s.setdefault(request_id, time.monotonic())
        self._send(_ANSWER)

    def _drip(self, position: int) -> None:
        self._send(_DRIPPED[position : position + 1])
        if self._transport is not None and position < len(_DRIPPED):
            asyncio.get_running_loop().call_later(_DRIP_EVERY_S, self._drip, position + 1)

    def _send(self, octets: bytes) -> None:
        if self._transport is not None:
            self._transport.write(octets)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None


async def _answer(question: Question) -> Any:
    """Commands: `open` returns a new port; `arrivals` and `answers` return the recorded times.

    `forget` clears them.
    """
    match question["do"]:
        case "open":
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(question["manner"], question["delay_s"]), "127.0.0.1", 0, backlog=1024
            )
            return server.sockets[0].getsockname()[1]
        case "arrivals":
            return [arrived_at_s.get(request_id) for request_id in question["request_ids"]]
        case "answers":
            return [answered_at_s.get(request_id) for request_id in question["request_ids"]]
        case _:
            arrived_at_s.clear()
            answered_at_s.clear()
            return None


if __name__ == "__main__":
    answer_lines(_answer)
