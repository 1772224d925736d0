"""Before anything is sent: refused, unresolved, too slow. None of it may be more than `not_sent`.

TLS: test_tls.py.
"""

import asyncio
import socket
import time
from typing import Any

import aiohttp
import pytest

from predictu_dispatch.core.callback import Evidence
from tests.support.raw_server import (
    BOUND_S,
    OK,
    TIMEOUT_S,
    Peer,
    RawServer,
    answering,
    evidence_and_reason,
    post,
    transport_to,
)


async def test_a_refused_connection_is_not_sent() -> None:
    with socket.socket() as bound:
        # Bound, but not listening.
        bound.bind(("127.0.0.1", 0))
        async with transport_to(f"http://127.0.0.1:{bound.getsockname()[1]}/") as transport:
            exchange = await post(transport)
    assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "connect_refused")
    assert exchange.error is not None
    assert (exchange.status, exchange.connect_ms, exchange.first_byte_ms) == (None, None, None)


async def test_a_host_that_does_not_answer_is_not_sent_after_the_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        # Linux queues one connection more than the backlog and ignores the next SYN.
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
    assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "connect_timeout")
    assert 200 <= exchange.total_ms < BOUND_S * 1000


@pytest.mark.parametrize(("timeout_s", "connect_timeout_s"), [(TIMEOUT_S, 0.5), (0.5, TIMEOUT_S)])
async def test_a_server_without_a_handshake_is_not_sent_after_either_timeout(
    timeout_s: float, connect_timeout_s: float
) -> None:
    async with (
        RawServer(Peer.read_until_closed).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        async with asyncio.timeout(BOUND_S):
            exchange = await post(transport, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
        await server.hung_up.wait()
    assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "connect_timeout")
    assert b"POST" not in server.unexpected_bytes


async def test_after_send_before_s_nothing_is_connected_or_sent() -> None:
    async with RawServer(answering(OK)).running() as server, transport_to(server.url) as transport:
        exchange = await post(transport, send_before_s=time.monotonic())
    assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "too_late")
    assert server.connections == 0


async def test_a_process_suspended_before_the_first_byte_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is written one turn of the loop after send()."""
    send = aiohttp.ClientRequest.send

    async def send_and_freeze(request: aiohttp.ClientRequest, conn: Any) -> aiohttp.ClientResponse:
        response = await send(request, conn)
        time.sleep(0.4)  # noqa: ASYNC251 - blocks the process, as SIGSTOP does
        return response

    async with RawServer(answering(OK, OK)).running() as server, transport_to(server.url) as transport:
        with monkeypatch.context() as frozen:
            frozen.setattr(aiohttp.ClientRequest, "send", send_and_freeze)
            exchange = await post(transport, send_before_s=time.monotonic() + 0.2)
        assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "too_late")
        # The next request works and is the only one that arrived.
        assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
        assert len(server.requests) == 1
        assert server.unexpected_bytes == b""
