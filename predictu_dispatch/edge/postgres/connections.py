"""Single connections: to the first usable host of a DSN, and one that listens and reconnects."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg
import structlog
from asyncpg import Connection
from asyncpg.pool import PoolConnectionProxy

from predictu_dispatch.core.database import DatabaseUnavailable, LoginRefused
from predictu_dispatch.core.dsn import one_per_host
from predictu_dispatch.core.events import Event
from predictu_dispatch.edge.postgres.errors import FOREIGN, translated
from predictu_dispatch.edge.postgres.session import AT_START, REFUSED_AT_START, keeps_settings

CONNECT_TIMEOUT_S: Final = 5.0
_CHECK_S: Final = 10.0
"""Interval of the check that a silent connection still works."""
_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0
_PER_S_MAX: Final = 10_000
"""More than a server can commit with a NOTIFY each; this many take a tenth of a second."""
_FLOOD_PAUSE_S: Final = 5.0

log = structlog.get_logger()


class Hosts:
    """The hosts of a DSN, each with its own timeout; the one that answered last is tried first.

    `keeps_settings` is False once a connection did not get our session settings: a pooling proxy is
    in between, and each statement must set them itself.
    """

    def __init__(self, dsn: str) -> None:
        self._dsns = one_per_host(dsn)
        self.keeps_settings = True

    async def connect(
        self,
        *_: Any,  # noqa: ANN401 - asyncpg's pool passes the DSN
        server_settings: dict[str, str] | None = None,
        **options: Any,  # noqa: ANN401 - those of asyncpg
    ) -> Connection:
        """Connect to the first host that answers and fits the DSN, within CONNECT_TIMEOUT_S.

        Raises LoginRefused if a host refused it, else the last host's DatabaseUnavailable; DsnError
        at once.
        """
        dsns = list(self._dsns)
        refused: LoginRefused | None = None
        for dsn in dsns:
            try:
                connection = await self._connect(dsn, CONNECT_TIMEOUT_S / len(dsns), server_settings or {}, options)
            except LoginRefused as error:
                # Perhaps a former primary; the next host may accept the login.
                refused = error
            except DatabaseUnavailable:
                if dsn == dsns[-1] and refused is None:
                    raise
            else:
                self._dsns.sort(key=lambda one: one != dsn)
                return connection
        raise refused or AssertionError("there is a host, and the last one either connects or raises")

    async def _connect(self, dsn: str, timeout_s: float, settings: dict[str, str], options: Any) -> Connection:  # noqa: ANN401 - as above
        if self.keeps_settings:
            try:
                with translated():
                    async with asyncio.timeout(timeout_s):
                        connection = await _open(dsn, {**settings, **AT_START}, options)
                        if not await keeps_settings(connection):
                            self.keeps_settings = False
                        return connection
            except (DatabaseUnavailable, LoginRefused) as error:
                if error.sqlstate not in REFUSED_AT_START:
                    raise
            self.keeps_settings = False
        with translated():
            async with asyncio.timeout(timeout_s):
                return await _open(dsn, settings, options)


async def _open(dsn: str, settings: dict[str, str], options: Any) -> Connection:  # noqa: ANN401 - as above
    connection: Connection = await asyncpg.connect(dsn, server_settings=settings, **options)
    return connection


async def listen(
    dsn: str,
    channels: Sequence[str],
    on_notification: Callable[[str, str], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Call `on_notification(channel, payload)` for each notification, until cancelled.

    Each connect calls it once per channel without a payload, because notifications may have been
    missed. Polling does the same work, so a failure is only a warning.
    """
    hosts = Hosts(dsn)
    retry_s = _RETRY_S
    while True:
        receiver = _Receiver(on_notification)
        try:
            async with _listening(hosts, channels, receiver) as connection:
                retry_s = _RETRY_S
                await _watch(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, polling does the same work
            if receiver.is_flooded:
                log.warning(Event.LISTENER_FLOODED, per_s_max=_PER_S_MAX, pause_s=_FLOOD_PAUSE_S)
                await sleep(_FLOOD_PAUSE_S)
                continue
            if retry_s == _RETRY_S:
                log.warning(Event.LISTENER_LOST, error=f"{type(error).__name__}: {error}")
            await sleep(retry_s)
            retry_s = min(retry_s * 2, _RETRY_MAX_S)


class _Receiver:
    """Passes notifications on; any login may send them, and too many end the connection."""

    def __init__(self, on_notification: Callable[[str, str], None]) -> None:
        self.on_notification = on_notification
        self.is_flooded = False
        self._second = 0
        self._received = 0

    def receive(self, connection: Connection | PoolConnectionProxy, _pid: int, channel: str, payload: object) -> None:
        if self.is_flooded:
            return  # What was received before the connection ended.
        second = int(time.monotonic())
        self._received = self._received + 1 if second == self._second else 1
        self._second = second
        if self._received > _PER_S_MAX:
            self.is_flooded = True
            connection.terminate()
            return
        self.on_notification(channel, str(payload))


@contextlib.asynccontextmanager
async def _listening(hosts: Hosts, channels: Sequence[str], receiver: _Receiver) -> AsyncIterator[Connection]:
    connection = await hosts.connect()
    try:
        with translated():
            for channel in channels:
                await connection.add_listener(channel, receiver.receive)
        for channel in channels:
            receiver.on_notification(channel, "")
        yield connection
    finally:
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
