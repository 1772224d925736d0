"""On which connection a request is sent, and what is known of that."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from predictu_dispatch.certification import sender as sender_module
from predictu_dispatch.certification.connections import Opened, exchange_on, open_connection
from predictu_dispatch.certification.observation import Outcome
from predictu_dispatch.certification.steps import Again, AtOnce, Delivery, Send
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.edge.http.connector import Connector
from predictu_dispatch.edge.http.resolver import look_up
from tests.support.arrivals import Operator
from tests.support.raw_server import BOUND_S, OK, Peer, RawServer
from tests.support.sandboxes import DEBIT, DONE, Requests, sender_to, target_for


async def keep_open(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(OK)


async def say_close(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


async def close_unsaid(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK)


@pytest.mark.parametrize(
    ("script", "used"),
    [(keep_open, [False, True, True]), (say_close, [False] * 3), (close_unsaid, [False] * 3)],
)
async def test_a_used_connection_is_known(script: Callable[[Peer], Any], used: list[bool]) -> None:
    async with RawServer(script).running() as server:
        target = target_for(server.url)
        requests, found = Requests(target), []
        async with sender_to(target) as sender:
            for n in range(3):
                sent = await sender.send(requests.one(Send(name=f"ping-{n}", method=Method.PING)))
                assert sent.outcome is Outcome.CONFIRMED
                found.append(sent.is_on_used_connection)
                if script is close_unsaid:
                    # Until the end of the connection has arrived here.
                    await server.hung_up.wait()
                    await asyncio.sleep(0.01)
    assert found == used
    assert server.connections == used.count(False)


async def test_a_used_connection_is_known_among_requests_in_flight() -> None:
    in_flight, all_in_flight = [], asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        in_flight.append(peer)
        if len(in_flight) == 8:
            all_in_flight.set()
        await all_in_flight.wait()
        await peer.send(OK)
        await keep_open(peer)

    async with RawServer(script).running() as server:
        target = target_for(server.url)
        requests = Requests(target)
        async with sender_to(target) as sender:

            async def send_all(names: str, count: int) -> list[bool]:
                prepared = [requests.one(Send(name=f"{names}-{n}", method=Method.BALANCE)) for n in range(count)]
                return [one.is_on_used_connection for one in await asyncio.gather(*map(sender.send, prepared))]

            assert await send_all("first", 8) == [False] * 8
            assert sorted(await send_all("second", 10)) == [False] * 2 + [True] * 8
            lose = requests.one(Send(name="lose", method=Method.BET_LOSE, bet="b"))
            assert not (await sender.send(lose)).is_on_used_connection
    assert server.connections == 11


async def test_requests_at_once_leave_together_on_connections_of_their_own(tls: ssl.SSLContext, ca_file: str) -> None:
    seen: list[int] = []

    async def script(peer: Peer) -> None:
        # With TLS this side has finished each handshake before any request can arrive.
        await peer.request()
        seen.append(server.connections)
        await peer.send(DONE)
        await peer.read_until_closed()

    async with RawServer(script).running(tls) as server:
        target = target_for(server.url.replace("http:", "https:"), tls={"ca_file": ca_file})
        again = tuple(Again(name=f"again-{n}", of="debit") for n in range(9))
        prepared = Requests(target).all_of(AtOnce(sends=(DEBIT, *again)))
        async with sender_to(target) as sender:
            sent = await sender.send_at_once(prepared)
    assert seen == [10] * 10
    assert server.connections == 10
    assert [one.name for one in sent] == [one.name for one in prepared]
    assert {one.outcome for one in sent} == {Outcome.CONFIRMED}
    assert not any(one.is_on_used_connection for one in sent)


@pytest.mark.usefixtures("never_read_s")
async def test_a_connection_that_cannot_be_opened_is_a_request_that_was_not_sent(
    unused_port: int,
) -> None:
    target = target_for(f"http://127.0.0.1:{unused_port}/predictu")
    prepared = Requests(target).one(DEBIT)
    async with sender_to(target) as sender:
        sent = [
            await sender.send(prepared),
            *await sender.send_at_once([replace(prepared, delivery=each) for each in Delivery]),
        ]
    assert {(one.outcome, one.exchange.reason) for one in sent} == {(Outcome.NOT_SENT, "connect_refused")}
    assert not any(one.is_on_used_connection for one in sent)


@pytest.fixture
def unused_port() -> Iterator[int]:
    # Bound and not listening: nobody else gets the port meanwhile.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_a_connection_that_the_operator_closed_before_the_request_has_sent_nothing() -> None:
    async with Operator().running() as operator:
        settings = target_for(operator.url).settings
        connector = Connector(settings, None, look_up=look_up, connecting=lambda: None)
        opened = await open_connection(connector, timeout_s=BOUND_S)
        assert isinstance(opened, Opened)
        await operator.got_connection.wait()
        operator.arrivals[0].transport.abort()
        while not opened.transport.is_closing():  # noqa: ASYNC110 - aiohttp's protocol has no signal
            await asyncio.sleep(0)
        exchange = await exchange_on(opened, b"POST / HTTP/1.1\r\n\r\n", timeout_s=BOUND_S, response_bytes_max=100)
        await connector.close()
    assert (exchange.evidence, exchange.reason) == (Evidence.NOT_SENT, "connect_failed")


async def test_connections_of_interrupted_requests_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are open and wait for the others, on which nothing was sent."""
    started, opened = [], asyncio.Queue[None]()

    async def open_some(connector: Connector, *, timeout_s: float) -> Opened | Exchange:
        started.append(timeout_s)
        if len(started) == 3:
            await asyncio.Event().wait()
        found = await open_connection(connector, timeout_s=timeout_s)
        opened.put_nowait(None)
        return found

    monkeypatch.setattr(sender_module, "open_connection", open_some)
    async with Operator().running() as operator:
        target = target_for(operator.url)
        prepared = Requests(target).one(DEBIT)
        async with sender_to(target) as sender:
            sending = asyncio.create_task(sender.send_at_once([prepared] * 3))
            await opened.get()
            await opened.get()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await asyncio.gather(*(arrival.ended for arrival in operator.arrivals))
    assert sending.cancelled()
    assert [arrival.received for arrival in operator.arrivals] == [b"", b""]
