"""Certificates of both sides in real handshakes, and the evidence of each exchange.

A handshake that fails is `not_sent`. In TLS 1.3 a server can refuse a client's certificate only
when the client's side of the handshake is over; what such an attempt counts as is held here against
what came to the server.
"""

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import uvloop

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.edge.http.resolver import look_up
from predictu_dispatch.edge.http.transport import Transport
from predictu_dispatch.edge.tls import client_context
from tests.support.raw_server import (
    OK,
    TIMEOUT_S,
    Peer,
    RawServer,
    Script,
    answering,
    evidence_and_reason,
    post,
    settings_for,
    tls_context,
    transport_to,
)

NAME = "wallet.example.com"
LARGE_BODY = b"x" * 20_000
"""Longer than any handshake, so that fewer received bytes cannot contain the request."""
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *names: str, **issued: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(names or (NAME, "127.0.0.1")), **issued).configure_cert(context)
    return context


def demanding(context: ssl.SSLContext, authority: trustme.CA) -> ssl.SSLContext:
    """Requires client certificates of `authority`."""
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    return context


def ca_file(authority: trustme.CA, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem")


def client_files(authority: trustme.CA, folder: Path, identity: str = "dispatch@example.com") -> dict[str, str]:
    """An operator's [tls] client_cert_file and client_key_file, issued by `authority`."""
    folder.mkdir(exist_ok=True)
    ours = authority.issue_cert(identity)
    ours.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(0o600)
    ours.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return {"client_cert_file": str(folder / "cert.pem"), "client_key_file": str(folder / "key.pem")}


async def exchange_over_tls(
    context: ssl.SSLContext, script: Script, *, name: str = NAME, **tls: str
) -> tuple[Exchange, RawServer]:
    """One exchange with a server on 127.0.0.1, by `name`."""

    def here(_host: str, port: int, family: int) -> Sequence[aiohttp.AddrInfoType]:
        return look_up("127.0.0.1", port, family)

    async with RawServer(script).running(context) as server:
        settings = settings_for(f"https://{name}:{server.address[1]}/predictu", tls=tls)
        transport = Transport(settings, tls_context(settings.tls), look_up=here)
        try:
            return await post(transport), server
        finally:
            await transport.close()


# Server certificates


@pytest.mark.parametrize("name", [NAME, "127.0.0.1"])
async def test_the_operators_ca_file_is_trusted(authority: trustme.CA, tmp_path: Path, name: str) -> None:
    exchange, server = await exchange_over_tls(
        server_tls(authority), answering(OK), name=name, ca_file=ca_file(authority, tmp_path)
    )
    assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
    assert len(server.requests) == 1


@pytest.mark.parametrize("trusted", ["ca_file", "the system's"])
async def test_an_operator_is_verified_in_the_same_way_whoever_is_trusted(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    """On every Python: 3.13 verifies more strictly in create_default_context() only."""
    file, negotiated = ca_file(authority, tmp_path), []

    async def script(peer: Peer) -> None:
        negotiated.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answering(OK)(peer)

    monkeypatch.setattr("predictu_dispatch.edge.http.connector._system_context", client_context)
    monkeypatch.setenv("SSL_CERT_FILE", file)
    context = server_tls(authority)
    context.set_alpn_protocols(["http/1.1"])
    exchange, _ = await exchange_over_tls(context, script, **({"ca_file": file} if trusted == "ca_file" else {}))
    assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
    assert negotiated == ["http/1.1"]
    ours = client_context(Path(file) if trusted == "ca_file" else None)
    assert ours.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    assert (ours.verify_mode, ours.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert ours.minimum_version == ssl.TLSVersion.TLSv1_2
    assert ours.options == client_context().options


async def refused(context: ssl.SSLContext, *, name: str = NAME, **tls: str) -> str:
    """Checks that the exchange failed before the request; returns its error."""
    exchange, server = await exchange_over_tls(context, answering(OK), name=name, **tls)
    assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "tls_failed")
    assert exchange.connect_ms is None
    assert server.requests == []
    return exchange.error or ""


async def test_a_certificate_of_another_authority_is_not_sent(authority: trustme.CA, tmp_path: Path) -> None:
    # Signed neither by a public authority nor by the operator's own.
    for tls in ({}, {"ca_file": ca_file(trustme.CA(), tmp_path)}):
        assert "unable to get local issuer certificate" in await refused(server_tls(authority), **tls)


async def test_a_ca_file_is_the_only_authority(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file(authority, tmp_path / "system"))
    tls = {"ca_file": ca_file(trustme.CA(), tmp_path / "operator")}
    assert "unable to get local issuer certificate" in await refused(server_tls(authority), **tls)


async def test_a_certificate_for_another_name_is_not_sent(authority: trustme.CA, tmp_path: Path) -> None:
    tls = {"ca_file": ca_file(authority, tmp_path)}
    error = await refused(server_tls(authority, "other.example.com"), **tls)
    assert f"Hostname mismatch, certificate is not valid for '{NAME}'" in error
    error = await refused(server_tls(authority, NAME), name="127.0.0.1", **tls)
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in error


async def test_an_expired_certificate_is_not_sent(authority: trustme.CA, tmp_path: Path) -> None:
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    context = server_tls(authority, not_before=yesterday - dt.timedelta(days=30), not_after=yesterday)
    assert "certificate has expired" in await refused(context, ca_file=ca_file(authority, tmp_path))


async def test_a_self_signed_certificate_is_not_sent(authority: trustme.CA, tmp_path: Path) -> None:
    self_signed = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (tmp_path / "self.pem").write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
    self_signed.load_cert_chain(tmp_path / "self.pem")
    for tls in ({}, {"ca_file": ca_file(trustme.CA(), tmp_path)}):
        assert "self-signed certificate" in (await refused(self_signed, **tls)).replace("self signed", "self-signed")


async def test_tls_older_than_1_2_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    old = server_tls(authority)
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    for tls in ({}, {"ca_file": ca_file(authority, tmp_path)}):
        error = await refused(old, **tls)
        assert "alert protocol version" in error or "during the TLS handshake" in error


async def test_a_connection_closed_in_the_handshake_is_explained() -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.reader.read(65_536)

    async with (
        RawServer(hangs_up).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        exchange = await post(transport)
    assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "tls_failed")
    assert "the operator closed the connection during the TLS handshake" in (exchange.error or "")


async def test_nothing_is_sent_if_the_handshake_ends_too_late(authority: trustme.CA, tmp_path: Path) -> None:
    send_before_s = 0.0
    context = server_tls(authority)

    def delay_handshake(*_hello: object) -> None:
        time.sleep(max(0.0, send_before_s - time.monotonic()))

    context.sni_callback = delay_handshake
    async with (
        RawServer(Peer.read_until_closed).running(context) as server,
        transport_to(server.url.replace("http:", "https:"), tls={"ca_file": ca_file(authority, tmp_path)}) as transport,
    ):
        # Long enough for a busy machine to begin the handshake.
        send_before_s = time.monotonic() + 1.0
        exchange = await post(transport, send_before_s=send_before_s)
        async with asyncio.timeout(TIMEOUT_S):
            await server.hung_up.wait()
    assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "too_late")
    assert exchange.connect_ms is not None
    assert (server.connections, server.requests, server.unexpected_bytes) == (1, [], b"")


# Client certificates


async def test_each_operator_has_its_own_authority_and_certificate(tmp_path: Path) -> None:
    """Each server and each operator's file trust only one authority."""
    authorities = {identity: trustme.CA() for identity in ("one@example.com", "two@example.com")}
    seen: list[tuple[tuple[str, str], ...]] = []

    async def script(peer: Peer) -> None:
        seen.append(peer.writer.get_extra_info("peercert")["subjectAltName"])
        await answering(OK)(peer)

    files = {
        identity: {"ca_file": ca_file(own, tmp_path / identity), **client_files(own, tmp_path / identity, identity)}
        for identity, own in authorities.items()
    }
    pairs = [
        exchange_over_tls(demanding(server_tls(own), own), script, **files[identity])
        for identity, own in authorities.items()
    ]
    for exchange, _ in await asyncio.gather(*pairs):
        assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
    assert sorted(seen) == [(("email", identity),) for identity in authorities]
    # One operator's certificate is refused by the other's server.
    one, two = authorities
    await refused(demanding(server_tls(authorities[two]), authorities[two]), **files[one])


class DemandingServer:
    """A server that wants a client certificate, in a thread.

    It keeps every byte that came and says how it refused.

    OpenSSL by hand, because asyncio's servers hang up without the alert that other servers send.
    """

    def __init__(self, context: ssl.SSLContext, listener: socket.socket) -> None:
        self._context = context
        self._listener = listener
        self.url = f"https://127.0.0.1:{listener.getsockname()[1]}/predictu"
        self.arrived_bytes = 0
        self.refusal = ""
        self.read = b""

    def serve_one(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(TIMEOUT_S)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(incoming, outgoing, server_side=True)
        with connection, contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65_536):
                self.arrived_bytes += len(chunk)
                incoming.write(chunk)
                self._shake_hands(tls)
                connection.sendall(outgoing.read())

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        """Continues the handshake; a refused one stays refused."""
        if self.refusal:
            return
        try:
            tls.do_handshake()
            self.read += tls.read(65_536)
            tls.write(OK)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as refusal:
            self.refusal = refusal.reason or ""


@contextmanager
def demanding_server(authority: trustme.CA, version: ssl.TLSVersion) -> Iterator[DemandingServer]:
    context = demanding(server_tls(authority), authority)
    context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        server = DemandingServer(context, listener)
        thread = threading.Thread(target=server.serve_one)
        thread.start()
        try:
            yield server
        finally:
            thread.join()


async def large_exchange(url: str, tls: dict[str, str]) -> Exchange:
    async with transport_to(url, tls=tls) as transport:
        return await post(transport, body=LARGE_BODY)


def exchange_with_demanding_server(
    authority: trustme.CA,
    version: ssl.TLSVersion,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    tls: dict[str, str],
) -> tuple[Exchange, DemandingServer]:
    with demanding_server(authority, version) as server, asyncio.Runner(loop_factory=new_loop) as runner:
        exchange = runner.run(large_exchange(server.url, tls))
    return exchange, server


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("certificate", ["missing", "of another authority"])
def test_before_tls_1_3_a_refused_client_certificate_is_not_sent(
    authority: trustme.CA, tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop], certificate: str
) -> None:
    tls = {"ca_file": ca_file(authority, tmp_path)}
    if certificate != "missing":
        tls |= client_files(trustme.CA(), tmp_path)
    exchange, server = exchange_with_demanding_server(authority, ssl.TLSVersion.TLSv1_2, new_loop, tls)
    assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "tls_failed")
    alert = "handshake failure" if certificate == "missing" else "unknown ca"
    assert f"alert {alert}" in (exchange.error or "")
    assert server.refusal in {"PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"}
    assert server.arrived_bytes < len(LARGE_BODY)


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("certificate", ["missing", "of another authority"])
def test_in_tls_1_3_a_refused_client_certificate_is_unanswered_unless_the_refusal_came_first(
    authority: trustme.CA, tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop], certificate: str
) -> None:
    """The client is done before the server can say no (RFC 8446 section 4.4), and sends.

    The server reads none of it.

    Such a server has applied nothing, but what tells it apart from one that has is an alert that
    may come or not. A debit counts as of unknown effect, and is rolled back.
    """
    tls = {"ca_file": ca_file(authority, tmp_path)}
    if certificate != "missing":
        tls |= client_files(trustme.CA(), tmp_path)
    exchange, server = exchange_with_demanding_server(authority, ssl.TLSVersion.TLSv1_3, new_loop, tls)
    assert server.refusal in {"PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"}
    assert server.read == b""
    if exchange.evidence is Evidence.NOT_SENT:
        # The refusal arrived before the request was written.
        assert exchange.reason == "connect_failed"
        return
    assert exchange.evidence is Evidence.UNANSWERED
    # The alert names the cause, unless it arrived between two writes, so that the second failed.
    alert = "certificate required" if certificate == "missing" else "unknown ca"
    assert exchange.reason in {"tls_failed", "reset"}
    assert (f"alert {alert}" in (exchange.error or "")) == (exchange.reason == "tls_failed")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_valid_client_certificate_is_accepted(authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion) -> None:
    tls = {"ca_file": ca_file(authority, tmp_path), **client_files(authority, tmp_path)}
    exchange, server = exchange_with_demanding_server(authority, version, uvloop.new_event_loop, tls)
    assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
    assert server.refusal == ""
    assert server.arrived_bytes > len(LARGE_BODY)
    assert server.read.startswith(b"POST /predictu HTTP/1.1\r\n")
