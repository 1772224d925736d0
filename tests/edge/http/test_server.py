"""The daemon's own HTTP port: what it answers, and what a client can take of it."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from typing_extensions import override

from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.keys import new_private_pem
from predictu_dispatch.edge.http import listener
from predictu_dispatch.edge.http.server import Address, HttpServer, ListenError
from tests.support.raw_server import BOUND_S

KEY = SigningKey.from_pem(new_private_pem("EdDSA"), "EdDSA")
ANY: Address = ("127.0.0.1", 0)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"


class Gated(CollectorRegistry):
    """A registry whose rendering waits for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.rendered = 0
        self.samples = 1

    @override
    def collect(self) -> Iterable[Metric]:
        self.rendered += 1
        self.began.set()
        self.gate.wait(60.0)
        gauge = GaugeMetricFamily("a_gauge", "A gauge.", labels=["name"])
        for number in range(self.samples):
            gauge.add_metric([f"{number:0100}"], number)
        return [gauge]


class Served:
    def __init__(self) -> None:
        self.registry = Gated()
        self.fault: str | None = None
        self.urls: list[str] = []
        self.server = HttpServer(
            registry=self.registry,
            refresh=lambda: None,
            unready=lambda: self.fault,
            signing_keys=lambda: {"op_a": [KEY]},
        )

    def address(self, number: int = 0) -> Address:
        host, _, port = self.urls[number].removeprefix("http://").rpartition(":")
        return host, int(port)


@asynccontextmanager
async def serving(keys_listen: Address | None = None) -> AsyncIterator[Served]:
    served = Served()
    served.urls = await served.server.start(ANY, keys_listen)
    try:
        yield served
    finally:
        served.registry.gate.set()
        served.server.stop()


class Client:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def reset(self) -> None:
        """Closes with a RST."""
        tcp: socket.socket = self.writer.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_closed(self) -> bytes:
        """Returns what comes until the server closes or resets."""
        received = b""
        async with asyncio.timeout(BOUND_S):
            try:
                while piece := await self.reader.read(65_536):
                    received += piece
            except ConnectionError:
                pass
        return received

    async def answer(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends the request; returns status, headers and body."""
        self.writer.write(request)
        async with asyncio.timeout(BOUND_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            length = 0 if request.startswith(b"HEAD") else int(headers["Content-Length"])
            return int(head[0].split()[1]), headers, await self.reader.readexactly(length)


@asynccontextmanager
async def client(served: Served, number: int = 0) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*served.address(number))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def get(served: Served, path: str, number: int = 0) -> tuple[int, str]:
    async with client(served, number) as one:
        status, _, body = await one.answer(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        return status, body.decode()


async def test_each_path_has_its_answer() -> None:
    async with serving() as served:
        assert await get(served, "/healthz") == (200, "ok\n")
        assert await get(served, "/healthz?x=1") == (200, "ok\n")
        assert await get(served, "http://h/healthz") == (200, "ok\n")
        assert await get(served, "/readyz") == (200, "ready\n")
        served.fault = "no database"
        assert await get(served, "/readyz") == (503, "no database\n")
        assert "a_gauge" in (await get(served, "/metrics"))[1]
        status, keys = await get(served, "/keys/op%5Fa.json")
        assert (status, json.loads(keys)) == (200, {"keys": [KEY.public_jwk()]})
        status, keys = await get(served, "/keys/op_b.json")
        assert (status, json.loads(keys)) == (404, {"error": "unknown operator op_b"})
        for path in ("/", "/keys/", "/keys/op_a", "/keys/a/b.json", "/audit/op_a/checkpoint", "//healthz", "*"):
            assert (await get(served, path))[0] == 404, path


async def test_the_second_address_serves_keys_only() -> None:
    async with serving(keys_listen=ANY) as served:
        for number in (0, 1):
            assert (await get(served, "/keys/op_a.json", number))[0] == 200
        for path in ("/metrics", "/healthz", "/readyz", "/audit/op_a/checkpoint"):
            assert (await get(served, path, 1))[0] == 404


async def test_an_address_that_cannot_be_used_names_its_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        for key, addresses in {"listen": (address, None), "keys_listen": (ANY, address)}.items():
            served = Served()
            with pytest.raises(ListenError, match="address already in use") as refused:
                await served.server.start(*addresses)
            assert refused.value.key == key
            served.server.stop()


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/keys/op_a.json", "/nothing"])
async def test_head_has_the_headers_of_get_and_no_body(path: str) -> None:
    async with serving() as served, client(served) as one:
        head = await one.answer(f"HEAD {path} HTTP/1.1\r\n\r\n".encode())
        get = await one.answer(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    assert (head[0], head[1] | {"Date": ""}, head[2]) == (get[0], get[1] | {"Date": ""}, b"")
    assert get[2] != b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        *((f"{method} /metrics HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 405) for method in ("POST", "PUT", "DELETE")),
        *((f"{method} /metrics HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 405) for method in ("OPTIONS", "TRACE", "FOO")),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2000, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 500_000, 431),
        # Answered, and the last of its connection.
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 200),
        (b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\0\1\2", 200),
        (HEALTH * 100, 200),
    ],
)
async def test_what_is_no_simple_request_gets_one_answer_and_the_end(request_: bytes, status: int) -> None:
    async with serving() as served, client(served) as one:
        one.writer.write(request_)
        answer = await one.until_closed()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert (b"\r\nAllow: GET, HEAD\r\n" in answer) is (status == 405)


async def test_a_request_in_pieces_is_answered_and_the_connection_kept() -> None:
    async with serving() as served, client(served) as one:
        for _ in range(3):
            for byte in HEALTH[:-1]:
                one.writer.write(bytes([byte]))
                await one.writer.drain()
            assert (await one.answer(HEALTH[-1:]))[2] == b"ok\n"


async def test_a_client_that_ends_its_side_gets_its_answer() -> None:
    async with serving() as served, client(served) as one:
        served.registry.gate.clear()
        one.writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        one.writer.write_eof()
        await asyncio.to_thread(served.registry.began.wait)
        served.registry.gate.set()
        assert b"a_gauge" in await one.until_closed()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\nGET /heal",
    ],
)
async def test_a_request_that_does_not_end_is_closed_in_time(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Also if single bytes keep coming."""
    assert listener.REQUEST_TIMEOUT_S == 5.0
    monkeypatch.setattr(listener, "REQUEST_TIMEOUT_S", 0.3)
    async with serving() as served, client(served) as one:
        one.writer.write(sent)

        async def drip() -> None:
            while True:
                one.writer.write(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip()) if b"Host" in sent else None
        try:
            await one.until_closed()
        finally:
            if dripping is not None:
                dripping.cancel()


async def test_an_idle_connection_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "IDLE_TIMEOUT_S", 0.3)
    async with serving() as served, client(served) as one:
        await one.answer(HEALTH)
        assert await one.until_closed() == b""


async def test_a_client_that_does_not_read_its_answer_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ANSWER_TIMEOUT_S", 1.0)
    async with serving() as served, client(served) as one:
        served.registry.samples = 200_000
        cast("asyncio.Transport", one.writer.transport).pause_reading()
        one.writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        [connection] = await until_open(served, 1)
        async with asyncio.timeout(20.0):
            while connection in open_connections(served):  # noqa: ASYNC110 - the server's own state
                await asyncio.sleep(0.01)


def open_connections(served: Served) -> list[object]:
    return [connection for one in served.server._listeners for connection in one._connections]


async def until_open(served: Served, count: int) -> list[object]:
    async with asyncio.timeout(BOUND_S):
        while len(open_connections(served)) != count:  # noqa: ASYNC110 - the server's own state
            await asyncio.sleep(0.01)
    return open_connections(served)


async def test_connections_are_bounded_and_a_new_one_replaces_the_one_that_waited_longest() -> None:
    async with serving() as served:
        half = [await asyncio.open_connection(*served.address()) for _ in range(listener.CONNECTIONS_MAX)]
        for _, writer in half:
            writer.write(b"GET /")
        await until_open(served, listener.CONNECTIONS_MAX)
        assert await get(served, "/healthz") == (200, "ok\n")
        assert await Client(*half[0]).until_closed() == b""
        assert len(open_connections(served)) <= listener.CONNECTIONS_MAX
        for _, writer in half:
            writer.close()


async def test_a_client_that_stays_after_its_last_answer_is_replaced_by_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "CONNECTIONS_MAX", 3)
    monkeypatch.setattr(listener, "_LINGER_S", 60.0)
    async with serving() as served, AsyncExitStack() as clients:
        for _ in range(3):
            one = await clients.enter_async_context(client(served))
            assert (await one.answer(b"POST / HTTP/1.1\r\n\r\n"))[0] == 405
        assert await get(served, "/healthz") == (200, "ok\n")


async def test_a_new_connection_is_closed_at_once_if_all_others_are_being_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "CONNECTIONS_MAX", 3)
    async with serving() as served, asyncio.TaskGroup() as tasks:
        served.registry.gate.clear()
        scrapes = [tasks.create_task(get(served, "/metrics")) for _ in range(3)]
        await until_open(served, 3)
        async with asyncio.timeout(BOUND_S):
            while served.server._listeners[0]._waiting:  # noqa: ASYNC110 - the server's own state
                await asyncio.sleep(0.01)
        async with client(served) as one:
            assert await one.until_closed() == b""
        served.registry.gate.set()
        assert [(await scrape)[0] for scrape in scrapes] == [200] * 3


async def test_scrapes_at_the_same_time_share_one_rendering_also_if_the_first_goes_away() -> None:
    async with serving() as served, asyncio.TaskGroup() as tasks:
        served.registry.gate.clear()
        async with client(served) as first:
            first.writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            await asyncio.to_thread(served.registry.began.wait)
            scrapes = [tasks.create_task(get(served, "/metrics")) for _ in range(24)]
            await until_open(served, 25)
            # The last answer needs no rendering, so all requests before it have arrived.
            assert await get(served, "/healthz") == (200, "ok\n")
            first.reset()
            await until_open(served, 24)
        served.registry.gate.set()
        texts = {(await scrape) for scrape in scrapes}
    assert (len(texts), served.registry.rendered) == (1, 1)


async def test_stopping_closes_every_connection_at_once() -> None:
    async with serving() as served, client(served) as half, client(served) as idle, client(served) as scrape:
        await idle.answer(HEALTH)
        half.writer.write(b"GET /")
        served.registry.gate.clear()
        scrape.writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        await asyncio.to_thread(served.registry.began.wait)
        served.server.stop()
        for one in (half, idle, scrape):
            assert await one.until_closed() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*served.address())
