"""Runs the operator: its sockets, the wallet's thread, and the order in which they stop."""

from __future__ import annotations

import asyncio
import errno
import functools
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from .admin import Admin
from .database import Writer, open_database
from .ledger import LedgerRoute
from .receiver import BODY_BYTES_MAX, Receiver
from .settings import Address, Settings
from .wallet import Wallet
from .witness import Witness, open_witness_key

BACKLOG = 1024
"""Connections that may wait to be accepted during a burst."""
CONNECTIONS_MAX = 800
"""Open connections; further ones are closed at once."""
OTHER_FILES = 64
"""Open files of this process that are no connections: the database, the log, modules."""
IDLE_S = 75.0
"""How long a connection may wait for its first or next complete request head."""
TLS_HANDSHAKE_S = 10.0
STOP_S = 5.0
"""How long a stop waits for replies that are being written."""


class ListenError(Exception):
    """The address cannot be listened on; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """The URLs of the running operator."""

    url: str
    admin_url: str | None
    witness_vkey: str | None


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Listening]:
    """Serves callbacks in the block.

    Raises ListenError, OSError, sqlite3.Error, WalletError or WitnessKeyError if it cannot.
    """
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listener(settings.listen, "--listen"))
        admin_listen = settings.admin_listen
        admin_listener = stack.enter_context(_listener(admin_listen, "--admin-listen")) if admin_listen else None
        thread = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="wallet"))
        in_thread = functools.partial(asyncio.get_running_loop().run_in_executor, thread)
        sql = await in_thread(open_database, settings.database)
        stack.push_async_callback(in_thread, sql.close)
        writer = Writer(sql, thread)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(tasks.create_task(writer.run(), name="writer").cancel)
        wallet = Wallet(sql)
        await writer.write(functools.partial(wallet.create_players, settings.seed_players, skip_existing=True))
        stopping = asyncio.Event()
        receiver = Receiver(settings=settings, wallet=wallet, writer=writer, stopping=stopping)
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_post(settings.path, receiver.receive)
        ledger = LedgerRoute(settings=settings)
        application.router.add_get(f"{settings.path.rstrip('/')}/ledger", ledger.receive, allow_head=False)
        witness_vkey = None
        if settings.log_keys:
            key = open_witness_key(settings.witness_key_file, settings.witness_name)
            witness_vkey = key.vkey
            witness = Witness(key=key, log_keys=settings.log_keys, sql=sql, writer=writer)
            application.router.add_post("/add-checkpoint", witness.receive)
        url = await stack.enter_async_context(_listening(application, listener, settings.listen.host, settings.tls))
        admin_url = None
        if admin_listen is not None and admin_listener is not None:
            admin = Admin(settings=settings, wallet=wallet, writer=writer).application()
            admin_url = await stack.enter_async_context(_listening(admin, admin_listener, admin_listen.host, None))
        # Runs first at the end: stalled replies are sent at once, before the sockets wait for them.
        stack.callback(stopping.set)
        yield Listening(url=url + settings.path, admin_url=admin_url, witness_vkey=witness_vkey)


class _Admission(asyncio.Protocol):
    """Hands a new connection over to the web server, or closes it if too many are open.

    It decides when the connection is made: several are accepted before the first one counts.
    """

    def __init__(self, server: web.Server, connections_max: int) -> None:
        self._server = server
        self._connections_max = connections_max

    # typing.override, which mypy asks for, came with Python 3.12.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[explicit-override]
        if len(self._server.connections) >= self._connections_max:
            transport.close()
            return
        handler = self._server()
        transport.set_protocol(handler)
        handler.connection_made(transport)


@asynccontextmanager
async def _listening(
    application: web.Application, listener: socket.socket, host: str, tls: ssl.SSLContext | None
) -> AsyncIterator[str]:
    """Serves the application; yields its URL, with the port that the system chose for port 0."""
    # auto_decompress: the token's digest is of the bytes that were sent, and a small compressed
    # body can be large.
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=STOP_S, keepalive_timeout=IDLE_S, auto_decompress=False
    )
    await runner.setup()
    requests = runner.server
    assert requests is not None  # noqa: S101 - setup() made it

    # Without a free file nothing could be accepted, and the database could not be opened again.
    files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    connections_max = min(CONNECTIONS_MAX, max(1, files_max - OTHER_FILES)) if files_max > 0 else CONNECTIONS_MAX
    loop = asyncio.get_running_loop()
    try:
        accepting = await loop.create_server(
            functools.partial(_Admission, requests, connections_max),
            sock=listener,
            ssl=tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=TLS_HANDSHAKE_S if tls else None,
        )
        try:
            name = f"[{host}]" if ":" in host else host
            yield f"{'https' if tls else 'http'}://{name}:{listener.getsockname()[1]}"
        finally:
            accepting.close()
    finally:
        # Waits for replies that are being written, and closes every connection.
        await runner.cleanup()


def _listener(address: Address, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as fault:
        why = (
            "address in use"
            if fault.errno == errno.EADDRINUSE
            else (fault.strerror or str(fault)).partition(" (")[0].lower()
        )
        raise ListenError(
            f"cannot listen on {address.host}:{address.port}: {why}; choose another one with {option} HOST:PORT"
        ) from None
