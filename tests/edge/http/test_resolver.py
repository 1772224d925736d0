"""The resolver: permitted addresses, refusals, and look-ups that hang."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import aiohttp
import pytest

from predictu_dispatch.edge.http.resolver import AddressRefusedError, LookUp, VettingResolver, look_up
from tests.support.daemons import until
from tests.support.raw_server import BOUND_S

PUBLIC = "93.184.216.34"
"""A public address. In a namespace it is this host's own; outside it is never connected to."""


def names(**addresses: Sequence[str]) -> LookUp:
    """A lookup that returns these addresses, by the first label of a name."""

    def answer(host: str, port: int, family: int) -> list[aiohttp.AddrInfoType]:
        return [info for one in addresses[host.partition(".")[0]] for info in look_up(one, port, family)]

    return answer


@contextmanager
def hanging_look_up() -> Iterator[tuple[LookUp, threading.Semaphore]]:
    """A lookup that hangs until the test ends; the semaphore counts the started ones."""
    over = threading.Event()
    begun = threading.Semaphore(0)

    def hang(_host: str, _port: int, _family: int) -> Sequence[aiohttp.AddrInfoType]:
        begun.release()
        over.wait()
        return ()

    try:
        yield hang, begun
    finally:
        over.set()


async def test_only_the_public_addresses_of_a_name_are_used() -> None:
    both = names(wallet=["127.0.0.1", PUBLIC, "10.0.0.1", "2a00:1450:4001::1", "::1"])
    vetted = await VettingResolver(allow_private_addresses=False, look_up=both).resolve("wallet.example.com", 443)
    assert [(one["hostname"], one["host"], one["port"]) for one in vetted] == [
        ("wallet.example.com", PUBLIC, 443),
        ("wallet.example.com", "2a00:1450:4001::1", 443),
    ]
    trusting = await VettingResolver(allow_private_addresses=True, look_up=both).resolve("wallet.example.com", 443)
    assert [one["host"] for one in trusting] == ["127.0.0.1", PUBLIC, "10.0.0.1", "2a00:1450:4001::1", "::1"]


async def test_the_message_for_a_refused_name_has_a_few_of_its_addresses() -> None:
    many = names(wallet=[f"10.0.0.{n}" for n in range(200)])
    with pytest.raises(AddressRefusedError, match=r"10\.0\.0\.0, private \(RFC 1918\).* and 196 more") as refused:
        await VettingResolver(allow_private_addresses=False, look_up=many).resolve("wallet.example.com")
    assert "10.0.0.4" not in str(refused.value)


async def test_hanging_look_ups_of_a_name_are_limited_to_four_threads() -> None:
    with hanging_look_up() as (hang, begun):
        resolver = VettingResolver(allow_private_addresses=False, look_up=hang, timeout_s=0.01)
        for _ in range(4):
            with pytest.raises(TimeoutError, match=r"the lookup of black\.example\.com did not end within 0\.01 s"):
                async with asyncio.timeout(BOUND_S / 4):
                    await resolver.resolve("black.example.com")
            assert await asyncio.to_thread(begun.acquire, timeout=BOUND_S)
        for _ in range(2):
            with pytest.raises(BlockingIOError, match="4 earlier lookups of this name have not ended"):
                await resolver.resolve("black.example.com")
        assert not begun.acquire(blocking=False)


async def test_a_late_look_up_releases_its_thread() -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    with hanging_look_up() as (hang, _):
        resolver = VettingResolver(allow_private_addresses=False, look_up=hang, timeout_s=0.01)
        for _ in range(4):
            with pytest.raises(TimeoutError):
                await resolver.resolve("black.example.com")
    await until("the threads are given back", lambda: resolver._pending == 0, within_s=BOUND_S)
    with pytest.raises(OSError, match="has no address"):
        await resolver.resolve("black.example.com")
    assert errors == []
