"""One bad answer: its bytes, and the expected verdicts.

The expectations follow the contract's table of verdicts, not the code. If HTTP leaves the choice to
the client (RFC 9110, RFC 9112), an entry has several correct results; none of them accepts an
incomplete answer.
"""

import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from predictu_dispatch.core.callback import Effect, Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Verdict
from tests.support.raw_server import Peer

Play = Callable[[Peer, bytes], Awaitable[None]]
"""Sends the answer to this request on this connection."""

BALANCE = 95_000
_ERROR_CHARS_MAX = 500
OK = b'{"status":"OK","balance":95000,"transaction_id":"op-tx-123"}'
REFUSED = b'{"status":"INSUFFICIENT_FUNDS","balance":3}'
BOMB = gzip.compress(b"0" * 1_000_000)
"""A gzip member of 1 KB that unpacks to 1 MB."""
PAGE = b"<!doctype html><html><title>Log in</title><p>Please log in.</html>"


class Then(StrEnum):
    """What happens to the connection after the answer."""

    GOES_ON = "goes on"
    CLOSES = "closes"
    RESETS = "resets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One correct result of an attempt; `effect` is None if the effect does not change."""

    evidence: Evidence
    reason: str | None
    verdict: Verdict
    effect: Effect | None


DELIVERED = Expected(evidence=Evidence.ANSWERED, reason=None, verdict=Verdict.DELIVERED, effect=Effect.APPLIED)
NOTHING_TO_REVERSE = Expected(
    evidence=Evidence.ANSWERED, reason="nothing_to_reverse", verdict=Verdict.DELIVERED, effect=None
)


def rejected(reason: str) -> Expected:
    """A business rejection: never retried; the effect of earlier attempts does not change."""
    return Expected(evidence=Evidence.ANSWERED, reason=reason, verdict=Verdict.REJECTED, effect=None)


UNKNOWN_STATUS = Expected(
    evidence=Evidence.ANSWERED, reason="unknown_status", verdict=Verdict.REJECTED, effect=Effect.UNKNOWN
)
"""What an undeclared status means to all but a rollback."""
UNKNOWN_STATUS_RETRIED = replace(UNKNOWN_STATUS, verdict=Verdict.RETRY)


def no_answer(reason: str) -> Expected:
    """A complete HTTP answer without a usable body: the operator may have applied the callback."""
    return Expected(evidence=Evidence.ANSWERED, reason=reason, verdict=Verdict.RETRY, effect=Effect.UNKNOWN)


def broken(*reasons: str) -> tuple[Expected, ...]:
    """The request was sent and no complete answer came, for one of these reasons."""
    return tuple(
        Expected(evidence=Evidence.UNANSWERED, reason=reason, verdict=Verdict.RETRY, effect=Effect.UNKNOWN)
        for reason in reasons
    )


def unsent(*reasons: str) -> tuple[Expected, ...]:
    """No byte of the request was sent, for one of these reasons."""
    return tuple(
        Expected(evidence=Evidence.NOT_SENT, reason=reason, verdict=Verdict.RETRY, effect=None) for reason in reasons
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A bad answer: the bytes in `wire`, or a script in `play`.

    `balance` and `anomaly` are expected if it is delivered, `body` in the audit if it is answered.
    """

    name: str
    expected: tuple[Expected, ...]
    wire: bytes = b""
    play: Play | None = None
    then: Then = Then.GOES_ON
    for_rollback: tuple[Expected, ...] = ()
    balance: int | None = BALANCE
    anomaly: str | None = None
    body: bytes | None = None
    ends_by_timeout: bool = False

    def expected_for(self, method: Method) -> tuple[Expected, ...]:
        return self.for_rollback if self.for_rollback and method is Method.BET_ROLLBACK else self.expected

    async def answer(self, peer: Peer, request: bytes) -> bool:
        """Answer on this connection; True if the connection stays open."""
        if self.play is not None:
            await self.play(peer, request)
        else:
            await peer.send(self.wire)
        if self.then is Then.RESETS:
            peer.reset()
        return self.then is Then.GOES_ON


def assert_can_be_stored(exchange: Exchange, *, bytes_max: int) -> None:
    """Checks that Postgres can store it and that the limits hold."""
    for text in (exchange.error or "", *(part for header in exchange.headers for part in header)):
        assert "\0" not in text
        text.encode()
    assert len(exchange.error or "") <= _ERROR_CHARS_MAX
    assert len(exchange.body) <= bytes_max
    assert exchange.truncated == (exchange.status is not None and exchange.evidence is not Evidence.ANSWERED)
    assert exchange.reason != "internal_error"


def sends(name: str, wire: bytes, *expected: Expected, **more: Any) -> Entry:
    return Entry(name=name, wire=wire, expected=expected, **more)


def plays(name: str, play: Play, *expected: Expected, **more: Any) -> Entry:
    return Entry(name=name, play=play, expected=expected, **more)


def endless(name: str, play: Play, *expected: Expected, **more: Any) -> Entry:
    """An endless answer: the attempt ends by its timeout or with one of the other `expected`."""
    return Entry(name=name, play=play, expected=(*broken("timeout"), *expected), ends_by_timeout=True, **more)


def http(body: bytes = OK, *lines: bytes, status: bytes = b"HTTP/1.1 200 OK", length: bool = True) -> bytes:
    """A well-formed answer with additional header lines, optionally without a length."""
    framing = (b"Content-Length: %d" % len(body),) if length else ()
    return b"\r\n".join((status, *lines, *framing, b"", body))


def chunked(*chunks: bytes) -> bytes:
    """A well-formed answer in these chunks, including the last one."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
