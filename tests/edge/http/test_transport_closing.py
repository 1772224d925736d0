"""close() ends every exchange and leaves nothing open; a write that fails is no surprise."""

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.edge.http.connection import Connection
from predictu_dispatch.edge.http.transport import Transport
from tests.edge.http.test_resolver import hanging_look_up
from tests.support.raw_server import (
    BOUND_S,
    OK,
    Peer,
    RawServer,
    evidence_and_reason,
    never_answer,
    post,
    settings_for,
    transport_to,
)


async def test_close_interrupts_the_exchanges_under_way() -> None:
    async with RawServer(never_answer).running() as server, transport_to(server.url) as transport:
        under_way = [asyncio.create_task(post(transport)) for _ in range(3)]
        for _ in under_way:
            await server.arrivals.get()
        async with asyncio.timeout(BOUND_S):
            await transport.close()
            ends = await asyncio.gather(*under_way, post(transport))
    assert [evidence_and_reason(end) for end in ends] == [
        *[(Evidence.UNANSWERED, "interrupted")] * 3,
        (Evidence.NOT_SENT, "interrupted"),
    ]


async def test_close_interrupts_the_exchanges_that_connect() -> None:
    async with RawServer(Peer.read_until_closed).running() as server:
        transport = Transport(settings_for(server.url.replace("http:", "https:")))
        under_way = asyncio.create_task(post(transport))
        await server.got_connection.wait()
        async with asyncio.timeout(BOUND_S):
            await transport.close()
            assert evidence_and_reason(await under_way) == (Evidence.NOT_SENT, "interrupted")


async def test_close_interrupts_the_exchanges_that_look_up_a_name() -> None:
    with hanging_look_up() as (hang, begun):
        transport = Transport(settings_for("http://black.example.com/"), look_up=hang)
        under_way = [asyncio.create_task(post(transport)) for _ in range(2)]
        await asyncio.to_thread(begun.acquire)
        async with asyncio.timeout(BOUND_S):
            await transport.close()
            ends = await asyncio.gather(*under_way)
    assert {evidence_and_reason(end) for end in ends} == {(Evidence.NOT_SENT, "interrupted")}


@pytest.mark.parametrize("ends", ["interrupt", "close"])
async def test_a_connection_that_opens_in_the_turn_of_an_interrupt_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    async with RawServer(never_answer).running() as server, transport_to(server.url) as transport:
        open_connection = transport._connector.open
        closing: list[asyncio.Task[None]] = []

        async def opened_when_interrupted() -> object:
            opened = await open_connection()
            # Both are awaited by the loop, the timeout is rescheduled too late.
            transport.interrupt()
            if ends == "close":
                closing.append(asyncio.create_task(transport.close()))
            return opened

        monkeypatch.setattr(transport._connector, "open", opened_when_interrupted)
        async with asyncio.timeout(BOUND_S):
            assert evidence_and_reason(await post(transport)) == (Evidence.NOT_SENT, "interrupted")
            await asyncio.gather(*closing)
    assert (server.requests, server.unexpected_bytes) == ([], b"")


def sockets() -> int:
    """The sockets of this process."""
    count = 0
    for descriptor in list(Path("/proc/self/fd").iterdir()):
        # The descriptor of the listing itself is closed.
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


async def exchange_and_close(server: RawServer) -> None:
    async with transport_to(server.url) as transport:
        exchanges = [asyncio.create_task(post(transport, timeout_s=0.2)) for _ in range(12)]
        await asyncio.sleep(0.1)
        exchanges[0].cancel()
        await asyncio.wait(exchanges)
    assert not transport._busy
    assert not transport._connecting
    assert not transport._connector._connector._acquired


async def test_no_socket_and_no_connection_is_left_after_close() -> None:
    """Pytest turns the ResourceWarning of an unclosed connection into an error."""

    async def mixed(peer: Peer) -> None:
        number = peer.server.connections
        await peer.request()
        if number % 4 == 0:
            await peer.read_until_closed()
        await peer.send((OK, OK[:-3], b"\0garbage")[number % 3])
        if number % 2:
            await peer.read_until_closed()

    async with RawServer(mixed).running() as server:
        before = sockets()
        for _ in range(3):
            await exchange_and_close(server)
        gc.collect()
        async with asyncio.timeout(BOUND_S):
            # Also the server's side.
            while sockets() > before:  # noqa: ASYNC110 - a few turns of the loop
                await asyncio.sleep(0)


@pytest.mark.parametrize("sends", [OK, OK[:-3], b"\0garbage"])
async def test_a_closed_connection_is_freed_without_a_garbage_collection(sends: bytes) -> None:
    """A closed connection holds TLS buffers, and the next full collection may be minutes away."""

    async def answer_and_close(peer: Peer) -> None:
        await peer.request()
        await peer.send(sends)

    async def exchange(url: str) -> None:
        async with transport_to(url) as transport:
            await asyncio.gather(*(post(transport) for _ in range(3)))

    gc.collect()
    gc.disable()
    try:
        async with RawServer(answer_and_close).running() as server:
            await exchange(server.url)
            async with asyncio.timeout(BOUND_S):
                while any(isinstance(item, Connection) for item in gc.get_objects()):  # noqa: ASYNC110 - a few turns
                    await asyncio.sleep(0)
    finally:
        gc.enable()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


STALE = OK.replace(b'"OK"', b'"NO"')


@asynccontextmanager
async def idle_connection() -> AsyncIterator[tuple[Transport, socket.socket, socket.socket]]:
    """A transport with one idle connection, its other end, and the listener for the next one."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the system's own signature
        async with transport_to(f"http://127.0.0.1:{listener.getsockname()[1]}/") as transport:
            first = asyncio.create_task(post(transport))
            connection, _ = await loop.sock_accept(listener)
            with connection:
                assert await loop.sock_recv(connection, 65_536)
                await loop.sock_sendall(connection, OK)
                assert evidence_and_reason(await first) == (Evidence.ANSWERED, None)
                yield transport, connection, listener


@pytest.mark.parametrize("end", [reset, socket.socket.close, lambda connection: connection.send(STALE)])
async def test_what_the_operator_did_since_the_loop_polled_is_seen_before_a_connection_is_reused(
    end: Callable[[socket.socket], object],
) -> None:
    """The request is sent on a new connection, so no debit is unknown and no answer is taken."""
    loop = asyncio.get_running_loop()
    async with idle_connection() as (transport, connection, listener):

        async def serve_the_next() -> bytes:
            other, _ = await loop.sock_accept(listener)
            with other:
                request = await loop.sock_recv(other, 65_536)
                await loop.sock_sendall(other, OK)
            return request

        next_one = asyncio.create_task(serve_the_next())
        await asyncio.sleep(0)
        end(connection)
        # Without a turn of the loop in between.
        async with asyncio.timeout(BOUND_S):
            exchange = await post(transport)
            assert (exchange.evidence, exchange.body) == (Evidence.ANSWERED, b'{"status":"OK"}')
            assert (await next_one).startswith(b"POST ")


@pytest.mark.parametrize("end", [reset, socket.socket.close])
async def test_a_write_that_fails_is_unanswered(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[socket.socket], None]
) -> None:
    """The operator's end comes behind the last check: the write fails, or a reset answers it.

    That nothing was sent cannot be known in general, so the debit counts as unknown.
    """
    async with idle_connection() as (transport, connection, _):
        monkeypatch.setattr(transport._idle[0], "is_readable", lambda: False)
        end(connection)
        async with asyncio.timeout(BOUND_S):
            exchange = await post(transport)
        assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "reset")


async def test_a_fault_in_our_own_code_is_unanswered_and_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with RawServer(never_answer).running() as server, transport_to(server.url) as transport:
        with monkeypatch.context() as broken:
            broken.setattr("predictu_dispatch.edge.http.connection.HttpResponseParser", fail)
            exchange = await post(transport)
        assert evidence_and_reason(exchange) == (Evidence.UNANSWERED, "internal_error")
        assert exchange.error == "RuntimeError: a bug"
        async with asyncio.timeout(BOUND_S):
            await server.hung_up.wait()
        assert not transport._connector._connector._acquired
