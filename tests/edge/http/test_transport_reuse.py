"""Which connection the next request takes, and when an idle one is closed."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

import pytest

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
    never_answer,
    post,
    transport_to,
)

ANSWERED = (Evidence.ANSWERED, None)
SHORT = OK.replace(b"\r\n", b"\r\nKeep-Alive: timeout=1.2\r\n", 1)
"""It may be idle for 0.2 s."""


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not is_so():  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)


def serving(answer: Callable[[Peer, int], Awaitable[None]]) -> tuple[RawServer, list[int]]:
    """A server that answers the nth connection by `answer`, and the connection of each request."""
    taken: list[int] = []
    numbers = itertools.count(1)

    async def script(peer: Peer) -> None:
        number = next(numbers)
        while True:
            await peer.request()
            taken.append(number)
            await answer(peer, number)

    return RawServer(script), taken


async def ok(peer: Peer, _number: int) -> None:
    await peer.send(OK)


async def test_the_connection_used_last_is_reused_first() -> None:
    release = asyncio.Event()

    async def answer(peer: Peer, number: int) -> None:
        if peer.server.connections == 3 and len(taken) == 3:
            release.set()
        await release.wait()
        # They become idle in this order.
        await until(lambda: len(transport._idle) >= number - 1)
        await peer.send(OK)

    server, taken = serving(answer)
    async with server.running(), transport_to(server.url) as transport:
        await asyncio.gather(*(post(transport) for _ in range(3)))
        assert sorted(taken) == [1, 2, 3]
        assert len(transport._idle) == 3
        for _ in range(5):
            assert evidence_and_reason(await post(transport)) == ANSWERED
    assert taken[3:] == [3] * 5


@pytest.mark.parametrize("announced", [b"timeout=1", b"max=5, Timeout=1", b'timeout="1", max=5', b"timeout = 0"])
async def test_an_operators_keep_alive_timeout_is_respected(announced: bytes) -> None:
    brief = OK.replace(b"\r\n", b"\r\nKeep-Alive: " + announced + b"\r\n", 1)
    async with RawServer(answering(brief)).running() as server, transport_to(server.url) as transport:
        for _ in range(3):
            assert evidence_and_reason(await post(transport)) == ANSWERED
    assert (server.connections, len(server.requests)) == (3, 3)


async def test_an_idle_connection_is_closed_in_time_although_another_may_stay_longer() -> None:
    async def answer(peer: Peer, number: int) -> None:
        await until(lambda: len(taken) >= 2)
        await until(lambda: len(transport._idle) >= number - 1)
        await peer.send(OK if number == 1 else SHORT)

    server, taken = serving(answer)
    async with server.running(), transport_to(server.url) as transport:
        await asyncio.gather(post(transport), post(transport))
        began_s = time.monotonic()
        async with asyncio.timeout(BOUND_S):
            await server.hung_up.wait()
        assert time.monotonic() - began_s >= 0.1
        assert len(transport._idle) == 1
        assert evidence_and_reason(await post(transport)) == ANSWERED
    assert sorted(taken) == [1, 1, 2]


async def test_an_expired_idle_connection_is_not_reused_although_nothing_has_closed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a suspension of the process, when its timers have not run yet."""
    server, taken = serving(ok)
    async with server.running(), transport_to(server.url) as transport:
        await post(transport)
        monkeypatch.setattr(transport._idle[0], "idle_until_s", time.monotonic())
        await post(transport)
    assert taken == [1, 2]


@pytest.mark.parametrize("unasked", [b"\r\n", b"\0", OK])
async def test_bytes_on_an_idle_connection_close_it_at_once(unasked: bytes) -> None:
    is_idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await is_idle.wait()
        await peer.send(unasked)
        await peer.read_until_closed()

    async with RawServer(script).running() as server, transport_to(server.url) as transport:
        await post(transport)
        is_idle.set()
        async with asyncio.timeout(BOUND_S):
            await server.hung_up.wait()
        assert server.unexpected_bytes == b""


@pytest.mark.parametrize("status", [b"204 No", b"304 Not", b"101 Go"])
async def test_an_answer_without_a_body_closes_the_connection(status: bytes) -> None:
    async with (
        RawServer(answering(b"HTTP/1.1 " + status + b"\r\n\r\n")).running() as server,
        transport_to(server.url) as transport,
    ):
        for _ in range(2):
            assert evidence_and_reason(await post(transport)) == ANSWERED
    assert server.connections == 2


async def test_an_answer_before_the_request_was_sent_closes_the_connection() -> None:
    async def answers_unread(peer: Peer) -> None:
        await peer.reader.readexactly(1)
        await peer.send(OK)
        if peer.server.connections == 1:
            await asyncio.Event().wait()
        await peer.read_until_closed()

    async with RawServer(answers_unread).running() as server, transport_to(server.url) as transport:
        # More than the kernel's buffers hold.
        early = await post(transport, body=b"x" * 20_000_000)
        assert evidence_and_reason(early) == ANSWERED
        assert transport._idle == []
        assert evidence_and_reason(await post(transport)) == ANSWERED
    assert server.connections == 2


async def test_dead_idle_connections_do_not_pile_up() -> None:
    """The operator answers and closes, without saying so."""

    async def closes(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with RawServer(closes).running() as server, transport_to(server.url) as transport:
        for _ in range(50):
            assert (await post(transport)).evidence is not Evidence.NOT_SENT
            await until(lambda: acquired(transport) == 0)
            assert len(transport._idle) <= 1
    assert server.connections == 50


def acquired(transport: Transport) -> int:
    """The connections that aiohttp counts as open."""
    return len(transport._connector._connector._acquired)


async def test_a_cancelled_exchange_closes_its_connection() -> None:
    async with RawServer(never_answer).running() as server, transport_to(server.url) as transport:
        under_way = asyncio.create_task(post(transport))
        await server.arrivals.get()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        async with asyncio.timeout(BOUND_S):
            await server.hung_up.wait()
        assert (acquired(transport), transport._busy, transport._idle) == (0, set(), [])


async def test_an_exchange_that_is_cancelled_while_it_connects_leaves_no_connection() -> None:
    async with (
        RawServer(Peer.read_until_closed).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        under_way = asyncio.create_task(post(transport))
        await server.got_connection.wait()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        async with asyncio.timeout(BOUND_S):
            await server.hung_up.wait()
        assert (acquired(transport), transport._connecting) == (0, set())


async def test_a_timer_of_an_ended_exchange_does_not_end_the_next() -> None:
    async def answer(peer: Peer, _number: int) -> None:
        if len(taken) == 2:
            await asyncio.sleep(1.2)
        await peer.send(OK)

    server, taken = serving(answer)
    async with server.running(), transport_to(server.url) as transport:
        assert evidence_and_reason(await post(transport, timeout_s=1.0)) == ANSWERED
        assert evidence_and_reason(await post(transport, timeout_s=TIMEOUT_S)) == ANSWERED
    assert taken == [1, 1]
