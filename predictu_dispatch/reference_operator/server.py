"""Runs the operator: its sockets, the wallet's thread, and the order in which they stop."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from .admin import Admin
from .database import Writer, open_database
from .receiver import BODY_BYTES_MAX, Receiver
from .settings import Address, Settings
from .wallet import Wallet
from .witness import Witness, open_witness_key

BACKLOG = 1024
"""Connections that may wait to be accepted during a burst."""
STOP_S = 5.0
"""How long a stop waits for replies that are being written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """The URLs of the running operator."""

    url: str
    admin_url: str | None
    witness_vkey: str | None


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Listening]:
    """Serves callbacks in the block.

    Raises OSError, sqlite3.Error, WalletError or WitnessKeyError if it cannot.
    """
    async with AsyncExitStack() as stack:
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
        witness_vkey = None
        if settings.log_keys:
            key = open_witness_key(settings.witness_key_file, settings.witness_name)
            witness_vkey = key.vkey
            witness = Witness(key=key, log_keys=settings.log_keys, sql=sql, writer=writer)
            application.router.add_post("/add-checkpoint", witness.receive)
        url = await stack.enter_async_context(_listening(application, settings.listen, settings.tls))
        admin_url = None
        if settings.admin_listen is not None:
            admin = Admin(settings=settings, wallet=wallet, writer=writer)
            admin_url = await stack.enter_async_context(_listening(admin.application(), settings.admin_listen, None))
        # Runs first at the end: stalled replies are sent at once, before the sockets wait for them.
        stack.callback(stopping.set)
        yield Listening(url=url + settings.path, admin_url=admin_url, witness_vkey=witness_vkey)


@asynccontextmanager
async def _listening(application: web.Application, address: Address, tls: ssl.SSLContext | None) -> AsyncIterator[str]:
    """Serves the application; yields its URL, with the port that the system chose for port 0."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_S)
    with socket.create_server((address.host, address.port), family=family, backlog=BACKLOG) as listener:
        try:
            await runner.setup()
            await web.SockSite(runner, listener, ssl_context=tls, backlog=BACKLOG).start()
            host = f"[{address.host}]" if family == socket.AF_INET6 else address.host
            yield f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}"
        finally:
            await runner.cleanup()
