"""The transport's result of an exchange, compared with what a raw server received.

The worst error would be `not_sent` after bytes were sent, because a debit would be forgotten.
Others are to take the answer of another request, and to send a request twice. What each bad answer
means is in test_hostile_answers.py.
"""

import asyncio

import pytest

from predictu_dispatch.core.callback import Evidence
from tests.edge.http.test_address_guard import HAS_IPV6
from tests.support.raw_server import (
    BODY,
    BOUND_S,
    OK,
    Peer,
    RawServer,
    answering,
    evidence_and_reason,
    exchange_with,
    post,
    transport_to,
)

# Requests


async def test_the_exact_bytes_of_a_request() -> None:
    exchange, server = await exchange_with(answering(OK))
    head = (
        "POST /predictu HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{server.address[1]}\r\n"
        "Content-Type: application/json\r\n"
        "Authorization: Bearer a.b.c\r\n"
        "Accept-Encoding: identity\r\n"
        f"Content-Length: {len(BODY)}\r\n"
        "\r\n"
    )
    assert server.requests == [head.encode() + BODY]
    assert server.unexpected_bytes == b""
    assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
    assert exchange.connect_ms is not None
    assert exchange.first_byte_ms is not None
    assert 0 <= exchange.connect_ms <= exchange.first_byte_ms <= exchange.total_ms


async def test_an_exchange_names_the_address_on_whose_connection_it_was_written() -> None:
    async with RawServer(answering(OK)).running() as server, transport_to(server.url) as transport:
        answered = await post(transport)
        too_late = await post(transport, send_before_s=0.0)
    assert (answered.peer, answered.peer_certificate_sha256) == (f"127.0.0.1:{server.address[1]}", None)
    assert (too_late.evidence, too_late.peer) == (Evidence.NOT_SENT, None)


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
async def test_an_ipv6_address_is_in_brackets() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    server = await asyncio.start_server(serve, "::1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with transport_to(f"http://[::1]:{port}/predictu") as transport:
            assert (await post(transport)).peer == f"[::1]:{port}"


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


# Failures


async def test_a_connection_reset_before_the_request_was_read_is_unanswered() -> None:
    async def reset_unread(peer: Peer) -> None:
        await peer.reader.readexactly(1)
        peer.reset()

    exchange, server = await exchange_with(reset_unread)
    assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "reset")
    assert (exchange.status, exchange.body, exchange.truncated) == (None, b"", False)
    assert (server.connections, len(server.requests)) == (1, 0)


HALF = {
    "a content-length that promised more": (b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", b'{"status":"OK"}'),
    "a chunk that is cut": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n", b'{"status":"OK"}'),
    "chunks without an end": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n", b'{"status":"OK"}\r\n'),
}


@pytest.mark.parametrize("half", HALF)
async def test_a_body_that_ends_early_is_truncated_and_kept_even_if_it_is_valid_json(half: str) -> None:
    head, body = HALF[half]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head + body)

    exchange, server = await exchange_with(script)
    assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "truncated")
    assert (exchange.status, exchange.body, exchange.truncated) == (200, body.strip(), True)
    assert len(server.requests) == 1


# Timeouts and limits


async def test_the_timeout_holds_while_the_server_does_not_read() -> None:
    async def answers_unread(peer: Peer) -> None:
        await peer.reader.readexactly(1)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        await asyncio.Event().wait()

    async with RawServer(answers_unread).running() as server, transport_to(server.url) as transport:
        async with asyncio.timeout(BOUND_S):
            # More than the kernel's buffers hold, so that writing blocks.
            exchange = await post(transport, timeout_s=1.0, body=b"x" * 20_000_000)
    assert exchange.evidence is Evidence.UNANSWERED


async def test_invalid_bytes_in_an_answer_are_escaped_in_headers_and_kept_in_the_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Bad: \xff\xfe caf\xe9\r\nX-Good: caf\xc3\xa9\r\nContent-Length: 4\r\n\r\n\0\xff{}"
    exchange, _ = await exchange_with(answering(answer))
    assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
    assert exchange.body == b"\0\xff{}"
    assert exchange.headers == (("X-Bad", "\\xff\\xfe caf\\xe9"), ("X-Good", "café"), ("Content-Length", "4"))
    "".join(value for _, value in exchange.headers).encode()


async def test_oversized_headers_are_too_large_and_not_stored() -> None:
    for size, expected in ((5_000, (Evidence.ANSWERED, None)), (6_000, (Evidence.UNANSWERED, "too_large"))):
        padding = b"".join(b"X-Padding: %b\r\n" % (b"x" * size) for _ in range(3))
        exchange, _ = await exchange_with(answering(OK.replace(b"\r\n\r\n", b"\r\n" + padding + b"\r\n")))
        assert evidence_and_reason(exchange) == expected
        assert bool(exchange.headers) == (expected[1] is None)
        assert exchange.truncated == (expected[1] is not None)
