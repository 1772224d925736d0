"""Names to addresses for one operator, each looked up once and vetted before anybody connects to it.

A look-up runs in a thread of its own. Those of Python and of uvloop share a few threads between all callers (libuv's
pool has 4, asyncio's a handful more): two operators whose name servers swallow every question would occupy them, and
every other operator would wait behind. The threads are daemons, because nothing can cancel a getaddrinfo(3): one that
never returns must not hold up the end of the process, which waits for the threads of a pool.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

from predictu_dispatch.core.addresses import address_fault, host_fault

if TYPE_CHECKING:
    from aiohttp import AddrInfoType

LookUp = Callable[[str, int, int], "Sequence[AddrInfoType]"]
"""Host, port and family to what socket.getaddrinfo returns; it may block, and raises OSError or UnicodeError."""

PATIENCE_S = 30.0
"""As long as resolv.conf(5) asks by default: 2 times 5 s at each of at most 3 name servers. Then we ask anew."""
_LOOK_UPS_MAX = 4
"""Threads that one operator's lane may leave hanging. Each has outlasted PATIENCE_S, so a fifth would as well."""
_NAMED_MAX = 4
"""Addresses that an error names; a row is kept of every attempt, and a name may have hundreds."""


class AddressRefusedError(OSError):
    """Nothing may be sent to this address. An OSError, because aiohttp lets only those pass when it has several."""

    def __init__(self, host: str, faults: Sequence[tuple[str, str]]) -> None:
        """`faults` are addresses of `host`, each with why; `host` may be an address itself."""
        found = [why if address == host else f"at {address}, {why}" for address, why in faults[:_NAMED_MAX]]
        if len(faults) > _NAMED_MAX:
            found.append(f"{len(faults) - _NAMED_MAX} more")
        super().__init__(
            errno.EACCES,
            f"{host} is {' and '.join(found)}; nothing is sent there, unless allow_private_addresses = true"
            " in the operator's file",
        )


def look_up(host: str, port: int, family: int) -> Sequence[AddrInfoType]:
    """What the system's resolver says. Only families that this host has itself: the others could not be reached."""
    try:
        return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror:
        # A process without a descriptor left can ask nobody, and is told that there is no such name: then this raises
        # what is really the matter.
        os.close(os.open(os.devnull, os.O_RDONLY))
        raise


class VettingResolver(AbstractResolver):
    """Answers with those addresses of a name that may be connected to; what it drops, nobody can connect to."""

    def __init__(
        self, *, allow_private_addresses: bool, look_up: LookUp = look_up, patience_s: float = PATIENCE_S
    ) -> None:
        self._allow_private_addresses = allow_private_addresses
        self._look_up = look_up
        self._patience_s = patience_s
        self._looking_up = 0

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """At least one address; raises AddressRefusedError if all are refused, and OSError if there is none."""
        if not self._allow_private_addresses and (why := host_fault(host)):
            raise AddressRefusedError(host, [(host, why)])
        found = [_address(info) for info in await self._found(host, port, family)]
        if not found:
            raise OSError(errno.ENODATA, f"{host} has no address")
        faults = [] if self._allow_private_addresses else [(one, why) for one in found if (why := address_fault(one))]
        refused = {address for address, _ in faults}
        if refused.issuperset(found):
            raise AddressRefusedError(host, faults)
        return [_result(host, port, address) for address in found if address not in refused]

    async def _found(self, host: str, port: int, family: int) -> Sequence[AddrInfoType]:
        if self._looking_up >= _LOOK_UPS_MAX:
            raise OSError(errno.EAGAIN, f"{self._looking_up} earlier look-ups of this operator's name still hang")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[AddrInfoType]] = loop.create_future()

        def settle(found: Sequence[AddrInfoType], error: Exception | None) -> None:
            self._looking_up -= 1
            if answer.done():
                return  # Whoever asked has gone.
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def ask() -> None:
            found: Sequence[AddrInfoType] = ()
            error: Exception | None = None
            try:
                found = self._look_up(host, port, family)
            except UnicodeError as unusable:
                error = OSError(errno.EINVAL, f"{host} is no host name: {unusable}")
            except Exception as failed:  # noqa: BLE001 - it is raised where the answer is awaited
                error = failed
            # The loop may have been closed while this look-up hung; then nobody waits for it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, found, error)

        threading.Thread(target=ask, name=f"look-up of {host}", daemon=True).start()
        self._looking_up += 1
        try:
            async with asyncio.timeout(self._patience_s):
                return await answer
        except TimeoutError:
            # With a number, or aiohttp would take it for the end of connect_timeout_s.
            raise OSError(errno.ETIMEDOUT, f"no answer to the look-up of {host} in {self._patience_s:g} s") from None

    @override
    async def close(self) -> None:
        """Nothing is held. Look-ups that hang end by themselves, or with the process."""


def _address(info: AddrInfoType) -> str:
    """The address as text, with its zone if it has one, without which a link-local one could not be called."""
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
