"""Resolves an operator's host name, and drops addresses that must not be connected to.

Each lookup has a thread of its own: in the small shared pools of asyncio and uvloop, two operators
with silent name servers would block all others. The threads are daemon threads, because a
getaddrinfo(3) that never returns must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

from predictu_dispatch.core.addresses import address_fault, host_fault

LookUp = Callable[[str, int, int], "Sequence[AddrInfoType]"]
"""Host, port, family to socket.getaddrinfo's result; may block, raises OSError or UnicodeError."""
LOOK_UP_TIMEOUT_S = 30.0
"""The default of resolv.conf(5): 2 attempts of 5 s at each of at most 3 name servers."""
_LOOK_UPS_MAX = 4
"""Hanging threads per operator and lane. If 4 lookups hang, a fifth will too."""
_NAMED_MAX = 4
"""Addresses in an error text. It is stored for every attempt, and a name may have hundreds."""


class AddressRefusedError(OSError):
    """Nothing may be sent to this address. An OSError, because aiohttp then tries the next one."""

    def __init__(self, host: str, faults: Sequence[tuple[str, str]]) -> None:
        """`faults` has addresses of `host`, or `host` itself, each with the reason."""
        found = [why if address == host else f"at {address}, {why}" for address, why in faults[:_NAMED_MAX]]
        if len(faults) > _NAMED_MAX:
            found.append(f"{len(faults) - _NAMED_MAX} more")
        super().__init__(
            errno.EACCES,
            f"{host} is {' and '.join(found)}; to allow it, set allow_private_addresses = true in the operator's file",
        )


def look_up(host: str, port: int, family: int) -> Sequence[AddrInfoType]:
    """Asks the system's resolver, for the address families that this host itself has."""
    try:
        return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror:
        # Without a free descriptor, getaddrinfo reports an unknown name; this raises the cause.
        os.close(os.open(os.devnull, os.O_RDONLY))
        raise


class VettingResolver(AbstractResolver):
    """Returns only those addresses of a name that may be connected to."""

    def __init__(
        self, *, allow_private_addresses: bool, look_up: LookUp = look_up, timeout_s: float = LOOK_UP_TIMEOUT_S
    ) -> None:
        self._allow_private_addresses = allow_private_addresses
        self._look_up = look_up
        self._timeout_s = timeout_s
        self._pending = 0

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns addresses. Raises AddressRefusedError if all are refused, OSError if none."""
        if not self._allow_private_addresses and (why := host_fault(host)):
            raise AddressRefusedError(host, [(host, why)])
        found = [_address(info) for info in await self._look_up_in_thread(host, port, family)]
        if not found:
            raise OSError(errno.ENODATA, f"{host} has no address")
        faults = [] if self._allow_private_addresses else [(one, why) for one in found if (why := address_fault(one))]
        refused = {address for address, _ in faults}
        if refused.issuperset(found):
            raise AddressRefusedError(host, faults)
        return [_result(host, port, address) for address in found if address not in refused]

    async def _look_up_in_thread(self, host: str, port: int, family: int) -> Sequence[AddrInfoType]:
        if self._pending >= _LOOK_UPS_MAX:
            raise OSError(errno.EAGAIN, f"{self._pending} earlier lookups of this name have not ended")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[AddrInfoType]] = loop.create_future()

        def finish(found: Sequence[AddrInfoType], error: Exception | None) -> None:
            self._pending -= 1
            if answer.done():
                return  # The caller timed out or was cancelled.
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def run() -> None:
            found: Sequence[AddrInfoType] = ()
            error: Exception | None = None
            try:
                found = self._look_up(host, port, family)
            except UnicodeError as unusable:
                error = OSError(errno.EINVAL, f"{host} is not a host name: {unusable}")
            except Exception as failed:  # noqa: BLE001 - raised again in the awaiting task
                error = failed
            # The loop may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, found, error)

        threading.Thread(target=run, name=f"lookup of {host}", daemon=True).start()
        self._pending += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            # Without an errno, aiohttp would report it as a connect timeout.
            raise OSError(errno.ETIMEDOUT, f"the lookup of {host} did not end within {self._timeout_s:g} s") from None

    @override
    async def close(self) -> None:
        """Holds no resources; hanging lookups end by themselves or with the process."""


def _address(info: AddrInfoType) -> str:
    """Returns the address as text, with the zone that a link-local address needs."""
    address: tuple[Any, ...] = info[4]
    is_zoned = info[0] == socket.AF_INET6 and len(address) == 4 and address[3]  # noqa: PLR2004 - as ip6(7) has them
    return f"{address[0]}%{address[3]}" if is_zoned and "%" not in address[0] else str(address[0])


def _result(host: str, port: int, address: str) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
