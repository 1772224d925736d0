"""No callback is sent to a private address, in any spelling.

The tests bypass the checks of an operator's file: the transport must refuse even what they let
through. Most tests replace the system's resolver;
`test_real_names_connect_only_to_their_public_address` uses it, in namespaces with their own
/etc/hosts and address.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
import uvloop

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.edge.http.resolver import LookUp, look_up
from predictu_dispatch.edge.http.transport import Transport
from tests.edge.http.test_resolver import PUBLIC, hanging_look_up, names
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
)

PROJECT = Path(__file__).parents[3]
REFUSED = (Evidence.NOT_SENT, "address_refused")
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
"""The daemon runs on uvloop, which resolves and connects differently."""


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


HAS_IPV6 = _has_ipv6()
"""Containers often have no IPv6; ::1 is then unreachable."""

LOOPBACK_SPELLINGS = [
    *("127.0.0.1", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]"),  # noqa: S104
    *("localhost", "LOCALHOST", "\uff4cocalhost"),
    *("\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1"),
    *("0x7f.0.0.1", "0x7f.1", "0x7f000001", "127.0.0.0x1"),
]
"""Hosts that reach this machine without a check."""
OTHER_PRIVATE_ADDRESSES = [
    *("127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.01", "127.0.0.1.", "localhost."),
    *(
        "[::127.0.0.1]",
        "[::ffff:0:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[::1%25lo]",
    ),
    *("10.0.0.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fd00::1]"),
]
"""Hosts that mean this machine or its network to some clients."""


class Inside:
    """Listeners on 127.0.0.1 and ::1 that never answer and record whether a client connected."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        self._listeners = listeners
        self.port: int = listeners[0].getsockname()[1]

    @property
    def was_called(self) -> bool:
        # The kernel queues a connection before connect(2) returns, so there is nothing to wait for.
        return any(_was_called(listener) for listener in self._listeners)


def _was_called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@contextmanager
def listening_inside(port: int = 0) -> Iterator[Inside]:
    with ExitStack() as stack:
        ipv4 = stack.enter_context(socket.create_server(("127.0.0.1", port)))
        listeners = [ipv4]
        if HAS_IPV6:
            ipv6 = socket.create_server(("::1", ipv4.getsockname()[1]), family=socket.AF_INET6)
            listeners.append(stack.enter_context(ipv6))
        for listener in listeners:
            listener.setblocking(False)  # noqa: FBT003 - the system's own signature
        yield Inside(listeners)


@asynccontextmanager
async def answering_inside() -> AsyncIterator[RawServer]:
    async with RawServer(answering(OK)).running() as server:
        if not HAS_IPV6:
            yield server
            return
        ipv6 = await asyncio.start_server(server._connected, "::1", server.address[1])
        yield server
        ipv6.close()
        await ipv6.wait_closed()


@asynccontextmanager
async def guarded(
    host: str, port: int, *, allowed: bool = False, look_up: LookUp = look_up
) -> AsyncIterator[Transport]:
    url = f"http://{host}:{port}/predictu"
    unchecked = {"callback_url": url, "allow_private_addresses": allowed}
    transport = Transport(settings_for("http://h/").model_copy(update=unchecked), look_up=look_up)
    try:
        yield transport
    finally:
        await transport.close()


async def exchange_with(host: str, port: int, *, allowed: bool = False, look_up: LookUp = look_up) -> Exchange:
    async with guarded(host, port, allowed=allowed, look_up=look_up) as transport:
        return await post(transport, timeout_s=BOUND_S, connect_timeout_s=BOUND_S)


# Literals


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS + OTHER_PRIVATE_ADDRESSES)
def test_every_spelling_of_a_private_address_is_refused(
    host: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with listening_inside() as inside, asyncio.Runner(loop_factory=new_loop) as runner:
        exchange = runner.run(exchange_with(host, inside.port))
        assert not inside.was_called
    assert evidence_and_reason(exchange) == REFUSED
    assert exchange.connect_ms is None


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
async def test_the_same_address_connects_if_allowed(host: str) -> None:
    if ":" in host and not HAS_IPV6:
        pytest.skip("this system has no IPv6")
    async with answering_inside() as server:
        exchange = await exchange_with(host, server.address[1], allowed=True)
    assert evidence_and_reason(exchange) == (Evidence.ANSWERED, None), exchange.error
    assert server.connections == 1


async def test_a_refused_address_has_a_message_with_the_key_to_change() -> None:
    with listening_inside() as inside:
        exchange = await exchange_with("[::ffff:127.0.0.1]", inside.port)
    assert exchange.error == (
        "AddressRefusedError: [Errno 13] ::ffff:7f00:1 is an IPv4 address inside an IPv6 one (IPv4-mapped, RFC 4291); "
        "to allow it, set allow_private_addresses = true in the operator's file"
    )


# Names


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1"], ["127.0.0.1", "::1"], ["::ffff:127.0.0.1"], ["0.0.0.0"]])  # noqa: S104
async def test_a_name_with_only_private_addresses_is_refused(addresses: list[str]) -> None:
    with listening_inside() as inside:
        exchange = await exchange_with("wallet.example.com", inside.port, look_up=names(wallet=addresses))
        assert not inside.was_called
    assert evidence_and_reason(exchange) == REFUSED
    for part in ("wallet.example.com is at ", *addresses, "allow_private_addresses = true in the operator's file"):
        assert part in (exchange.error or "")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "wallet.invalid"])
async def test_an_unresolvable_name_is_not_sent(host: str) -> None:
    assert evidence_and_reason(await exchange_with(host, 80)) == (Evidence.NOT_SENT, "dns_failed")


def test_real_names_connect_only_to_their_public_address(tmp_path: Path) -> None:
    """Uses /etc/hosts, getaddrinfo(3) and a public address on this host, in isolated namespaces."""
    hosts = {"public": [PUBLIC], "both": ["127.0.0.1", PUBLIC, "10.0.0.1"], "private": ["127.0.0.1"]}
    lines = [f"{address} {name}.example.com" for name, addresses in hosts.items() for address in addresses]
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: files\n")
    (tmp_path / "enter").write_text(
        "set -e; ip link set lo up; ip address add $1/32 dev lo; "
        "for file in hosts nsswitch.conf; do mount --bind $2/$file /etc/$file; done; shift 2; exec $@"
    )
    enter = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--", "sh", str(tmp_path / "enter")]
    if shutil.which("ip") is None or _ran([*enter, PUBLIC, str(tmp_path), "true"]).returncode != 0:
        pytest.skip("this system gives no namespaces")
    answer = _ran([*enter, PUBLIC, str(tmp_path), sys.executable, __file__])
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {
        "public": ["answered", None, 200],
        "private": ["not_sent", "address_refused", None],
        "both": [["answered", None, 200]] * 5,
        "redirected": ["answered", None, 302],
        "rebound": [["answered", None, 200], ["not_sent", "address_refused", None]],
        "look_ups": 2,
        "both, public refusing": ["not_sent", "connect_refused", None],
        "inside_was_called": False,
    }


def _ran(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_hanging_look_ups_do_not_block_another_operator(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    # More than any pool of threads has: asyncio's stops at 32, libuv's at 4.
    hanging = 40

    async def exchanges() -> list[Exchange]:
        async with answering_inside() as server:
            waiting = [asyncio.create_task(hangs(server)) for _ in range(hanging)]
            for _ in range(hanging):
                await asyncio.to_thread(begun.acquire)
            async with asyncio.timeout(BOUND_S):
                answer = names(wallet=["127.0.0.1"])
                served = await exchange_with("wallet.example.com", server.address[1], allowed=True, look_up=answer)
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            return [served]

    async def hangs(server: RawServer) -> None:
        async with guarded("black.example.com", server.address[1], allowed=True, look_up=hang) as transport:
            await post(transport, timeout_s=60.0, connect_timeout_s=60.0)

    with hanging_look_up() as (hang, begun), asyncio.Runner(loop_factory=new_loop) as runner:
        (served,) = runner.run(exchanges())
    assert evidence_and_reason(served) == (Evidence.ANSWERED, None)


async def test_a_hanging_look_up_ends_by_the_connect_timeout_and_uses_one_thread() -> None:
    with hanging_look_up() as (hang, begun):
        async with guarded("black.example.com", 80, look_up=hang) as transport:
            for _ in range(3):
                exchange = await post(transport, timeout_s=TIMEOUT_S, connect_timeout_s=0.05)
                assert evidence_and_reason(exchange) == (Evidence.NOT_SENT, "connect_timeout")
        assert begun.acquire(blocking=False)
        assert not begun.acquire(blocking=False)


def test_a_process_with_a_hanging_look_up_ends_at_once() -> None:
    began_s = time.monotonic()
    answer = _ran([sys.executable, __file__, "hang"])
    assert (answer.returncode, answer.stdout.split()) == (0, ["not_sent", "connect_timeout"]), answer.stderr
    # The lookup would go on for a minute.
    assert time.monotonic() - began_s < 30


# Child processes


async def exchanges_in_namespaces() -> Mapping[str, object]:
    """Uses real names, a public address of this host, and private listeners on the same port."""

    async def redirect(peer: Peer) -> None:
        where = f"http://127.0.0.1:{port}/".encode()
        await answering(b"HTTP/1.1 302 Found\r\nLocation: " + where + b"\r\nContent-Length: 0\r\n\r\n")(peer)

    def row(exchange: Exchange) -> list[object]:
        return [exchange.evidence.value, exchange.reason, exchange.status]

    asked: list[str] = []

    def rebinding(host: str, port: int, family: int) -> Sequence[aiohttp.AddrInfoType]:
        asked.append(host)
        return look_up(f"{'public' if len(asked) == 1 else 'private'}.example.com", port, family)

    results: dict[str, object] = {}
    with listening_inside() as inside:
        port = inside.port
        for script in (answering(OK), redirect):
            server = RawServer(script)
            listener = await asyncio.start_server(server._connected, PUBLIC, port)
            if script is redirect:
                results["redirected"] = row(await exchange_with("public.example.com", port))
            else:
                results["public"] = row(await exchange_with("public.example.com", port))
                results["private"] = row(await exchange_with("private.example.com", port))
                results["both"] = [row(await exchange_with("both.example.com", port)) for _ in range(5)]
                results["rebound"] = [row(await exchange_with("evil", port, look_up=rebinding)) for _ in range(2)]
                results["look_ups"] = len(asked)
            listener.close()
            await listener.wait_closed()
        results["both, public refusing"] = row(await exchange_with("both.example.com", port))
        results["inside_was_called"] = inside.was_called
    return results


async def exchange_with_a_name_that_hangs() -> Exchange:
    def hang(_host: str, _port: int, _family: int) -> Sequence[aiohttp.AddrInfoType]:
        time.sleep(60)
        return ()

    async with guarded("black.example.com", 80, look_up=hang) as transport:
        return await post(transport, connect_timeout_s=0.1)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as own_runner:
        if sys.argv[1:] == ["hang"]:
            sys.stdout.write(" ".join(map(str, evidence_and_reason(own_runner.run(exchange_with_a_name_that_hangs())))))
        else:
            sys.stdout.write(json.dumps(own_runner.run(exchanges_in_namespaces())))
