"""The transport's result of an exchange, compared with what a raw server received.

The worst error would be `not_sent` after bytes were sent, because a debit would be forgotten.
Others are to take the answer of another request, and to send a request twice.
"""

import asyncio
import gzip

import pytest

from predictu_dispatch.core.callback import Evidence
from tests.support.raw_server import (
    BODY,
    BOUND_S,
    OK,
    Peer,
    RawServer,
    Script,
    answering,
    evidence_and_reason,
    exchange_with,
    never_answer,
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
        "Accept: */*\r\n"
    )
    (request,) = server.requests
    sent_head, _, sent_body = request.partition(b"\r\n\r\n")
    expected = {*head.strip().split("\r\n"), f"Content-Length: {len(BODY)}"}
    lines = sent_head.decode().split("\r\n")
    # aiohttp adds only its User-Agent, above all no cookie.
    assert {line for line in lines if not line.startswith("User-Agent: ")} == expected
    assert len(lines) == len(expected) + 1
    assert sent_body == BODY
    assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
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


# Failures


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
    await peer.send(OK[:20])


async def reset_in_the_headers(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK[:20])
    peer.reset()


@pytest.mark.parametrize(
    "script",
    [reset_unread, reset_after_the_request, closed_after_the_request, closed_in_the_headers, reset_in_the_headers],
)
async def test_a_connection_lost_before_the_headers_were_whole_is_unanswered(script: Script) -> None:
    exchange, server = await exchange_with(script)
    assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "reset")
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
async def test_a_body_that_ends_early_is_truncated_even_if_it_is_valid_json(half: str, how: str) -> None:
    head, body = HALF[half]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head + body)
        if how == "reset":
            peer.reset()

    exchange, server = await exchange_with(script)
    assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "truncated")
    assert exchange.truncated
    assert len(server.requests) == 1
    if how == "closed":
        # With a RST the kernel may discard unread bytes.
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
    assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "bad_http")
    assert len(server.requests) == 1
    assert exchange.error is not None
    assert "\0" not in exchange.error
    assert len(exchange.error) <= 500


# Timeouts and limits


async def drips_headers(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await peer.send_forever(b"x", pause_s=0.02)


async def drips_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    await peer.send_forever(b"x", pause_s=0.02)


async def floods_with_100_continue(peer: Peer) -> None:
    await peer.request()
    await peer.send_forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, pause_s=0.001)


async def floods_with_chunk_extensions(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    await peer.send_forever(b"x" * 1000, pause_s=0.001)


@pytest.mark.parametrize(
    "script", [never_answer, drips_headers, drips_body, floods_with_100_continue, floods_with_chunk_extensions]
)
async def test_an_answer_slower_than_the_timeout_is_unanswered_within_it(script: Script) -> None:
    exchange, server = await exchange_with(script, timeout_s=1.0)
    assert exchange.evidence is Evidence.UNANSWERED
    # Chunk extensions may also be refused as bad HTTP.
    assert exchange.reason == "timeout" or (script is floods_with_chunk_extensions and exchange.reason == "bad_http")
    assert exchange.total_ms < BOUND_S * 1000
    assert len(server.requests) == 1
    if script is drips_body:
        assert (exchange.status, exchange.truncated, set(exchange.body)) == (200, True, {ord("x")})


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
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


async def declares_too_much(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
    await peer.send_forever(b"x" * 10_000)


async def chunks_without_end(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await peer.send_forever(b"2710\r\n" + b"x" * 10_000 + b"\r\n")


async def sends_until_closed(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.0 200 OK\r\n\r\n")
    await peer.send_forever(b"x" * 10_000)


@pytest.mark.parametrize("script", [declares_too_much, chunks_without_end, sends_until_closed])
async def test_an_endless_answer_is_cut_at_the_limit(script: Script) -> None:
    exchange, server = await exchange_with(script, limits={"max_response_bytes": 25_000})
    assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "too_large")
    assert exchange.body == b"x" * 25_000
    assert (exchange.status, exchange.truncated) == (200, True)
    # Only the buffers limit what is read from the socket.
    assert server.bytes_sent < 30_000_000


async def test_an_answer_of_exactly_the_limit_is_accepted() -> None:
    for excess, evidence in ((0, Evidence.ANSWERED), (1, Evidence.UNANSWERED)):
        body = b"x" * (100 + excess)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        exchange, _ = await exchange_with(answering(answer), limits={"max_response_bytes": 100})
        assert (exchange.evidence, exchange.body, exchange.truncated) == (evidence, b"x" * 100, excess == 1)


async def test_a_compressed_answer_is_not_decompressed() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    for coding in (b"gzip", b"deflate", b"br"):
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(bomb))
        exchange, _ = await exchange_with(answering(head + bomb))
        assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
        assert exchange.body == bomb


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
