"""A connection that listens for notifications and reconnects by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from asyncpg import Connection

from predictu_dispatch.core.database_errors import DatabaseUnavailable, DsnError, Refused
from predictu_dispatch.core.events import Event
from predictu_dispatch.edge.postgres.errors import FOREIGN, translated
from predictu_dispatch.edge.postgres.hosts import CONNECT_TIMEOUT_S, Hosts

_CHECK_S: Final = 10.0
"""Interval of the check that a silent connection still works."""
_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0

log = structlog.get_logger()


async def listen(
    dsn: str,
    channels: Sequence[str],
    on_notification: Callable[[str, str], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Call `on_notification(channel, payload)` for each notification, until cancelled.

    After each connect it is called once per channel without a payload, because notifications may
    have been missed. Notifications are a hint and polling does the same work later, so a failure
    is only a warning.
    """
    hosts = Hosts(dsn)
    retry_s = _RETRY_S
    is_listening = True
    while True:
        connection: Connection | None = None
        try:
            connection = await hosts.connect()
            with translated():
                for channel in channels:
                    await connection.add_listener(
                        channel, lambda _, __, name, payload: on_notification(name, str(payload))
                    )
            retry_s = _RETRY_S
            is_listening = True
            for channel in channels:
                on_notification(channel, "")
            await _watch(connection)
        except (DatabaseUnavailable, Refused, DsnError) as error:
            if is_listening:
                is_listening = False
                log.warning(Event.LISTENER_LOST, error=str(error))
            await sleep(retry_s)
            retry_s = min(retry_s * 2, _RETRY_MAX_S)
        finally:
            if connection is not None:
                with contextlib.suppress(*FOREIGN):
                    await connection.close(timeout=1)


async def _watch(connection: Connection) -> None:
    """Return or raise once the connection is lost."""
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    with translated():
        while not connection.is_closed():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), _CHECK_S)
            await connection.execute("select 1", timeout=CONNECT_TIMEOUT_S)
