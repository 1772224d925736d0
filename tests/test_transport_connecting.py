"""Before anything is sent: refused, unresolved, too slow, not trusted. None of it may be more than `not_sent`."""

import asyncio
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from predictu_dispatch.core.callback import Evidence, Exchange
from tests.support.raw_server import (
    BOUND_S,
    OK,
    TIMEOUT_S,
    Peer,
    RawServer,
    Script,
    answering,
    post,
    told,
    transport_to,
)

# ------------------------------------------------------------------------------------------------------------- not sent


async def test_a_refused_connection_is_not_sent() -> None:
    with socket.socket() as bound:
        # Bound and not listening: nobody else can take the port, and nobody answers.
        bound.bind(("127.0.0.1", 0))
        async with transport_to(f"http://127.0.0.1:{bound.getsockname()[1]}/") as transport:
            exchange = await post(transport)
    assert told(exchange) == (Evidence.NOT_SENT, "connect_refused")
    assert exchange.error is not None
    assert (exchange.status, exchange.connect_ms, exchange.first_byte_ms) == (None, None, None)


async def test_a_name_that_does_not_exist_is_not_sent() -> None:
    # RFC 6761: no resolver ever finds a name under .invalid, with or without a network.
    async with transport_to("http://operator.invalid/") as transport:
        exchange = await post(transport, timeout_s=30.0, connect_timeout_s=30.0)
    assert told(exchange) == (Evidence.NOT_SENT, "dns_failed")


async def test_a_host_that_does_not_answer_is_not_sent_after_the_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        # Linux queues one connection more than the backlog; to the next SYN it says nothing at all.
        full.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        try:
            for filler in fillers:
                filler.settimeout(0)
                filler.connect_ex(full.getsockname())
            async with transport_to(f"http://127.0.0.1:{full.getsockname()[1]}/") as transport:
                async with asyncio.timeout(BOUND_S):
                    exchange = await post(transport, connect_timeout_s=0.2)
        finally:
            for filler in fillers:
                filler.close()
    assert told(exchange) == (Evidence.NOT_SENT, "connect_timeout")
    assert 200 <= exchange.total_ms < BOUND_S * 1000


async def test_a_server_that_never_shakes_hands_is_not_sent_after_the_connect_timeout() -> None:
    async with (
        RawServer(Peer.silence).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        async with asyncio.timeout(BOUND_S):
            exchange = await post(transport, connect_timeout_s=0.2)
        await server.hung_up.wait()
    assert told(exchange) == (Evidence.NOT_SENT, "connect_timeout")
    assert b"POST" not in server.strays


async def test_the_whole_attempts_timeout_bounds_connecting_too() -> None:
    async with (
        RawServer(Peer.silence).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        async with asyncio.timeout(BOUND_S):
            exchange = await post(transport, timeout_s=0.2, connect_timeout_s=TIMEOUT_S)
    assert told(exchange) == (Evidence.NOT_SENT, "connect_timeout")


async def test_after_its_time_nothing_is_sent_and_nobody_is_called() -> None:
    async with RawServer(answering(OK)).running() as server, transport_to(server.url) as transport:
        exchange = await post(transport, send_before_s=time.monotonic())
    assert told(exchange) == (Evidence.NOT_SENT, "too_late")
    assert server.connections == 0


async def test_a_connection_that_stands_too_late_carries_nothing(authority: trustme.CA, tmp_path: Path) -> None:
    send_before_s = time.monotonic() + 0.2
    context = server_tls(authority)

    def shake_hands_too_late(*_hello: object) -> None:
        time.sleep(max(0.0, send_before_s - time.monotonic()))

    context.sni_callback = shake_hands_too_late
    async with (
        RawServer(Peer.silence).running(context) as server,
        transport_to(server.url.replace("http:", "https:"), tls={"ca_file": ca_file(authority, tmp_path)}) as transport,
    ):
        exchange = await post(transport, send_before_s=send_before_s)
        await server.hung_up.wait()
    assert told(exchange) == (Evidence.NOT_SENT, "too_late")
    assert exchange.connect_ms is not None
    assert (server.connections, server.requests, server.strays) == (1, [], b"")


# ------------------------------------------------------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def ca_file(authority: trustme.CA, folder: Path) -> str:
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem")


async def exchange_over_tls(context: ssl.SSLContext, script: Script, **tls: str) -> tuple[Exchange, RawServer]:
    async with (
        RawServer(script).running(context) as server,
        transport_to(server.url.replace("http:", "https:"), tls=tls) as transport,
    ):
        return await post(transport), server


async def test_the_operators_ca_file_is_trusted(authority: trustme.CA, tmp_path: Path) -> None:
    exchange, server = await exchange_over_tls(
        server_tls(authority), answering(OK), ca_file=ca_file(authority, tmp_path)
    )
    assert told(exchange) == (Evidence.ANSWERED, None)
    assert len(server.requests) == 1


async def test_a_certificate_of_another_authority_is_not_sent(authority: trustme.CA, tmp_path: Path) -> None:
    theirs = trustme.CA()
    for tls in ({}, {"ca_file": ca_file(theirs, tmp_path)}):
        exchange, server = await exchange_over_tls(server_tls(authority), answering(OK), **tls)
        assert told(exchange) == (Evidence.NOT_SENT, "tls_failed")
        assert "certificate" in (exchange.error or "").lower()
        assert server.requests == []


async def test_a_certificate_for_another_name_is_not_sent(authority: trustme.CA, tmp_path: Path) -> None:
    exchange, server = await exchange_over_tls(
        server_tls(authority, "wallet.example.com"), answering(OK), ca_file=ca_file(authority, tmp_path)
    )
    assert told(exchange) == (Evidence.NOT_SENT, "tls_failed")
    assert server.requests == []


async def test_a_server_that_speaks_plain_http_on_the_tls_port_gets_nothing() -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.silence()

    async with (
        RawServer(plain).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        exchange = await post(transport)
    assert told(exchange) == (Evidence.NOT_SENT, "tls_failed")
    assert b"POST" not in server.strays


async def test_the_operators_client_certificate_is_presented(authority: trustme.CA, tmp_path: Path) -> None:
    context = server_tls(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    ours = authority.issue_cert("dispatch@example.com")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    seen: list[Any] = []

    async def script(peer: Peer) -> None:
        seen.append(peer.writer.get_extra_info("peercert"))
        await answering(OK)(peer)

    tls = {
        "ca_file": ca_file(authority, tmp_path),
        "client_cert_file": str(tmp_path / "cert.pem"),
        "client_key_file": str(tmp_path / "key.pem"),
    }
    exchange, server = await exchange_over_tls(context, script, **tls)
    assert told(exchange) == (Evidence.ANSWERED, None)
    assert len(server.requests) == 1
    assert seen[0]["subjectAltName"] == (("email", "dispatch@example.com"),)
    # Without it, the server turns us away when our side of the handshake is over: TLS 1.3 tells too late to be sure.
    refused, server = await exchange_over_tls(context, script, ca_file=tls["ca_file"])
    assert refused.evidence is Evidence.UNANSWERED
    assert server.requests == []
