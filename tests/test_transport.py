"""What the transport says of an exchange, held against what a raw server on a real socket really got.

The worst lie would be `not_sent` after something had left: a debit would be forgotten. The next would be to take an
answer that belongs to another request, and the third to send a request twice.
"""

import asyncio
import gzip
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.operator_settings import OperatorSettings, TlsSettings
from predictu_dispatch.edge.config import _ssl_context
from predictu_dispatch.edge.transport import Transport

BODY = '{"method":"PING","params":{"note":"€"}}'.encode()
HEADERS = (("Content-Type", "application/json"), ("Authorization", "Bearer a.b.c"), ("Accept-Encoding", "identity"))
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"OK"}'
TIMEOUT_S = 5.0
"""Of every exchange that is not meant to run out; nothing here comes near it."""
BOUND_S = 3.0
"""Generous: what has a timeout of a fraction of a second ends by then, on the slowest machine."""


class Peer:
    """One connection, seen from the raw server."""

    def __init__(self, server: "RawServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """One complete request, noted by the server; raises IncompleteReadError where it never comes."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        request = head + await self.reader.readexactly(int(lines[b"content-length"]))
        self.server.requests.append(request)
        self.server.arrivals.put_nowait(request)
        return request

    async def say(self, answer: bytes) -> None:
        """`answer` is on its way; raises ConnectionError once the other side is gone."""
        self.writer.write(answer)
        await self.writer.drain()
        self.server.bytes_said += len(answer)

    async def say_for_ever(self, piece: bytes, *, pause_s: float = 0.0) -> None:
        while True:
            await self.say(piece)
            await asyncio.sleep(pause_s)

    def reset(self) -> None:
        """The connection is gone with a RST instead of a FIN."""
        tcp: socket.socket = self.writer.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def silence(self) -> None:
        """Whatever still comes is noted, until the other side hangs up."""
        while received := await self.reader.read(65_536):
            self.server.strays += received


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """What a script makes of TCP connections on 127.0.0.1, and the bytes that came in."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ("127.0.0.1", 0)
        self.connections = 0
        self.requests: list[bytes] = []
        self.strays = b""
        self.bytes_said = 0
        self.arrivals: asyncio.Queue[bytes] = asyncio.Queue()
        self.got_connection = asyncio.Event()
        self.hung_up = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}/predictu"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.got_connection.set()
        task = asyncio.get_running_loop().create_task(self._talk(Peer(self, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, peer: Peer) -> None:
        try:
            await self._script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            # The other side has gone, which several of the tests are about.
            pass
        finally:
            self.hung_up.set()
            peer.writer.close()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["RawServer"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)
        self.address = server.sockets[0].getsockname()
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()


def answering(*answers: bytes) -> Script:
    """A script that answers each request of a connection with the next of `answers`, then waits to be left."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.say(answer)
        await peer.silence()

    return script


def settings_for(url: str, **tables: Any) -> OperatorSettings:
    return OperatorSettings.model_validate(
        {
            "operator_id": "op_abc123",
            "callback_url": url,
            "allow_insecure_http": True,
            "allow_private_addresses": True,
            "signing": {"key_file": "op_abc123.pem"},
            **tables,
        }
    )


def tls_context(tls: TlsSettings) -> ssl.SSLContext | None:
    """What the daemon makes of an operator's [tls]."""
    context, faults = _ssl_context(tls, Path("op_abc123.toml"), {}) if tls != TlsSettings() else (None, ())
    assert faults == ()
    return context


@asynccontextmanager
async def transport_to(url: str, **tables: Any) -> AsyncIterator[Transport]:
    settings = settings_for(url, **tables)
    transport = Transport(settings, tls_context(settings.tls))
    try:
        yield transport
    finally:
        await transport.close()


async def post(
    transport: Transport,
    *,
    timeout_s: float = TIMEOUT_S,
    connect_timeout_s: float = TIMEOUT_S,
    send_before_s: float = float("inf"),
    body: bytes = BODY,
) -> Exchange:
    return await transport.post(
        headers=HEADERS,
        body=body,
        timeout_s=timeout_s,
        connect_timeout_s=connect_timeout_s,
        send_before_s=send_before_s,
    )


async def exchange_with(script: Script, *, timeout_s: float = TIMEOUT_S, **tables: Any) -> tuple[Exchange, RawServer]:
    """One exchange with a server that follows `script`, within BOUND_S; and the server, as it was left."""
    async with RawServer(script).running() as server, transport_to(server.url, **tables) as transport:
        async with asyncio.timeout(BOUND_S):
            exchange = await post(transport, timeout_s=timeout_s)
        return exchange, server


def told(exchange: Exchange) -> tuple[Evidence, str | None]:
    return exchange.evidence, exchange.reason


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


# --------------------------------------------------------------------------------------------------- what really leaves


async def test_exactly_these_bytes_leave() -> None:
    exchange, server = await exchange_with(answering(OK))
    head = (
        "POST /predictu HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{server.address[1]}\r\n"
        "Content-Type: application/json\r\n"
        "Authorization: Bearer a.b.c\r\n"
        "Accept-Encoding: identity\r\n"
        "Accept: */*\r\n"
    )
    (request,) = server.requests
    sent_head, _, sent_body = request.partition(b"\r\n\r\n")
    expected = {*head.strip().split("\r\n"), f"Content-Length: {len(BODY)}"}
    lines = sent_head.decode().split("\r\n")
    # aiohttp names itself where the courier does not; nothing else is added, no cookie above all.
    assert {line for line in lines if not line.startswith("User-Agent: ")} == expected
    assert len(lines) == len(expected) + 1
    assert sent_body == BODY
    assert told(exchange) == (Evidence.ANSWERED, None)
    assert exchange.connect_ms is not None
    assert exchange.first_byte_ms is not None
    assert 0 <= exchange.connect_ms <= exchange.first_byte_ms <= exchange.total_ms


async def test_a_cookie_is_never_sent_back() -> None:
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 2\r\n\r\n{}"
    async with RawServer(answering(cookie, OK)).running() as server, transport_to(server.url) as transport:
        for _ in range(2):
            assert (await post(transport)).evidence is Evidence.ANSWERED
    assert len(server.requests) == 2
    assert b"session" not in b"".join(server.requests)


async def test_a_redirect_is_an_answer_and_never_followed() -> None:
    async with RawServer(answering(OK)).running() as elsewhere:
        for code in (301, 302, 303, 307, 308):
            location = f"HTTP/1.1 {code} Go\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n".encode()
            exchange, server = await exchange_with(answering(location))
            assert (exchange.evidence, exchange.status) == (Evidence.ANSWERED, code)
            assert ("Location", elsewhere.url) in exchange.headers
            assert len(server.requests) == 1
        assert elsewhere.connections == 0


# ----------------------------------------------------------------------------------------------------------- broken off


async def reset_unread(peer: Peer) -> None:
    await peer.reader.readexactly(1)
    peer.reset()


async def reset_after_the_request(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def closed_after_the_request(peer: Peer) -> None:
    await peer.request()


async def closed_in_the_headers(peer: Peer) -> None:
    await peer.request()
    await peer.say(OK[:20])


async def reset_in_the_headers(peer: Peer) -> None:
    await peer.request()
    await peer.say(OK[:20])
    peer.reset()


@pytest.mark.parametrize(
    "script",
    [reset_unread, reset_after_the_request, closed_after_the_request, closed_in_the_headers, reset_in_the_headers],
)
async def test_a_connection_lost_before_the_headers_were_whole_is_unanswered(script: Script) -> None:
    exchange, server = await exchange_with(script)
    assert told(exchange) == (Evidence.UNANSWERED, "reset")
    assert (exchange.status, exchange.body, exchange.truncated) == (None, b"", False)
    assert (server.connections, len(server.requests)) == (1, 0 if script is reset_unread else 1)


HALF = {
    "a content-length that promised more": (b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", b'{"status":"OK"}'),
    "a chunk that is cut": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n", b'{"status":"OK"}'),
    "chunks without an end": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n",
        b'{"status":"OK"}\r\n',
    ),
}


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("half", HALF)
async def test_a_body_that_ends_early_is_truncated_even_where_it_reads_like_an_answer(half: str, how: str) -> None:
    head, body = HALF[half]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(head + body)
        if how == "reset":
            peer.reset()

    exchange, server = await exchange_with(script)
    assert told(exchange) == (Evidence.UNANSWERED, "truncated")
    assert exchange.truncated
    assert len(server.requests) == 1
    if how == "closed":
        # With a RST the kernel may throw away what had not been read yet.
        assert (exchange.status, exchange.body) == (200, body.strip())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n" + b"\xff\0" * 50 + b"\r\n\r\n",
        b'{"status":"OK"}\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 15\r\n\r\n{"status":"OK"}',
        b'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{"status":"OK"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2" + b"0" * 8000 + b"\xff\0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-" + b"y" * 8000 + b"\0: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Y: " + b"z" * 8000 + b"\x01\0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Huge: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"status":"OK"}',
    ],
)
async def test_what_is_not_http_is_unanswered_and_its_error_can_be_stored(answer: bytes) -> None:
    exchange, server = await exchange_with(answering(answer))
    assert told(exchange) == (Evidence.UNANSWERED, "bad_http")
    assert len(server.requests) == 1
    assert exchange.error is not None
    assert "\0" not in exchange.error
    assert len(exchange.error) <= 500


# ----------------------------------------------------------------------------------------------- too slow, and too much


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.silence()


async def drips_headers(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await peer.say_for_ever(b"x", pause_s=0.02)


async def drips_body(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    await peer.say_for_ever(b"x", pause_s=0.02)


async def floods_with_100_continue(peer: Peer) -> None:
    await peer.request()
    await peer.say_for_ever(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, pause_s=0.001)


async def floods_with_chunk_extensions(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    await peer.say_for_ever(b"x" * 1000, pause_s=0.001)


@pytest.mark.parametrize(
    "script", [silent, drips_headers, drips_body, floods_with_100_continue, floods_with_chunk_extensions]
)
async def test_an_answer_slower_than_the_timeout_is_unanswered_within_it(script: Script) -> None:
    exchange, server = await exchange_with(script, timeout_s=0.3)
    assert exchange.evidence is Evidence.UNANSWERED
    # Chunk extensions may also be refused as bad HTTP, whichever comes first.
    assert exchange.reason == "timeout" or (script is floods_with_chunk_extensions and exchange.reason == "bad_http")
    assert exchange.total_ms < BOUND_S * 1000
    assert len(server.requests) == 1
    if script is drips_body:
        assert (exchange.status, exchange.truncated, set(exchange.body)) == (200, True, {ord("x")})


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_the_timeout_holds_while_our_own_body_is_not_read() -> None:
    async def answers_unread(peer: Peer) -> None:
        await peer.reader.readexactly(1)
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        await asyncio.Event().wait()

    async with RawServer(answers_unread).running() as server, transport_to(server.url) as transport:
        async with asyncio.timeout(BOUND_S):
            # More than the kernel's buffers take, so that writing has to wait for a reader who never comes.
            exchange = await post(transport, timeout_s=0.3, body=b"x" * 20_000_000)
    assert exchange.evidence is Evidence.UNANSWERED


async def declares_too_much(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
    await peer.say_for_ever(b"x" * 10_000)


async def chunks_without_end(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await peer.say_for_ever(b"2710\r\n" + b"x" * 10_000 + b"\r\n")


async def talks_until_it_is_left(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.0 200 OK\r\n\r\n")
    await peer.say_for_ever(b"x" * 10_000)


@pytest.mark.parametrize("script", [declares_too_much, chunks_without_end, talks_until_it_is_left])
async def test_an_endless_answer_is_cut_at_the_cap_and_left_at_once(script: Script) -> None:
    exchange, server = await exchange_with(script, limits={"max_response_bytes": 25_000})
    assert told(exchange) == (Evidence.UNANSWERED, "too_large")
    assert exchange.body == b"x" * 25_000
    assert (exchange.status, exchange.truncated) == (200, True)
    # What was taken off the socket is bounded by the buffers, not by the server's patience.
    assert server.bytes_said < 30_000_000


async def test_an_answer_of_exactly_the_cap_is_an_answer() -> None:
    for excess, evidence in ((0, Evidence.ANSWERED), (1, Evidence.UNANSWERED)):
        body = b"x" * (100 + excess)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        exchange, _ = await exchange_with(answering(answer), limits={"max_response_bytes": 100})
        assert (exchange.evidence, exchange.body, exchange.truncated) == (evidence, b"x" * 100, excess == 1)


async def test_a_packed_answer_is_kept_as_it_came() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    for coding in (b"gzip", b"deflate", b"br"):
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(bomb))
        exchange, _ = await exchange_with(answering(head + bomb))
        assert told(exchange) == (Evidence.ANSWERED, None)
        assert exchange.body == bomb


async def test_strange_bytes_of_an_answer_survive_as_text_and_bytes() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Bad: \xff\xfe caf\xe9\r\nX-Good: caf\xc3\xa9\r\nContent-Length: 4\r\n\r\n\0\xff{}"
    exchange, _ = await exchange_with(answering(answer))
    assert told(exchange) == (Evidence.ANSWERED, None)
    assert exchange.body == b"\0\xff{}"
    assert exchange.headers == (("X-Bad", "\\xff\\xfe caf\\xe9"), ("X-Good", "café"), ("Content-Length", "4"))
    "".join(value for _, value in exchange.headers).encode()


# ------------------------------------------------------------------------------------------------ one connection, again


async def test_a_connection_is_kept_and_used_again() -> None:
    async with RawServer(answering(OK, OK, OK)).running() as server, transport_to(server.url) as transport:
        for _ in range(3):
            assert told(await post(transport)) == (Evidence.ANSWERED, None)
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_connection_closed_between_two_requests_is_replaced() -> None:
    async def closes_after_one(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)

    async with RawServer(closes_after_one).running() as server, transport_to(server.url) as transport:
        for requests in (1, 2, 3):
            exchange = await post(transport)
            # The closing may be noticed before the request leaves or after: what is said must fit what was got.
            if exchange.evidence is Evidence.NOT_SENT:
                assert len(server.requests) == requests - 1
            await server.hung_up.wait()
            server.hung_up.clear()
            # Our side has seen the closing once the pool has one more turn of the loop than the FIN needs.
            await turn_the_loop()
            assert told(exchange) == (Evidence.ANSWERED, None)
    assert (server.connections, len(server.requests)) == (3, 3)


async def turn_the_loop() -> None:
    """A few turns of the loop, each of which polls the sockets."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_connection_lost_under_a_request_is_unanswered_and_the_request_not_sent_twice() -> None:
    async def answers_once_then_reads_and_closes(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()

    async with (
        RawServer(answers_once_then_reads_and_closes).running() as server,
        transport_to(server.url) as transport,
    ):
        assert told(await post(transport)) == (Evidence.ANSWERED, None)
        assert told(await post(transport)) == (Evidence.UNANSWERED, "reset")
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_connection_closed_while_the_request_is_on_its_way_is_never_called_not_sent() -> None:
    async def closes_at_once(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        peer.reset()

    async with RawServer(closes_at_once).running() as server, transport_to(server.url) as transport:
        for _ in range(50):
            before = len(server.requests)
            exchange = await post(transport)
            if exchange.evidence is Evidence.NOT_SENT:
                assert len(server.requests) == before
            assert len(server.requests) <= before + 1


@pytest.mark.parametrize("later", [True, False])
async def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next_one(*, later: bool) -> None:
    """Left alone, aiohttp hands it to that connection's next request: a bet counts as placed that nobody has seen."""
    stale = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"status":"STALE"}'
    idle, said = asyncio.Event(), asyncio.Event()

    async def says_too_much(peer: Peer) -> None:
        await peer.request()
        if peer.server.connections > 1:
            await peer.say(OK)
        elif later:
            await peer.say(OK)
            await idle.wait()
            await peer.say(stale)
            said.set()
        else:
            await peer.say(OK + stale)
            said.set()
        await peer.silence()

    async with RawServer(says_too_much).running() as server, transport_to(server.url) as transport:
        assert (await post(transport)).body == b'{"status":"OK"}'
        idle.set()
        await said.wait()
        await turn_the_loop()
        second = await post(transport)
        if second.evidence is Evidence.NOT_SENT:
            assert second.reason == "unasked_answer"
            assert (len(server.requests), server.strays) == (1, b"")
            second = await post(transport)
        # The spoilt connection is gone, and the next one is a fresh one.
        assert second.body == b'{"status":"OK"}'
        assert (server.connections, len(server.requests)) == (2, 2)


async def test_a_server_that_answers_before_it_was_asked_gets_nothing() -> None:
    async def speaks_first(peer: Peer) -> None:
        await peer.say(OK)
        await peer.silence()

    async with RawServer(speaks_first).running() as server, transport_to(server.url) as transport:
        exchange = await post(transport)
        # Whether those bytes were there in time is for the kernel to say; if they were, nothing left.
        if exchange.evidence is Evidence.NOT_SENT:
            assert exchange.reason == "unasked_answer"
            await server.hung_up.wait()
            assert server.strays == b""


# ---------------------------------------------------------------------------------------------------------- interrupted


async def test_interrupt_ends_what_is_under_way_and_what_is_still_to_come() -> None:
    async with RawServer(silent).running() as server, transport_to(server.url) as transport:
        under_way = asyncio.create_task(post(transport))
        await server.arrivals.get()
        transport.interrupt()
        # A second SIGTERM is no reason for a traceback.
        transport.interrupt()
        async with asyncio.timeout(BOUND_S):
            assert told(await under_way) == (Evidence.UNANSWERED, "interrupted")
            assert told(await post(transport)) == (Evidence.NOT_SENT, "interrupted")
    assert (server.connections, len(server.requests)) == (1, 1)


async def test_interrupt_while_connecting_is_not_sent() -> None:
    async with (
        RawServer(Peer.silence).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        under_way = asyncio.create_task(post(transport))
        await server.got_connection.wait()
        transport.interrupt()
        async with asyncio.timeout(BOUND_S):
            assert told(await under_way) == (Evidence.NOT_SENT, "interrupted")


async def test_interrupt_reaches_all_the_others_although_one_has_just_timed_out() -> None:
    """A timeout that is ending its task cannot be moved: the RuntimeError left the others of the drain running."""
    async with RawServer(silent).running() as server, transport_to(server.url) as transport:
        tasks = [asyncio.create_task(post(transport, timeout_s=timeout_s)) for timeout_s in (0.2, 5.0, 5.0)]
        for _ in tasks:
            await server.arrivals.get()
        for timeout in transport._timeouts:
            when_s = timeout.when()
            assert when_s is not None
            if when_s < asyncio.get_running_loop().time() + 1.0:
                timeout.reschedule(0)
        # One turn of the loop: the timeout runs out, and the task that it cancels has not run yet.
        await asyncio.sleep(0)
        transport.interrupt()
        async with asyncio.timeout(BOUND_S):
            ends = [await task for task in tasks]
    assert {told(end) for end in ends} == {(Evidence.UNANSWERED, "interrupted")}
