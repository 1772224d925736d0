"""TLS over a raw connection, to cut, corrupt and reorder its records."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.hostile.entry import DELIVERED, OK, Expected, broken, http, unsent
from tests.hostile.heads import CHUNKED
from tests.support.raw_server import Peer, Script

T = TypeVar("T")

SPOILT = broken("tls_failed", "reset")
SPOILT_BODY = broken("tls_failed", "truncated", "reset")


class TlsPeer:
    """The server's side of TLS on one connection, which can also send raw bytes."""

    def __init__(self, peer: Peer, context: ssl.SSLContext) -> None:
        self.peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self) -> None:
        await self._until_done(self._tls.do_handshake)

    async def request(self) -> bytes:
        request = b""
        while True:
            request += await self._until_done(lambda: self._tls.read(65_536))
            head, end, content = request.partition(b"\r\n\r\n")
            lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            if end and len(content) >= int(lines[b"content-length"]):
                self.peer.server.requests.append(request)
                return request

    def sealed(self, clear: bytes) -> bytes:
        """The encrypted records of `clear`, not sent yet."""
        self._tls.write(clear)
        return self._outgoing.read()

    async def _until_done(self, step: Callable[[], T]) -> T:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                await self.peer.send(self._outgoing.read())
                received = await self.peer.reader.read(65_536)
                if not received:
                    raise ConnectionResetError from None
                self._incoming.write(received)
            else:
                await self.peer.send(self._outgoing.read())
                return done


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsEntry:
    """Send this after a request, then close the connection without close_notify."""

    name: str
    play: Callable[[TlsPeer], Awaitable[None]]
    expected: tuple[Expected, ...]


def raw(make: Callable[[TlsPeer], bytes]) -> Callable[[TlsPeer], Awaitable[None]]:
    async def play(tls: TlsPeer) -> None:
        await tls.peer.send(make(tls))

    return play


def flipped(sealed: bytes) -> bytes:
    """The record with its last byte changed, so that its authentication fails."""
    return sealed[:-1] + bytes((sealed[-1] ^ 1,))


async def one_record_for_each_byte(tls: TlsPeer) -> None:
    for byte in http():
        await tls.peer.send(tls.sealed(bytes((byte,))))
        await asyncio.sleep(0)


HALF = http()[:-20]
TLS_ENTRIES: tuple[TlsEntry, ...] = (
    TlsEntry(name="cut mid-record", play=raw(lambda tls: tls.sealed(http())[:-10]), expected=SPOILT),
    TlsEntry(name="cut in a record's head", play=raw(lambda tls: tls.sealed(http())[:3]), expected=SPOILT),
    TlsEntry(
        name="cut mid-record in the body",
        play=raw(lambda tls: tls.sealed(HALF) + tls.sealed(http()[-20:])[:-7]),
        expected=SPOILT_BODY,
    ),
    TlsEntry(name="cut between two records", play=raw(lambda tls: tls.sealed(HALF)), expected=SPOILT_BODY),
    TlsEntry(name="a flipped bit", play=raw(lambda tls: flipped(tls.sealed(http()))), expected=SPOILT),
    TlsEntry(
        name="a flipped bit in the body",
        play=raw(lambda tls: tls.sealed(HALF) + flipped(tls.sealed(http()[-20:]))),
        expected=SPOILT_BODY,
    ),
    TlsEntry(name="records out of order", play=raw(lambda tls: (tls.sealed(HALF), tls.sealed(OK))[1]), expected=SPOILT),
    TlsEntry(name="garbage for a record", play=raw(lambda _: bytes(range(256))), expected=SPOILT),
    TlsEntry(name="plain HTTP in the middle of TLS", play=raw(lambda _: http()), expected=SPOILT),
    TlsEntry(name="a plain alert", play=raw(lambda _: bytes.fromhex("15030300020228")), expected=SPOILT),
    TlsEntry(name="nothing", play=raw(lambda _: b""), expected=SPOILT),
    TlsEntry(name="an answer without a goodbye", play=raw(lambda tls: tls.sealed(http())), expected=(DELIVERED,)),
    # RFC 9112 section 9.8 calls this incomplete. A truncated object is not valid JSON, so accepting
    # it is safe.
    TlsEntry(
        name="no length, no goodbye",
        play=raw(lambda tls: tls.sealed(http(length=False))),
        expected=(DELIVERED, *SPOILT_BODY),
    ),
    TlsEntry(
        name="chunks without the last", play=raw(lambda tls: tls.sealed(CHUNKED + b"1\r\n{\r\n")), expected=SPOILT_BODY
    ),
    TlsEntry(name="one record for each byte", play=one_record_for_each_byte, expected=(DELIVERED,)),
    TlsEntry(
        name="an answer, and a spoilt record behind it",
        play=raw(lambda tls: tls.sealed(http()) + flipped(tls.sealed(http()))),
        expected=(DELIVERED, *SPOILT_BODY),
    ),
)


def over_tls(context: ssl.SSLContext, play: Callable[[TlsPeer], Awaitable[None]]) -> Script:
    async def script(peer: Peer) -> None:
        tls = TlsPeer(peer, context)
        await tls.shake_hands()
        await tls.request()
        await play(tls)

    return script


HANDSHAKES: dict[str, bytes] = {
    "garbage": bytes(range(256)) * 4,
    "plain HTTP": http(),
    "a plain 400": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an alert": bytes.fromhex("15030300020228"),
    "a server's hello that is cut": bytes.fromhex("160303007a020000760303") + bytes(30),
    "a record longer than any may be": bytes.fromhex("160303ffff") + bytes(70_000),
    "a message of 16 MB": bytes.fromhex("1603034000" + "02ffffff") + bytes(16_380),
    "nothing": b"",
}
"""Sent in answer to the ClientHello, then closed: no byte of the request was sent."""
UNSENT = unsent("tls_failed", "connect_failed")
