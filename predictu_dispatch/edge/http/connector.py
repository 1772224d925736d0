"""Opens connections to one operator by aiohttp: names, addresses, happy eyeballs, TLS.

aiohttp's session is not used. A connection, once open, is handed to a protocol of our own
(connection.py). Three undocumented parts of aiohttp are used: the constructor of `ClientRequest`,
which names the host; `TCPConnector.connect(req, traces, timeout)`; and
`Connection.protocol.should_close`. require_aiohttp() checks them, and the version is pinned below
the next minor. `make newest-aiohttp` runs the tests with the newest release.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from urllib.parse import urlsplit

import aiohttp
from aiohttp.connector import Connection as OpenConnection
from yarl import URL

from predictu_dispatch.core.addresses import address_fault
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.edge.http.failure_reason import CLOSED_BEFORE_REQUEST, UnsolicitedDataError
from predictu_dispatch.edge.http.resolver import AddressRefusedError, LookUp, VettingResolver
from predictu_dispatch.edge.tls import client_context

_DNS_TTL_S = 10
"""How long a resolved name is cached. Only permitted addresses are cached; failures are not."""
_CLOSE_TIMEOUT_S = 1.0
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)
"""The caller's timeout covers everything until the connection is open."""


class Connector:
    """Opens connections to the host of a callback_url; `connecting` is called for each address.

    aiohttp counts an open connection until its close() is called, and never reuses it.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        ssl_context: ssl.SSLContext | None,
        *,
        look_up: LookUp,
        connecting: Callable[[], None],
    ) -> None:
        require_aiohttp()
        parts = urlsplit(settings.callback_url)
        # Without path and query, which yarl would change.
        self._destination = aiohttp.ClientRequest("POST", URL(f"{parts.scheme}://{parts.netloc}/"))
        self._connector = vetting_connector(
            ssl_context,
            allow_private_addresses=settings.allow_private_addresses,
            look_up=look_up,
            connecting=connecting,
        )

    async def open(self) -> OpenConnection:
        """Opens a connection. Raises what failure_reason.py knows, and UnsolicitedDataError."""
        connection = await self._connector.connect(self._destination, [], _NO_TIMEOUT)
        transport = connection.transport
        is_lost = transport is None or transport.is_closing()
        if is_lost or connection.protocol is None or connection.protocol.should_close:
            if transport is not None:
                # close() alone would wait for the operator's end of TLS.
                transport.abort()
            connection.close()
            if is_lost:
                raise ConnectionResetError(CLOSED_BEFORE_REQUEST)
            raise UnsolicitedDataError
        return connection

    async def close(self) -> None:
        # aiohttp would wait without a limit for a connection that was not closed before.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._connector.close()


def vetting_connector(
    ssl_context: ssl.SSLContext | None,
    *,
    allow_private_addresses: bool,
    look_up: LookUp,
    connecting: Callable[[], None],
) -> aiohttp.TCPConnector:
    """Returns aiohttp's connector, which connects to permitted addresses only, as many as asked."""

    def vetted_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        # Only here every address is seen: aiohttp does not resolve what looks like one.
        host = str(address[4][0])
        if not allow_private_addresses and (why := address_fault(host)):
            raise AddressRefusedError(host, [(host, why)])
        connecting()
        return _reset_on_close_socket(address)

    return aiohttp.TCPConnector(
        # The lane's slots bound the connections.
        limit=0,
        resolver=VettingResolver(allow_private_addresses=allow_private_addresses, look_up=look_up),
        ttl_dns_cache=_DNS_TTL_S,
        socket_factory=vetted_socket,
        ssl=ssl_context or _system_context(),
    )


def peer_of(transport: asyncio.BaseTransport) -> tuple[str | None, bytes | None]:
    """Returns the address and port of the other side, and the SHA-256 of its certificate.

    An address is 192.0.2.1:443 or [2001:db8::1]:443; None if the connection is closed already. The
    hash is that of the leaf certificate in DER; None without TLS.
    """
    peername, tls = transport.get_extra_info("peername"), transport.get_extra_info("ssl_object")
    address = None
    if peername is not None:
        host, port, *_ = peername
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    certificate = None if tls is None else tls.getpeercert(binary_form=True)
    return address, None if certificate is None else hashlib.sha256(certificate).digest()


@cache
def require_aiohttp() -> None:
    """Raises RuntimeError if this aiohttp lacks an undocumented part that the connector uses."""
    parts = {
        "TCPConnector.connect(req, traces, timeout)": [*inspect.signature(aiohttp.TCPConnector.connect).parameters]
        == ["self", "req", "traces", "timeout"],
        "ClientRequest(method, url)": [*inspect.signature(aiohttp.ClientRequest).parameters][:2] == ["method", "url"],
        "Connection.protocol": hasattr(OpenConnection, "protocol"),
        "ResponseHandler.should_close": hasattr(aiohttp.client_proto.ResponseHandler, "should_close"),
    }
    if missing := [name for name, is_there in parts.items() if not is_there]:
        raise RuntimeError(
            f"aiohttp {aiohttp.__version__} has no {', no '.join(missing)}; install the one in deploy/requirements.txt"
        )


_system_context = cache(client_context)
"""Shared, because loading the system's authorities takes tens of milliseconds."""


def _reset_on_close_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Creates a socket that discards undelivered bytes and sends a reset when it is closed.

    Otherwise the kernel keeps delivering the request of a failed attempt: a debit could arrive
    minutes later, after its rollback. The loop's buffer is discarded by transport.abort().
    """
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)  # noqa: FBT003 - the system's own signature
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return made
