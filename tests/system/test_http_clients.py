"""Clients of the daemon's own HTTP port take nothing that deliveries need."""

import asyncio
import contextlib
import random
import resource
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support.daemons import Daemon, until
from tests.support.environment import Environment
from tests.support.resources import descriptors, few_descriptors

HALF_OPEN = 3000
COUNT = 100


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Sockets to close at the end, more than the soft limit usually allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * HALF_OPEN:
        pytest.skip(f"needs a hard limit of {2 * HALF_OPEN} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened: list[socket.socket] = []
    try:
        yield opened
    finally:
        for one in opened:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def open_half_requests(daemon: Daemon, count: int) -> list[socket.socket]:
    opened = []
    addresses = [address_of(daemon.url), address_of(daemon.lines("daemon.started")[0]["keys_http"])]
    for number in range(count):
        # The system's queue of connections may be full for a moment.
        opened.append(socket.create_connection(addresses[number % 2], timeout=60.0))
        opened[-1].sendall(b"GET /metrics HTTP/1.1\r\n")
    return opened


async def test_thousands_of_half_sent_requests_stop_no_delivery_no_probe_and_no_end(
    environment: Environment, sockets: list[socket.socket]
) -> None:
    daemon = await environment.fleet.start("host-1", http={"keys_listen": "127.0.0.1:0"})
    before = len(descriptors(daemon.process.pid))
    # For two addresses with 128 connections each, those that wait to be accepted, and the slots.
    with few_descriptors(daemon.process.pid, more=500):
        sockets += await asyncio.to_thread(open_half_requests, daemon, HALF_OPEN)
        for n in range(COUNT):
            await environment.harness.place(f"b-{n}")
        await environment.until_all_final()
        assert await environment.states() == {"delivered": COUNT}
        assert len(environment.operator.requests) == COUNT
        unsent = "select count(*) from predictu_dispatch.attempt where evidence = 'not_sent'"
        assert await environment.harness.owner.fetchval(unsent) == 0
        await until(
            "the connections are within their limits",
            lambda: len(descriptors(daemon.process.pid)) - before <= 2 * 128 + 70,
        )
        reader, writer = await asyncio.open_connection(*address_of(daemon.url))
        writer.write(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
    daemon.terminate()
    assert await daemon.exited(within_s=15.0) == 0


def disturb(daemon: Daemon, seed: int) -> None:
    """Opens, sends parts of requests and junk, reads or not, and closes or resets, at random."""
    chance = random.Random(seed)
    address = address_of(daemon.url)
    requests = [b"GET /metrics HTTP/1.1\r\n\r\n", b"HEAD /healthz HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"]
    for _ in range(150):
        with socket.create_connection(address, timeout=60.0) as one, contextlib.suppress(OSError):
            for _ in range(chance.randrange(4)):
                text = chance.choice([*requests, chance.randbytes(30), requests[0] * 20, b"A" * 10_000])
                one.sendall(text[: chance.randrange(1, len(text) + 1)])
            if chance.random() < 0.5:
                one.settimeout(0.01)
                one.recv(chance.choice([1, 65_536]))
            if chance.random() < 0.5:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_random_clients_break_nothing_and_are_not_logged(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    lines = len(daemon.lines())
    await asyncio.gather(*(asyncio.to_thread(disturb, daemon, seed) for seed in range(8)))
    assert (await daemon.get("/healthz")) == (200, "ok\n")
    assert await daemon.metric("database_up") == 1
    assert daemon.lines()[lines:] == []


async def test_a_second_address_that_cannot_be_used_ends_the_start_and_names_its_key(environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = environment.fleet.spawn("host-1", http={"keys_listen": address})
        assert await daemon.exited() == 1
    assert daemon.log_text.splitlines()[-1] == (
        f'cannot listen on "{address}": address already in use; change [http] keys_listen, or set'
        " PREDICTU_DISPATCH_KEYS_LISTEN if several daemons share the file"
    )
