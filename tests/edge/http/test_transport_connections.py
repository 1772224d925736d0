"""Connections with many requests: kept alive, closed, with unsolicited data, interrupted."""

import asyncio

import pytest

from predictu_dispatch.core.callback import Evidence
from tests.support.raw_server import (
    BOUND_S,
    OK,
    Peer,
    RawServer,
    answering,
    evidence_and_reason,
    never_answer,
    post,
    transport_to,
)

# One connection, again


async def test_a_connection_is_kept_alive_and_reused() -> None:
    async with RawServer(answering(OK, OK, OK)).running() as server, transport_to(server.url) as transport:
        for _ in range(3):
            assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_connection_closed_between_two_requests_is_replaced() -> None:
    async def closes_after_one(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with RawServer(closes_after_one).running() as server, transport_to(server.url) as transport:
        for requests in (1, 2, 3):
            exchange = await post(transport)
            # The close may be noticed before or after the request is sent.
            if exchange.evidence is Evidence.NOT_SENT:
                assert len(server.requests) == requests - 1
            await server.hung_up.wait()
            server.hung_up.clear()
            # Our side has seen the closing once the pool has one more turn of the loop than the FIN
            # needs.
            await turn_the_loop()
            assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None)
    assert (server.connections, len(server.requests)) == (3, 3)


async def turn_the_loop() -> None:
    """A few turns of the loop, each of which polls the sockets."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_connection_lost_during_a_request_is_unanswered_and_not_sent_again() -> None:
    async def answers_once_then_reads_and_closes(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    async with RawServer(answers_once_then_reads_and_closes).running() as server, transport_to(server.url) as transport:
        assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
        assert evidence_and_reason(await post(transport)) == (Evidence.UNANSWERED, "reset")
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_connection_closed_during_a_request_is_not_sent_only_if_nothing_arrived() -> None:
    async def closes_at_once(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        peer.reset()

    async with RawServer(closes_at_once).running() as server, transport_to(server.url) as transport:
        for _ in range(50):
            before = len(server.requests)
            exchange = await post(transport)
            if exchange.evidence is Evidence.NOT_SENT:
                assert len(server.requests) == before
            assert len(server.requests) <= before + 1


@pytest.mark.parametrize("later", [True, False])
async def test_an_unsolicited_answer_is_never_used_for_the_next_request(*, later: bool) -> None:
    stale = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"status":"STALE"}'
    idle, sent = asyncio.Event(), asyncio.Event()

    async def sends_too_much(peer: Peer) -> None:
        await peer.request()
        if peer.server.connections > 1:
            await peer.send(OK)
        elif later:
            await peer.send(OK)
            await idle.wait()
            await peer.send(stale)
            sent.set()
        else:
            await peer.send(OK + stale)
            sent.set()
        await peer.read_until_closed()

    async with RawServer(sends_too_much).running() as server, transport_to(server.url) as transport:
        assert (await post(transport)).body == b'{"status":"OK"}'
        idle.set()
        await sent.wait()
        await turn_the_loop()
        second = await post(transport)
        if second.evidence is Evidence.NOT_SENT:
            assert second.reason == "unsolicited_data"
            assert (len(server.requests), server.unexpected_bytes) == (1, b"")
            second = await post(transport)
        # The next request has a new connection.
        assert second.body == b'{"status":"OK"}'
        assert (server.connections, len(server.requests)) == (2, 2)


# Interrupted


async def test_interrupt_ends_current_and_later_exchanges() -> None:
    async with RawServer(never_answer).running() as server, transport_to(server.url) as transport:
        under_way = asyncio.create_task(post(transport))
        await server.arrivals.get()
        transport.interrupt()
        # A second SIGTERM must not raise.
        transport.interrupt()
        async with asyncio.timeout(BOUND_S):
            assert evidence_and_reason(await under_way) == (Evidence.UNANSWERED, "interrupted")
            assert evidence_and_reason(await post(transport)) == (Evidence.NOT_SENT, "interrupted")
    assert (server.connections, len(server.requests)) == (1, 1)


async def test_interrupt_while_connecting_is_not_sent() -> None:
    async with (
        RawServer(Peer.read_until_closed).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        under_way = asyncio.create_task(post(transport))
        await server.got_connection.wait()
        transport.interrupt()
        async with asyncio.timeout(BOUND_S):
            assert evidence_and_reason(await under_way) == (Evidence.NOT_SENT, "interrupted")


async def test_interrupt_reaches_all_that_connect_if_one_has_just_timed_out() -> None:
    """Rescheduling an expired timeout raises RuntimeError, which must not stop the others."""
    async with (
        RawServer(Peer.read_until_closed).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        tasks = [asyncio.create_task(post(transport, timeout_s=timeout_s)) for timeout_s in (10.0, 60.0, 60.0)]
        while server.connections < len(tasks):  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        for timeout in transport._connecting:
            when_s = timeout.when()
            assert when_s is not None
            if when_s < asyncio.get_running_loop().time() + 20.0:
                timeout.reschedule(0)
        # One turn of the loop: the timeout runs out, and the task that it cancels has not run yet.
        await asyncio.sleep(0)
        transport.interrupt()
        async with asyncio.timeout(BOUND_S):
            ends = [await task for task in tasks]
    assert {evidence_and_reason(end) for end in ends} == {(Evidence.NOT_SENT, "interrupted")}
