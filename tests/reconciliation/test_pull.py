"""A ledger is pulled whole, or not at all with a reason."""

import gzip
import hashlib
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from predictu_dispatch.core.ledger_request import LedgerRefusal
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.keys import new_private_pem
from predictu_dispatch.edge.config.operator_file import OperatorConfig
from predictu_dispatch.edge.http.ledger_client import PullLimits
from predictu_dispatch.reconciliation.files import LedgerFileError
from predictu_dispatch.reconciliation.pull import PulledLedger, pulled_ledger
from tests.support.raw_server import Peer, RawServer, settings_for

START = datetime(2026, 11, 20, 23, tzinfo=UTC)
END = START + timedelta(days=1)
LATER = END + timedelta(days=7)
LIMITS = PullLimits(bytes_max=10_000, total_s=20.0, idle_s=20.0, connect_s=20.0)
LEDGER = b"booked_at,amount\n" * 40
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n%b"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
KEY = SigningKey.from_pem(new_private_pem("EdDSA"), "EdDSA")


def operator_of(url: str, context: ssl.SSLContext | None = None, **changes: bool) -> OperatorConfig:
    settings = settings_for(url, reconcile={"url": f"{url}/ledger?tenant=7"})
    return OperatorConfig(
        # A file with such changes is refused before.
        settings=settings.model_copy(update=changes),
        file=Path("operators/op_abc123.toml"),
        published_keys=(KEY,),
        fingerprint="",
        tls_digest="",
        ssl_context=context,
    )


def pulled_from(
    operator: OperatorConfig, *, now: datetime = LATER, limits: PullLimits = LIMITS
) -> AbstractAsyncContextManager[PulledLedger | LedgerRefusal]:
    return pulled_ledger(operator, starts_at=START, ends_at=END, now=now, limits=limits)


async def asked(peer: Peer) -> str:
    """Returns the head of the peer's request."""
    head = (await peer.reader.readuntil(b"\r\n\r\n")).decode()
    peer.server.requests.append(head.encode())
    return head


def sending(*pieces: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answers with these bytes, and closes the connection."""

    async def script(peer: Peer) -> None:
        await asked(peer)
        for piece in pieces:
            await peer.send(piece)

    return script


async def dripping(peer: Peer) -> None:
    await asked(peer)
    await peer.send(WHOLE % (5_000, b""))
    await peer.send_forever(b"x", pause_s=0.01)


async def endless(peer: Peer) -> None:
    await asked(peer)
    await peer.send(CHUNKED)
    await peer.send_forever(b"400\r\n" + b"x" * 1024 + b"\r\n")


async def silent(peer: Peer) -> None:
    await asked(peer)
    await peer.send(WHOLE % (100, b"booked_at"))
    await peer.read_until_closed()


async def resetting(peer: Peer) -> None:
    await asked(peer)
    await peer.send(WHOLE % (100, b"booked_at"))
    peer.reset()


def signature_in(head: str) -> str:
    return head.partition("Bearer ")[2].partition("\r\n")[0].rpartition(".")[2]


async def repeating_our_token(peer: Peer) -> None:
    signature = signature_in(await asked(peer))
    await peer.send(f"HTTP/1.1 {signature}\r\n\r\n".encode())


ENDED = "the connection ended before the ledger did"
REFUSED = {
    "cut": (sending(WHOLE % (100, b"booked_at")), ENDED),
    "cut between chunks": (sending(CHUNKED, b"9\r\nbooked_at\r\n"), ENDED),
    "reset": (resetting, ENDED),
    "no framing": (sending(b"HTTP/1.1 200 OK\r\n\r\n" + LEDGER), "nothing shows that it is whole"),
    "chunks within another coding": (
        sending(CHUNKED.replace(b"chunked\r\n", b"chunked\r\nTransfer-Encoding: gzip\r\n") + LEDGER),
        "nothing shows that it is whole",
    ),
    "two lengths": (sending(WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n") % (5, b"")), "Duplicate"),
    "too large": (sending(WHOLE % (10_001, b"x" * 10_001)), "larger than 10,000 bytes"),
    "endless": (endless, "larger than 10,000 bytes"),
    "redirect": (
        sending(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/x\r\nContent-Length: 0\r\n\r\n"),
        "302, a redirect to 169.254.169.254; none is followed",
    ),
    "401": (sending(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"), "refused our token (401)"),
    "404": (sending(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "no ledger at this URL (404)"),
    "503": (sending(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), "answered 503, not 200"),
    "204": (sending(b"HTTP/1.1 204 No Content\r\n\r\n"), "answered 204, not 200"),
    "a page": (
        sending(b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 3\r\n\r\nabc"),
        "answered with a page (text/html)",
    ),
    "a page by its content": (sending(WHOLE % (10, b"\n <!DOCTYP")), "answered with a page"),
    "no HTTP": (sending(b"SSH-2.0-x\r\n\r\n"), "the connection broke before the answer"),
    "nothing": (sending(), "the connection broke before the answer"),
    "our token": (repeating_our_token, "the connection broke before the answer"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_whatever_is_no_whole_ledger_is_refused_with_the_reason(case: str) -> None:
    script, why = REFUSED[case]
    async with RawServer(script).running() as server, pulled_from(operator_of(server.url)) as refusal:
        assert isinstance(refusal, LedgerRefusal)
        assert why in refusal.why
        # aiohttp repeats a GET if the connection is closed without an answer.
        assert server.connections == (2 if case == "nothing" else 1)
        signature = signature_in(server.requests[0].decode())
        assert len(signature) == 86
        assert signature not in f"{refusal}"
        assert "tenant" not in f"{refusal}", "a query may hold a secret"


@pytest.mark.parametrize(
    ("script", "limits", "why"),
    [
        (dripping, replace(LIMITS, total_s=0.3), "not complete after 0.3 s"),
        (silent, replace(LIMITS, idle_s=0.3), "sent nothing for 0.3 s"),
    ],
)
async def test_a_slow_operator_ends_by_a_limit(
    script: Callable[[Peer], Awaitable[None]], limits: PullLimits, why: str
) -> None:
    async with (
        RawServer(script).running() as server,
        pulled_from(operator_of(server.url), limits=limits) as refusal,
    ):
        assert isinstance(refusal, LedgerRefusal)
        assert why in refusal.why


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (WHOLE % (len(LEDGER), LEDGER), LEDGER),
        (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LEDGER), LEDGER), LEDGER),
        (
            WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
            % (len(gzip.compress(LEDGER, mtime=0)), gzip.compress(LEDGER, mtime=0)),
            LEDGER,
        ),
    ],
)
async def test_a_whole_ledger_is_read_like_a_file_and_leaves_none(
    answer: bytes, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with (
        RawServer(sending(answer)).running() as server,
        pulled_from(operator_of(server.url)) as pulled,
    ):
        assert isinstance(pulled, PulledLedger)
        assert os.listdir(tmp_path) == []  # noqa: PTH208 - it does not block
        assert pulled.file.name == f"{server.url}/ledger"
        assert (
            pulled.file.sha256 == hashlib.sha256(answer.partition(b"\r\n\r\n")[2]).hexdigest() or b"chunked" in answer
        )
        assert "".join(line for part in pulled.file.parts() for line in part.lines()) == content.decode()
        assert (pulled.since, pulled.until) == (START - timedelta(minutes=15), END + timedelta(minutes=15))
        target = server.requests[0].split(b" ")[1].decode()
        assert parse_qs(urlsplit(target).query) == {
            "tenant": ["7"],
            "from": ["2026-11-20T22:45:00.000Z"],
            "until": ["2026-11-21T23:15:00.000Z"],
        }


async def test_what_was_pulled_unpacks_to_no_more_than_the_limit() -> None:
    """An operator that could choose the size of our table would stop all others."""
    packed = gzip.compress(LEDGER)
    async with (
        RawServer(sending(WHOLE % (len(packed), packed))).running() as server,
        pulled_from(operator_of(server.url), limits=replace(LIMITS, bytes_max=len(LEDGER) - 1)) as pulled,
    ):
        assert isinstance(pulled, PulledLedger)
        with pytest.raises(LedgerFileError, match="unpacks to more than 679 bytes"):
            [line for part in pulled.file.parts() for line in part.lines()]


async def test_nothing_is_asked_for_after_now() -> None:
    now = END - timedelta(hours=3)
    async with (
        RawServer(sending(WHOLE % (len(LEDGER), LEDGER))).running() as server,
        pulled_from(operator_of(server.url), now=now) as pulled,
    ):
        assert isinstance(pulled, PulledLedger)
        assert pulled.until == now


async def test_addresses_and_certificates_are_checked_as_for_callbacks() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def result(context: ssl.SSLContext | None, **changes: bool) -> LedgerRefusal | None:
        answer = sending(WHOLE % (len(LEDGER), LEDGER))
        async with RawServer(answer).running(server_context) as server:
            url = server.url.replace("http://", "https://")
            async with pulled_from(operator_of(url, context, **changes)) as pulled:
                return pulled if isinstance(pulled, LedgerRefusal) else None

    assert await result(trusting) is None
    refusal = await result(None)
    assert refusal is not None
    assert refusal.why.startswith("tls_failed: ")
    assert "[tls]" in refusal.todo
    refusal = await result(trusting, allow_private_addresses=False)
    assert refusal is not None
    assert "allow_private_addresses = true" in refusal.why
