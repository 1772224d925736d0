"""One connection over an in-memory transport: any segments, any end, any bytes behind an answer.

The parser must not depend on how the bytes come. What each bad answer means on a real socket is in
test_hostile_answers.py.
"""

import asyncio
import ssl
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random
from typing import cast

import pytest
from aiohttp.connector import Connection as OpenConnection
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.edge.http import transport
from predictu_dispatch.edge.http.connection import HEAD_BYTES_MAX, Connection
from tests.edge.http.test_hostile_answers import end_of
from tests.hostile.bodies import CAP
from tests.hostile.corpus import CORPUS
from tests.hostile.entry import OK, Entry, Then, assert_can_be_stored, chunked, http
from tests.hostile.heads import CHUNKED, HEAD, HIDDEN, ONE_CHUNK
from tests.hostile.scripts import CONTINUE

Pieces = Iterable[bytes]
ANSWERED = (Evidence.ANSWERED, None)
RESET = ConnectionResetError(104, "Connection reset by peer")
ENDS: dict[Then, Exception | None] = {Then.CLOSES: None, Then.RESETS: RESET}


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; `unsent` bytes of it are not in the socket yet."""

    def __init__(self) -> None:
        super().__init__(extra={"socket": 0})
        self.written = b""
        self.unsent = 0
        self.is_aborted = False

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    @override
    def abort(self) -> None:
        self.is_aborted = True

    @override
    def is_closing(self) -> bool:
        return self.is_aborted

    @override
    def get_write_buffer_size(self) -> int:
        return self.unsent


class Opened:
    """What aiohttp's connector returns."""

    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Answering:
    """A connection with a request, and the answer to it in pieces."""

    def __init__(self) -> None:
        self.opened = Opened()
        self.connection = Connection(cast("OpenConnection", self.opened), response_bytes_max=CAP)
        self.connection.send(b"a request")

    @property
    def has_ended(self) -> bool:
        return self.connection._ended is None

    def receive(self, pieces: Pieces) -> "Answering":
        """Receives the pieces as from a loop, which delivers nothing after abort()."""
        for piece in pieces:
            if self.opened.transport.is_aborted:
                break
            self.connection.data_received(piece)
        return self

    def lose(self, error: Exception | None) -> "Answering":
        self.connection.connection_lost(error)
        return self

    def exchange(self) -> Exchange:
        if not self.has_ended:
            self.connection.fail("timeout", "no end")
        exchange = transport.exchange_of(self.connection, started_s=0.0, connected_s=0.0)
        assert_can_be_stored(exchange, bytes_max=CAP)
        # Whatever was not kept for reuse is closed, on both sides of aiohttp's counting.
        assert self.opened.is_closed == self.opened.transport.is_aborted == (not self.connection.is_idle)
        return exchange._replace(total_ms=0.0, connect_ms=0.0, first_byte_ms=None)


def exchange_of(pieces: Pieces, then: Then = Then.GOES_ON) -> Exchange:
    answering = Answering().receive(pieces)
    return (answering if then is Then.GOES_ON else answering.lose(ENDS[then])).exchange()


def byte_by_byte(wire: bytes) -> list[bytes]:
    return [wire[at : at + 1] for at in range(len(wire))]


def at_random(wire: bytes, rng: Random) -> list[bytes]:
    edges = sorted(rng.randint(0, len(wire)) for _ in range(rng.randint(1, 12)))
    return cut(wire, edges)


def cut(wire: bytes, edges: Iterable[int]) -> list[bytes]:
    return [wire[start:end] for start, end in pairwise([0, *edges, len(wire)]) if end > start]


# Segments

WIRES = [entry for entry in CORPUS.values() if entry.wire]


@pytest.mark.parametrize("entry", WIRES, ids=[entry.name for entry in WIRES])
async def test_an_answer_means_the_same_in_any_segments(entry: Entry) -> None:
    whole = exchange_of([entry.wire], entry.then)
    for method in Method:
        assert end_of(whole, method) in entry.expected_for(method), whole
    assert exchange_of(byte_by_byte(entry.wire), entry.then) == whole
    rng = Random(entry.name)
    for _ in range(10):
        assert exchange_of(at_random(entry.wire, rng), entry.then) == whole


@pytest.mark.parametrize("size", [HEAD_BYTES_MAX, HEAD_BYTES_MAX + 1])
async def test_the_limit_of_headers_does_not_depend_on_segments(size: int) -> None:
    # Each header counts with its colon, space and line end.
    framing = len(b"Content-Length: 2\r\n")
    wire = HEAD + b"X: " + b"x" * (size - framing - 5) + b"\r\nContent-Length: 2\r\n\r\n{}"
    expected = ANSWERED if size == HEAD_BYTES_MAX else (Evidence.UNANSWERED, "too_large")
    for pieces in ([wire], byte_by_byte(wire), *(at_random(wire, Random(seed)) for seed in range(20))):
        exchange = exchange_of(pieces)
        assert (exchange.evidence, exchange.reason) == expected
        assert exchange.status == 200


# Bytes behind an answer

COMPLETE: dict[str, bytes] = {
    "a length": http(),
    "chunks": chunked(OK[:7], OK[7:]),
    "trailers": CHUNKED + ONE_CHUNK + b"0\r\nX-Sum: 1\r\n\r\n",
    "nothing": http(b""),
    "a 100 before it": CONTINUE + http(),
    "a 204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a 304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    "a 101": b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.0": http(OK, b"Connection: keep-alive", status=b"HTTP/1.0 200 OK"),
    "close": http(OK, b"Connection: close"),
}
NOT_REUSED = {"a 204", "a 304", "a 101", "close"}
BEHIND: dict[str, bytes] = {
    "an answer": HIDDEN,
    "half an answer": HIDDEN[:50],
    "the first byte of an answer": b"H",
    "chunks": chunked(OK),
    "a 100": CONTINUE,
    "a 204": COMPLETE["a 204"],
    "garbage": b"\0\xff" * 20,
    "a space": b" ",
    "empty lines and an answer": b"\r\n\r\n" + HIDDEN,
    "a header with a NUL": http(b"", b"X: \0"),
    "a head beyond the limit": HEAD + b"X: x\r\n" * 20_000,
    "a body beyond the limit": http(b"x" * (CAP + 1)),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("complete", COMPLETE)
async def test_bytes_behind_a_complete_answer_change_nothing_and_close_the_connection(
    complete: str, behind: str
) -> None:
    first, rest = COMPLETE[complete], BEHIND[behind]
    alone = Answering().receive([first])
    assert alone.has_ended
    assert alone.connection.is_idle == (complete not in NOT_REUSED)
    expected = alone.exchange()
    assert (expected.evidence, expected.reason) == ANSWERED
    wire = first + rest
    for pieces in ([wire], [first, rest], byte_by_byte(wire), [first[:-1], wire[len(first) - 1 :]]):
        answering = Answering().receive(pieces)
        assert not answering.connection.is_idle
        assert answering.exchange() == expected


async def test_an_empty_line_behind_an_answer_is_no_answer() -> None:
    """Some servers send one more line end. In the same segment the parser ignores it.

    A recipient ignores empty lines before a message, so it cannot be read as a part of the next
    answer (RFC 9112, section 2.2). Later it is unsolicited, as all bytes are.
    """
    together = Answering().receive([http() + b"\r\n"])
    assert together.connection.is_idle
    later = Answering().receive([http(), b"\r\n"])
    assert not later.connection.is_idle
    assert together.exchange() == later.exchange() == exchange_of([http()])
    together.connection.send(b"the next request")
    assert together.receive([http(b"{}")]).exchange().body == b"{}"


async def test_nothing_of_an_answer_is_left_for_the_next() -> None:
    """The next has no headers, no length and no trailers, and ends with the connection."""
    first = HEAD + b"X-First: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + ONE_CHUNK + b"0\r\nX-Trailer: 1\r\n\r\n"
    answering = Answering().receive([first])
    assert answering.exchange().headers == (("X-First", "1"), ("Transfer-Encoding", "chunked"))
    answering.connection.send(b"the next request")
    exchange = answering.receive([b"HTTP/1.1 201 Made\r\n\r\n{", b"}"]).lose(None).exchange()
    assert (exchange.evidence, exchange.status, exchange.headers, exchange.body) == (Evidence.ANSWERED, 201, (), b"{}")


# The end of the connection

FRAMED = [COMPLETE[name] for name in ("a length", "chunks", "trailers", "a 100 before it", "a 204", "close")]
UNTIL_CLOSED = http(OK, length=False)
BROKEN = ssl.SSLError(1, "decryption failed")


@pytest.mark.parametrize("error", [None, RESET, BROKEN], ids=["FIN", "RST", "TLS"])
@pytest.mark.parametrize("wire", FRAMED)
async def test_an_answer_that_is_cut_anywhere_is_never_answered(wire: bytes, error: Exception | None) -> None:
    head_end = wire.index(b"\r\n\r\n", len(CONTINUE) if wire.startswith(CONTINUE) else 0) + 4
    for length in range(len(wire)):
        exchange = Answering().receive(cut(wire[:length], [length // 2])).lose(error).exchange()
        reason = "tls_failed" if error is BROKEN else "reset" if length < head_end else "truncated"
        assert (exchange.evidence, exchange.reason) == (Evidence.UNANSWERED, reason), wire[:length]
        assert exchange.truncated == (length >= head_end)
    # A connection that is lost later changes nothing.
    assert (exchange_of([wire], Then.CLOSES).evidence, exchange_of([wire], Then.RESETS).evidence) == (
        Evidence.ANSWERED,
        Evidence.ANSWERED,
    )


async def test_an_answer_without_a_length_ends_with_the_connection_but_not_with_a_reset() -> None:
    head_end = UNTIL_CLOSED.index(b"\r\n\r\n") + 4
    for length in range(len(UNTIL_CLOSED) + 1):
        cut_off = UNTIL_CLOSED[:length]
        closed = exchange_of([cut_off], Then.CLOSES)
        assert closed.evidence is (Evidence.UNANSWERED if length < head_end else Evidence.ANSWERED)
        assert closed.body == cut_off[head_end:]
        assert exchange_of([cut_off], Then.RESETS).evidence is Evidence.UNANSWERED
        assert exchange_of([cut_off]).evidence is Evidence.UNANSWERED


@pytest.mark.parametrize("coding", [b"gzip", b"chunked, gzip", b"identity"])
async def test_an_answer_in_another_coding_is_never_complete(coding: bytes) -> None:
    wire = HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + OK
    assert exchange_of([wire], Then.CLOSES).evidence is Evidence.UNANSWERED


# Limits


def endless(first: bytes, piece: bytes) -> Iterator[bytes]:
    yield first
    while True:
        yield piece


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"", CONTINUE * 50),
        (b"", b"HTTP/1.1 103 Hints\r\n" + b"Link: </a>\r\n" * 50 + b"\r\n"),
        (CHUNKED + b"1;", b"x" * 500),
        (CHUNKED, b"1;" + b"x" * 500 + b"\r\nx\r\n"),
        (CHUNKED + b"0\r\n", b"X-T: 1\r\n"),
        (CHUNKED + b"0\r\nX-T: ", b"x" * 100),
        (HEAD, b"X: 1\r\n"),
        (HEAD + b"X: ", b"x" * 100),
        (b"HTTP/1.1 200 ", b"x" * 100),
        (b"", b"\r\n" * 100),
        (HEAD + b"\r\n", b"x" * 100),
    ],
)
async def test_an_endless_answer_is_too_large(first: bytes, piece: bytes) -> None:
    answering = Answering()
    received = 0
    for part in endless(first, piece):
        received += len(part)
        assert received < HEAD_BYTES_MAX + 8 * CAP + 2 * len(piece)
        if answering.receive([part]).has_ended:
            break
    exchange = answering.exchange()
    assert (exchange.evidence, exchange.reason) == (Evidence.UNANSWERED, "too_large")
    assert sum(len(name) + len(value) for name, value in exchange.headers) <= HEAD_BYTES_MAX


async def test_a_status_line_that_is_cut_by_the_limit_has_no_code() -> None:
    exchange = exchange_of([b"\r\n" * HEAD_BYTES_MAX + b"HTTP/1.1 2", b"\r\n" * HEAD_BYTES_MAX])
    assert (exchange.reason, exchange.status) in {("too_large", None), ("bad_http", None)}
    interim = exchange_of([CONTINUE, b"HTTP/1.1 103 Hints\r\n", b"Link: a\r\n" * 3_000])
    assert (interim.reason, interim.status) == ("too_large", None)
    final = exchange_of([CONTINUE, b"HTTP/1.1 404 No\r\n", b"Link: a\r\n" * 3_000])
    assert (final.reason, final.status, final.headers) == ("too_large", 404, ())


# Reuse


@pytest.mark.parametrize(
    ("lines", "idle_s"),
    [
        ((), 20.0),
        ((b"Keep-Alive: timeout=3",), 2.0),
        ((b"Keep-Alive: timeout=1",), None),
        ((b"Keep-Alive: timeout=0",), None),
        ((b"Keep-Alive: timeout=-5",), None),
        ((b"Keep-Alive: timeout=60, max=100",), 20.0),
        ((b"keep-alive: max=100,TIMEOUT = 3 ",), 2.0),
        ((b"Keep-Alive: timeout=3, timeout=10",), 2.0),
        ((b"Keep-Alive: timeout=10", b"Keep-Alive: timeout=3"), 2.0),
        ((b'Keep-Alive: timeout="3"',), 2.0),
        *(
            ((b"Keep-Alive: timeout=" + odd,), 20.0)
            for odd in (b"", b"=", b"nan", b"inf", b"1e400", b"9" * 5_000, b"three", b"\xff")
        ),
        ((b"Keep-Alive: timeout",), 20.0),
        ((b"Keep-Alive:",), 20.0),
    ],
)
async def test_a_connection_is_idle_until_a_second_before_the_operator_may_close_it(
    lines: tuple[bytes, ...], idle_s: float | None
) -> None:
    answering = Answering().receive([http(OK, *lines)])
    assert answering.connection.is_idle == (idle_s is not None)
    if idle_s is not None:
        assert answering.connection.idle_until_s - time.monotonic() == pytest.approx(idle_s, abs=1.0)
    assert answering.exchange().evidence is Evidence.ANSWERED


@pytest.mark.parametrize("unsent", [0, 1])
async def test_an_answer_before_the_request_is_sent_closes_the_connection(unsent: int) -> None:
    answering = Answering()
    answering.opened.transport.unsent = unsent
    answering.receive([http()])
    assert answering.connection.is_idle == (unsent == 0)
    assert answering.exchange().evidence is Evidence.ANSWERED


async def test_a_connection_that_is_closing_is_not_idle() -> None:
    """The operator's end is known one turn of the loop before connection_lost()."""
    answering = Answering().receive([http()])
    assert answering.connection.is_idle
    answering.opened.transport.is_aborted = True
    assert not answering.connection.is_idle


@pytest.mark.parametrize("late", [b"HTTP/1.1 200 OK\r\n", b"\0", http(), b"\r\n"])
async def test_nothing_changes_an_exchange_after_its_end(late: bytes) -> None:
    answering = Answering()
    answering.connection.fail("timeout", "no answer")
    answering.connection.fail("interrupted", "later")
    answering.connection.data_received(late)
    answering.lose(None)
    exchange = answering.exchange()
    assert (exchange.evidence, exchange.reason, exchange.status) == (Evidence.UNANSWERED, "timeout", None)
    assert exchange.body == b""


# Any valid answer

TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_", min_size=1, max_size=12).map(lambda name: f"X-{name}")
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
FIELDS = st.lists(st.tuples(TOKENS, VALUES), max_size=6)


def lines(fields: list[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode()


@st.composite
def valid_answers(draw: st.DrawFn) -> tuple[bytes, Exchange, bool]:
    """The bytes, the exchange, and whether the connection may be reused."""
    status = draw(st.integers(200, 599).filter(lambda code: code not in {204, 304}))
    fields = draw(FIELDS)
    content = draw(st.binary(max_size=60))
    framing = draw(st.sampled_from(["length", "chunks", "close"]))
    closes = draw(st.booleans())
    if closes:
        fields.append(("Connection", "close"))
    interim = b"".join(
        b"HTTP/1.1 %d Soon\r\n%b\r\n" % (code, lines(draw(FIELDS)))
        for code in draw(st.lists(st.sampled_from([100, 102, 103, 199]), max_size=3))
    )
    body = content
    if framing == "length":
        fields.append(("Content-Length", str(len(content))))
    elif framing == "chunks":
        fields.append(("Transfer-Encoding", "chunked"))
        edges = sorted(draw(st.lists(st.integers(0, len(content)), max_size=5)))
        extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
        body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in cut(content, edges))
        body += b"0\r\n" + lines(draw(FIELDS)) + b"\r\n"
    wire = interim + b"HTTP/1.1 %d Reason\r\n" % status + lines(fields) + b"\r\n" + body
    exchange = Exchange(
        evidence=Evidence.ANSWERED,
        total_ms=0.0,
        connect_ms=0.0,
        status=status,
        headers=tuple(fields),
        body=content,
    )
    return wire, exchange, framing != "close" and not closes


@given(valid_answers(), st.data())
def test_a_valid_answer_is_read_exactly(answer: tuple[bytes, Exchange, bool], data: st.DataObject) -> None:
    wire, expected, is_reusable = answer
    edges = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))

    async def read() -> None:
        answering = Answering().receive(cut(wire, edges))
        if not any(name in {"Content-Length", "Transfer-Encoding"} for name, _ in expected.headers):
            assert not answering.has_ended
            answering.lose(None)
        assert answering.has_ended
        assert answering.connection.is_idle == is_reusable
        assert answering.exchange() == expected

    asyncio.run(read())
