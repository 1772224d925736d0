"""Connections over TLS on both event loops, whose TLS layers are different code."""

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.edge.http.transport import Transport
from tests.edge.http.test_tls import ca_file, server_tls
from tests.hostile.entry import http
from tests.hostile.tls import TlsPeer, over_tls
from tests.support.raw_server import (
    BOUND_S,
    OK,
    Peer,
    RawServer,
    Script,
    answering,
    evidence_and_reason,
    never_answer,
    post,
    transport_to,
)

ANSWERED = (Evidence.ANSWERED, None)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def over_https(
    authority: trustme.CA, folder: Path, script: Script, *, raw: bool = False
) -> AsyncIterator[tuple[RawServer, Transport]]:
    """A server and its transport; a `raw` script does the server's TLS itself."""
    server = RawServer(script)
    async with (
        server.running(None if raw else server_tls(authority)),
        transport_to(server.url.replace("http:", "https:"), tls={"ca_file": ca_file(authority, folder)}) as transport,
    ):
        yield server, transport


async def test_a_connection_is_reused(authority: trustme.CA, tmp_path: Path) -> None:
    async with over_https(authority, tmp_path, answering(OK, OK, OK)) as (server, transport):
        for _ in range(3):
            assert evidence_and_reason(await post(transport)) == ANSWERED
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("script", [answering(OK, OK), never_answer], ids=["answered", "unanswered"])
async def test_an_exchange_names_the_address_and_the_certificate_of_its_connection(
    authority: trustme.CA, tmp_path: Path, script: Script
) -> None:
    presented = authority.issue_cert("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    presented.configure_cert(context)
    tls = {"ca_file": ca_file(authority, tmp_path)}
    async with (
        RawServer(script).running(context) as server,
        transport_to(server.url.replace("http:", "https:"), tls=tls) as transport,
    ):
        exchanges = [await post(transport, timeout_s=0.3) for _ in range(2)]
    der = ssl.PEM_cert_to_DER_cert(presented.cert_chain_pems[0].bytes().decode())
    named = {(exchange.peer, exchange.peer_certificate_sha256) for exchange in exchanges}
    assert named == {(f"127.0.0.1:{server.address[1]}", hashlib.sha256(der).digest())}
    assert server.connections == (1 if exchanges[0].reason is None else 2)


@pytest.mark.parametrize("unasked", [b"\r\n", OK])
async def test_bytes_on_an_idle_connection_close_it(authority: trustme.CA, tmp_path: Path, unasked: bytes) -> None:
    is_idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await is_idle.wait()
        await peer.send(unasked)
        await peer.read_until_closed()

    async with over_https(authority, tmp_path, script) as (server, transport):
        assert evidence_and_reason(await post(transport)) == ANSWERED
        is_idle.set()
        async with asyncio.timeout(BOUND_S):
            await server.hung_up.wait()
        assert not transport._connector._connector._acquired


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"", "reset"), (http()[:30], "reset"), (http()[:-1], "truncated"), (http(), None), (http(length=False), None)],
)
async def test_an_end_without_close_notify_is_the_end_of_the_connection(
    authority: trustme.CA, tmp_path: Path, sent: bytes, reason: str | None
) -> None:
    async def play(tls: TlsPeer) -> None:
        if sent:
            await tls.peer.send(tls.sealed(sent))

    script = over_tls(server_tls(authority), play)
    async with over_https(authority, tmp_path, script, raw=True) as (_, transport):
        exchange = await post(transport)
    assert evidence_and_reason(exchange) == (Evidence.UNANSWERED if reason else Evidence.ANSWERED, reason)


async def test_a_timeout_and_an_interrupt_close_the_connection(authority: trustme.CA, tmp_path: Path) -> None:
    async with over_https(authority, tmp_path, never_answer) as (server, transport):
        exchange = await post(transport, timeout_s=0.3)
        assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "timeout")
        async with asyncio.timeout(BOUND_S):
            await server.hung_up.wait()
            server.hung_up.clear()
            await server.arrivals.get()
            under_way = asyncio.create_task(post(transport))
            await server.arrivals.get()
            transport.interrupt()
            assert evidence_and_reason(await under_way) == (Evidence.UNANSWERED, "interrupted")
            await server.hung_up.wait()


async def test_a_handshake_that_ends_too_late_sends_nothing(authority: trustme.CA, tmp_path: Path) -> None:
    context = server_tls(authority)
    late_s = 0.0

    def delay_handshake(*_hello: object) -> None:
        time.sleep(max(0.0, late_s - time.monotonic()))

    context.sni_callback = delay_handshake
    server = RawServer(answering(OK))
    async with (
        server.running(context),
        transport_to(server.url.replace("http:", "https:"), tls={"ca_file": ca_file(authority, tmp_path)}) as transport,
    ):
        late_s = time.monotonic() + 1.0
        exchange = await post(transport, send_before_s=late_s)
        assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "too_late")
        # The next request works and is the only one that arrived.
        assert evidence_and_reason(await post(transport)) == ANSWERED
    assert (len(server.requests), server.unexpected_bytes) == (1, b"")


async def test_a_request_that_timed_out_is_not_delivered_later(authority: trustme.CA, tmp_path: Path) -> None:
    """What the TLS layer, the loop and the kernel still hold is discarded."""
    body_bytes = 20_000_000
    go_on = asyncio.Event()
    arrived = 0

    async def reads_late(peer: Peer) -> None:
        nonlocal arrived
        arrived += len(await peer.reader.readexactly(1))
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go_on.wait()
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while received := await peer.reader.read(65_536):
            arrived += len(received)

    async with over_https(authority, tmp_path, reads_late) as (server, transport):
        exchange = await post(transport, timeout_s=1.0, body=b"x" * body_bytes)
        assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "timeout")
        go_on.set()
        async with asyncio.timeout(BOUND_S):
            await server.hung_up.wait()
    assert arrived < body_bytes
