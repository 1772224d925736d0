"""Before anything is sent: refused, unresolved, too slow. None of it may be more than `not_sent`.

TLS: test_tls.py.
"""

import asyncio
import socket
import time
from typing import Any

import pytest
from aiohttp.connector import Connection as OpenConnection

from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.edge.http.transport import Transport
from tests.support.raw_server import (
    BOUND_S,
    OK,
    TIMEOUT_S,
    Peer,
    RawServer,
    answering,
    evidence_and_reason,
    post,
    settings_for,
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
    # uvloop's timers have whole milliseconds and may end up to one of them early.
    assert 199 <= exchange.total_ms < BOUND_S * 1000


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


async def test_a_process_suspended_while_it_connects_sends_nothing() -> None:
    suspended_s = [0.4]

    def connecting() -> None:
        # Blocks the process, as SIGSTOP does.
        time.sleep(suspended_s.pop() if suspended_s else 0.0)

    async with RawServer(answering(OK, OK)).running() as server:
        transport = Transport(settings_for(server.url), connecting=connecting)
        exchange = await post(transport, send_before_s=time.monotonic() + 0.2)
        assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "too_late")
        assert exchange.connect_ms is not None
        # The next request works and is the only one that arrived.
        assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
        await transport.close()
    assert (server.connections, len(server.requests), server.unexpected_bytes) == (2, 1, b"")


async def test_a_connection_that_is_lost_while_it_opens_is_not_sent() -> None:
    """The operator closes each connection at once; the process is blocked until that is here."""

    async def closes(peer: Peer) -> None:
        peer.reset()

    async with RawServer(closes).running() as server, transport_to(server.url) as transport:
        open_connection = transport._connector._connector.connect

        async def opened_and_lost(*args: Any) -> OpenConnection:
            connection = await open_connection(*args)
            async with asyncio.timeout(BOUND_S):
                while not connection.closed:  # noqa: ASYNC110 - a few turns of the loop
                    await asyncio.sleep(0)
            return connection

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(transport._connector._connector, "connect", opened_and_lost)
            exchange = await post(transport)
        assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "connect_failed")
        assert "the operator closed the connection before the request" in (exchange.error or "")
    assert server.requests == []
