"""One bad answer: the bytes, and what the judging table of DESIGN.md 4 makes of them.

The expectations are read off the table, not off the code. Where HTTP leaves a client the choice (RFC 9110
and 9112 say so often), an entry has several right ends, and none of them believes what was not completely said.
"""

import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from predictu_dispatch.core.callback import Effect, Evidence
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Verdict
from tests.support.raw_server import Peer

Play = Callable[[Peer, bytes], Awaitable[None]]
"""Says the answer to this request on this connection, or whatever else it does there."""

BALANCE = 95_000
OK = b'{"status":"OK","balance":95000,"transaction_id":"op-tx-123"}'
REFUSED = b'{"status":"INSUFFICIENT_FUNDS","balance":3}'
BOMB = gzip.compress(b"0" * 1_000_000)
"""1 KB that unpacks to a thousand times as much; what is packed may have any number of such members."""
PAGE = b"<!doctype html><html><title>Log in</title><p>Please log in.</html>"


class Then(StrEnum):
    """What becomes of the connection after the answer."""

    GOES_ON = "goes on"
    CLOSES = "closes"
    RESETS = "resets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One right end of an attempt; `effect` is None where it has taught nothing about the operator's side."""

    evidence: Evidence
    reason: str | None
    verdict: Verdict
    effect: Effect | None


DELIVERED = Right(evidence=Evidence.ANSWERED, reason=None, verdict=Verdict.DELIVERED, effect=Effect.APPLIED)
NOTHING_TO_REVERSE = Right(
    evidence=Evidence.ANSWERED, reason="nothing_to_reverse", verdict=Verdict.DELIVERED, effect=None
)


def rejected(reason: str) -> Right:
    """The operator's own refusal: never retried, and it does not say what became of an earlier attempt."""
    return Right(evidence=Evidence.ANSWERED, reason=reason, verdict=Verdict.REJECTED, effect=None)


def no_answer(reason: str) -> Right:
    """A complete HTTP answer that is no answer to us: the operator may have applied the callback."""
    return Right(evidence=Evidence.ANSWERED, reason=reason, verdict=Verdict.RETRY, effect=Effect.UNKNOWN)


def broken(*reasons: str) -> tuple[Right, ...]:
    """The request left and no complete answer came, for one of these reasons."""
    return tuple(
        Right(evidence=Evidence.UNANSWERED, reason=reason, verdict=Verdict.RETRY, effect=Effect.UNKNOWN)
        for reason in reasons
    )


def unsent(*reasons: str) -> tuple[Right, ...]:
    """Nothing of the request left, for one of these reasons: it may be sent again without a thought."""
    return tuple(
        Right(evidence=Evidence.NOT_SENT, reason=reason, verdict=Verdict.RETRY, effect=None) for reason in reasons
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A bad answer. `wire` is what is said at once; `play` does what bytes alone cannot do.

    `balance` and `anomaly` hold where it is delivered, `body` is what the audit has to keep where it is answered.
    """

    name: str
    rights: tuple[Right, ...]
    wire: bytes = b""
    play: Play | None = None
    then: Then = Then.GOES_ON
    for_rollback: tuple[Right, ...] = ()
    balance: int | None = BALANCE
    anomaly: str | None = None
    body: bytes | None = None
    ends_by_timeout: bool = False

    def rights_of(self, method: Method) -> tuple[Right, ...]:
        return self.for_rollback if self.for_rollback and method is Method.BET_ROLLBACK else self.rights

    async def answer(self, peer: Peer, request: bytes) -> bool:
        """Answers on this connection; True where the connection may go on."""
        if self.play is not None:
            await self.play(peer, request)
        else:
            await peer.send(self.wire)
        if self.then is Then.RESETS:
            peer.reset()
        return self.then is Then.GOES_ON


def says(name: str, wire: bytes, *rights: Right, **more: Any) -> Entry:
    return Entry(name=name, wire=wire, rights=rights, **more)


def plays(name: str, play: Play, *rights: Right, **more: Any) -> Entry:
    return Entry(name=name, play=play, rights=rights, **more)


def endless(name: str, play: Play, *rights: Right, **more: Any) -> Entry:
    """An answer that never ends by itself: only the attempt's own timeout ends it, or one of the other `rights`."""
    return Entry(name=name, play=play, rights=(*broken("timeout"), *rights), ends_by_timeout=True, **more)


def http(body: bytes = OK, *lines: bytes, status: bytes = b"HTTP/1.1 200 OK", length: bool = True) -> bytes:
    """A well-formed answer, with these further header lines; without a length, if so wished."""
    framing = (b"Content-Length: %d" % len(body),) if length else ()
    return b"\r\n".join((status, *lines, *framing, b"", body))


def chunked(*chunks: bytes) -> bytes:
    """A well-formed answer in these chunks, the last one included."""
    said = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + said
