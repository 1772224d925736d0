"""Scripted answers: slow, oversized or endless ones, and ones that quote our request."""

import asyncio
import random

from tests.hostile.entry import (
    BOMB,
    DELIVERED,
    OK,
    UNKNOWN_STATUS,
    UNKNOWN_STATUS_RETRIED,
    Entry,
    Play,
    Then,
    broken,
    chunked,
    endless,
    http,
    no_answer,
    plays,
    sends,
    unsent,
)
from tests.hostile.heads import BAD_HTTP, CHUNKED, EITHER, HEAD, HIDDEN
from tests.support.raw_server import Peer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TOO_LARGE = broken("too_large")
AFTER_TURNS = 10
_PAUSE_S = 0.02
"""Pause between two pieces: too short for a timeout per read to expire."""


def drips(before: bytes, piece: bytes, *, pause_s: float = _PAUSE_S) -> Play:
    """Send `before`, then `piece` repeatedly."""

    async def play(peer: Peer, _request: bytes) -> None:
        await peer.send(before)
        await peer.send_forever(piece, pause_s=pause_s)

    return play


def pours(before: bytes, piece: bytes) -> Play:
    """As above, without pauses."""
    return drips(before, piece, pause_s=0.0)


def in_pieces(wire: bytes, size: int = 1) -> Play:
    """Send `wire` in segments of `size` bytes, one per turn of the loop."""

    async def play(peer: Peer, _request: bytes) -> None:
        for start in range(0, len(wire), size):
            await peer.send(wire[start : start + size])
            await asyncio.sleep(0)

    return play


def in_two(first: bytes, second: bytes) -> Play:
    """Send `second` after `first` was read."""

    async def play(peer: Peer, _request: bytes) -> None:
        await peer.send(first)
        for _ in range(AFTER_TURNS):
            await asyncio.sleep(0)
        await peer.send(second)

    return play


def quoting(wire: bytes) -> Play:
    """Send `wire` with the request's token in place of TOKEN, and its length in place of LENGTH."""

    async def play(peer: Peer, request: bytes) -> None:
        token = request.partition(b"Authorization: Bearer ")[2].partition(b"\r\n")[0]
        head, _, content = wire.replace(b"TOKEN", token).partition(b"\r\n\r\n")
        await peer.send(head.replace(b"LENGTH", b"%d" % len(content)) + b"\r\n\r\n" + content)

    return play


def with_afterthought(unasked: bytes) -> Play:
    """Send an answer, and `unasked` later, when the connection is in the pool."""

    async def play(peer: Peer, _request: bytes) -> None:
        await peer.send(http())
        for _ in range(AFTER_TURNS):
            await asyncio.sleep(0)
        await peer.send(unasked)

    return play


async def says_nothing(peer: Peer, _request: bytes) -> None:
    await peer.read_until_closed()


async def says_half_a_head(peer: Peer, _request: bytes) -> None:
    await peer.send(HEAD + b"Content-Le")
    await peer.read_until_closed()


async def promises_more(peer: Peer, _request: bytes) -> None:
    await peer.send(HEAD + b"Content-Length: 600\r\n\r\n" + OK)
    await peer.read_until_closed()


QUOTED = HEAD + b"Content-Length: LENGTH\r\n"
NOISE = random.Random(5).randbytes(200_000)

SLOW: tuple[Entry, ...] = (
    plays("one byte at a time", in_pieces(http()), DELIVERED, body=OK),
    plays("chunks, one byte at a time", in_pieces(chunked(OK[:7], OK[7:])), DELIVERED, body=OK),
    plays("two answers, three bytes at a time", in_pieces(http() + http(b"{}"), 3), DELIVERED),
    plays("a chunk that is none, later", in_two(CHUNKED + b"1\r\n{\r\n", b"zz\r\n"), *BAD_HTTP, then=Then.CLOSES),
    plays("a chunk too long, later", in_two(CHUNKED + b"1\r\n{", b"x\r\n0\r\n\r\n"), *BAD_HTTP, then=Then.CLOSES),
    endless("silence", says_nothing),
    endless("half a head, and silence", says_half_a_head),
    endless("half a body, and silence", promises_more),
    endless("a status line drip by drip", drips(b"HTTP/1.1 200 O", b"K")),
    endless("a header drip by drip", drips(HEAD + b"X-Slow: ", b"x")),
    endless("headers drip by drip", drips(HEAD, b"X-Slow: 1\r\n")),
    endless("empty lines drip by drip", drips(b"", b"\r\n")),
    endless("a body drip by drip", drips(HEAD + b"Content-Length: 60000\r\n\r\n", b"x")),
    endless("white space behind the object", drips(HEAD + b"Content-Length: 60000\r\n\r\n" + OK, b" ")),
    endless("chunks drip by drip", drips(CHUNKED, b"1\r\n \r\n")),
    endless("a chunk's size drip by drip", drips(CHUNKED, b"0")),
    endless("trailers drip by drip", drips(CHUNKED + b"0\r\n", b"X-T: 1\r\n")),
)

TOO_MUCH: tuple[Entry, ...] = (
    plays("100 GB, declared", pours(HEAD + b"Content-Length: 100000000000\r\n\r\n", b"x" * 10_000), *TOO_LARGE),
    plays("chunks without end", pours(CHUNKED, b"2710\r\n" + b"x" * 10_000 + b"\r\n"), *TOO_LARGE),
    plays("tiny chunks without end", pours(CHUNKED, b"1\r\nx\r\n" * 1_000), *TOO_LARGE),
    plays("until it is left", pours(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 10_000), *TOO_LARGE),
    plays("an object without end", pours(CHUNKED, b"2710\r\n" + b'{"status":' * 1_000 + b"\r\n"), *TOO_LARGE),
    sends("200 KB that cannot be unpacked", http(NOISE, b"Content-Encoding: gzip"), *TOO_LARGE),
    sends("200 KB of bombs", http(BOMB * 200, b"Content-Encoding: gzip"), *TOO_LARGE),
    plays("a chunk extension without end", pours(CHUNKED + b"1;", b"x" * 10_000), *TOO_LARGE),
    plays("chunk extensions without end", pours(CHUNKED, b"1;" + b"x" * 1_000 + b"\r\nx\r\n"), *TOO_LARGE),
    plays("a header without end", pours(HEAD + b"X-Huge: ", b"x" * 10_000), *TOO_LARGE),
    plays("headers without end", pours(HEAD, b"X-Many: x\r\n" * 100), *TOO_LARGE),
    plays("trailers without end", pours(CHUNKED + b"0\r\n", b"X-Many: x\r\n" * 100), *TOO_LARGE),
    plays("a trailer without end", pours(CHUNKED + b"0\r\nX-Huge: ", b"x" * 10_000), *TOO_LARGE),
    plays("empty lines without end", pours(b"", b"\r\n" * 1_000), *TOO_LARGE),
)

FLOODS: tuple[Entry, ...] = (
    sends("a hundred 100s, then an answer", CONTINUE * 100 + http(), DELIVERED, body=OK),
    # Each costs time of the loop, and so delays the answers of other operators.
    sends("a thousand 100s, then an answer", CONTINUE * 1_000 + http(), *TOO_LARGE),
    sends(
        "58 times a 100 with 3,000 headers, then an answer",
        (b"HTTP/1.1 100\n" + b"a:\n" * 3_000 + b"\n") * 58 + http(),
        *TOO_LARGE,
    ),
    sends("a body of 65,000 chunks", chunked(*[b" "] * 65_000), *TOO_LARGE),
    sends("early hints, then an answer", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + http(), DELIVERED),
    sends("a 199, then an answer", b"HTTP/1.1 199 Soon\r\n\r\n" + http(), DELIVERED),
    sends("a 100, then a refusal", CONTINUE + http(b"", status=b"HTTP/1.1 500 No"), no_answer("http_500")),
    # A 100 has no body, whatever its length says: the following bytes are read as an answer and are
    # invalid.
    sends("a 100 with a body", http(status=b"HTTP/1.1 100 Continue"), *BAD_HTTP),
    endless("a 100 and nothing more", drips(CONTINUE, b"", pause_s=0.1)),
    plays("100s without end", pours(b"", CONTINUE * 100), *TOO_LARGE),
    plays("103s without end", pours(b"", b"HTTP/1.1 103 Hints\r\n" + b"Link: </a>\r\n" * 100 + b"\r\n"), *TOO_LARGE),
)

QUOTES: tuple[Entry, ...] = (
    plays(
        "our token as the status",
        quoting(QUOTED + b'\r\n{"status":"TOKEN"}'),
        UNKNOWN_STATUS,
        for_rollback=(UNKNOWN_STATUS_RETRIED,),
    ),
    plays(
        "our token as the transaction",
        quoting(QUOTED + b'\r\n{"status":"OK","balance":95000,"transaction_id":"TOKEN"}'),
        DELIVERED,
    ),
    plays(
        "our token as the balance",
        quoting(QUOTED + b'\r\n{"status":"OK","balance":"TOKEN"}'),
        DELIVERED,
        balance=None,
        anomaly="balance",
    ),
    plays("our token in a header", quoting(QUOTED + b"X-Token: TOKEN\r\n\r\n" + OK), DELIVERED),
    plays("our token in a bad header", quoting(QUOTED + b"X-Token: a\0 Bearer TOKEN\r\n\r\n" + OK), *BAD_HTTP),
    plays("our token in a status line", quoting(b"HTTP/1.1 Bearer TOKEN\r\n\r\n"), *BAD_HTTP),
    plays("our token in a page", quoting(QUOTED + b"\r\n<p>Bearer TOKEN is not known</p>"), no_answer("not_json")),
)

SCRIPTS: tuple[Entry, ...] = (*SLOW, *TOO_MUCH, *FLOODS, *QUOTES)

AFTERTHOUGHTS: tuple[Entry, ...] = (
    plays("later: an answer", with_afterthought(HIDDEN), DELIVERED),
    plays("later: half an answer", with_afterthought(HIDDEN[:50]), DELIVERED),
    plays("later: a 100", with_afterthought(CONTINUE), DELIVERED),
    plays("later: garbage", with_afterthought(b"\0\xff" * 20), DELIVERED),
    plays("later: 200 KB of answers", with_afterthought(HIDDEN * 2_000), DELIVERED),
)
"""For a single connection: after the next request is sent, such an answer cannot be recognised."""

GREETINGS: dict[str, bytes] = {
    "an answer": http(),
    "half an answer": http()[:60],
    "a 100": CONTINUE,
    "a banner": b"220 ready\r\n",
    "NULs": b"\0" * 100,
    "200 KB of answers": http() * 2_000,
}
"""Sent before the request. Whether the client sees these bytes in time depends on the kernel."""
GREETED = (*unsent("unsolicited_data"), *EITHER, *broken("timeout", "reset"))
