"""Postgres: a pool that comes back by itself, and a connection that listens."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from predictu_dispatch.core.database_errors import DatabaseUnavailable, DsnError, Refused
from predictu_dispatch.core.dsn import one_per_host
from predictu_dispatch.core.events import Event
from predictu_dispatch.edge.postgres.errors import FOREIGN, answered, translate, translated
from predictu_dispatch.edge.postgres.migrations import require_schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from asyncpg import Connection, Pool

_CONNECT_TIMEOUT_S = 5.0
_STATEMENTS_CACHED = 100
"""Far more than there are in sql/queries; asyncpg's own default."""
_COMMAND_TIMEOUT_S = 10.0
"""Far above any statement of ours; a connection that is silent for longer is taken for dead."""
_RELEASE_TIMEOUT_S = 2.0
"""For asyncpg to cancel what still runs and to make the connection fit for the next; one that is slower is dropped."""
_CLOSE_TIMEOUT_S = 2.0
_KEPT_FREE = 2
"""Connections that only urgent statements may take: one to claim bets, one to settle them."""
_LISTEN_CHECK_S = 10.0
"""A listening connection says nothing by itself; it is asked this often whether it lives."""

log = structlog.get_logger()


class Hosts:
    """Connects to the first host of a DSN that answers and is what the DSN asks for; it is asked first the next time.

    asyncpg gives all hosts one time together: one that says nothing at all, as a machine without power does, would use
    it up, and the others would never be asked.
    """

    def __init__(self, dsn: str) -> None:
        self._dsns = one_per_host(dsn)

    async def connect(self, *_: Any, **options: Any) -> Connection:  # noqa: ANN401 - as asyncpg's pool calls it
        """A connection within _CONNECT_TIMEOUT_S, divided among the hosts. Raises what the last of them came to."""
        dsns = list(self._dsns)
        for dsn in dsns:
            try:
                with translated():
                    connection: Connection = await asyncpg.connect(
                        dsn, timeout=_CONNECT_TIMEOUT_S / len(dsns), **options
                    )
            except DatabaseUnavailable:
                if dsn == dsns[-1]:
                    raise
            else:
                self._dsns.sort(key=lambda one: one != dsn)
                return connection
        raise AssertionError  # The last of them either connects or raises.


class Database:
    """The pool. `is_up` says whether the last statement reached the database."""

    def __init__(self, dsn: str, *, pool_size: int, application_name: str, through_pooler: bool = False) -> None:
        self._hosts = Hosts(dsn)
        self._pool_size = pool_size
        self._application_name = application_name
        self._through_pooler = through_pooler
        self._patient = asyncio.Semaphore(max(1, pool_size - _KEPT_FREE))
        self._pool: Pool | None = None
        self.is_up = False

    async def open(self) -> None:
        """Connected, and the schema fits. Raises SchemaError, or what the connecting raised.

        Nothing is tried again here.
        """
        self._pool = await asyncpg.create_pool(
            connect=self._hosts.connect,
            # None is kept on purpose: polling keeps one busy anyway, and asyncpg's own upkeep of a floor would take
            # turns with our statements for the connections, and log by itself.
            min_size=0,
            max_size=self._pool_size,
            command_timeout=_COMMAND_TIMEOUT_S,
            # A transaction-pooling proxy gives each statement another session, which knows none that was prepared.
            statement_cache_size=0 if self._through_pooler else _STATEMENTS_CACHED,
            server_settings={"application_name": self._application_name},
            # Our statements leave nothing behind in a session; a reset would be one more round trip for each.
            reset=_leave_as_it_is,
        )
        with translated():
            async with self._pool.acquire() as connection:
                await require_schema(connection)
        self.is_up = True

    async def close(self) -> None:
        """All connections are gone, by force where the server does not answer."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), _CLOSE_TIMEOUT_S)
            except FOREIGN:
                self._pool.terminate()

    async def fetch(self, query: str, *args: Any, urgent: bool = False) -> list[Any]:  # noqa: ANN401 - parameters are as varied as SQL's types
        """The statement's rows, once. Raises DatabaseUnavailable and Refused.

        What is not urgent leaves connections free for what is: a burst of settlements, or a slow count, must not keep a
        bet waiting.
        """
        if self._pool is None:
            message = "the database is not open"
            raise DatabaseUnavailable(message)
        try:
            if urgent:
                rows = await self._rows(self._pool, query, args)
            else:
                async with self.background_slot():
                    rows = await self._rows(self._pool, query, args)
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Giving a silent connection back ends in a timeout, which must not hide that we were cancelled.
                raise asyncio.CancelledError from error
            ours = translate(error) if isinstance(error, FOREIGN) else error
            if isinstance(ours, DatabaseUnavailable) and not answered(ours):
                self._note(up=False, error=ours)
            if ours is error:
                raise
            raise ours from error
        self._note(up=True)
        return list(rows)

    @asynccontextmanager
    async def background_slot(self) -> AsyncIterator[None]:
        """A place among those that leave connections free for what is urgent.

        Raises DatabaseUnavailable if none gets free.
        """
        with translated():
            async with asyncio.timeout(_CONNECT_TIMEOUT_S + _COMMAND_TIMEOUT_S):
                await self._patient.acquire()
        try:
            yield
        finally:
            self._patient.release()

    async def _rows(self, pool: Pool, query: str, args: tuple[Any, ...]) -> list[Any]:
        connection = await pool.acquire(timeout=_CONNECT_TIMEOUT_S)
        try:
            return await connection.fetch(query, *args)
        finally:
            await pool.release(connection, timeout=_RELEASE_TIMEOUT_S)

    async def fetch_through_outage(self, query: str, *args: Any, urgent: bool = False) -> list[Any]:  # noqa: ANN401 - as above
        """The statement's rows, asked again until the database answers: for statements that are safe to repeat."""
        async for attempt in AsyncRetrying(
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.1),
            retry=retry_if_exception_type(DatabaseUnavailable),
            reraise=True,
        ):
            with attempt:
                return await self.fetch(query, *args, urgent=urgent)
        raise AssertionError  # AsyncRetrying without a stop either returns or raises.

    def _note(self, *, up: bool, error: BaseException | None = None) -> None:
        if up != self.is_up:
            self.is_up = up
            if up:
                log.info(Event.DATABASE_RECOVERED)
            else:
                log.warning(Event.DATABASE_LOST, error=str(error))


async def _leave_as_it_is(_: Connection) -> None: ...


async def listen(
    dsn: str,
    channels: Sequence[str],
    on_notification: Callable[[str, str], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """For ever: `on_notification(channel, payload)` on each notification.

    And once for each channel, without a payload, after each (re)connection, since some may have been missed.

    Notifications are a hint; behind a transaction-pooling proxy there are none, and polling does the same work later.
    So nothing that is wrong with this connection, a refused login included, is more than a warning.
    """
    hosts = Hosts(dsn)
    delay_s = 0.1
    is_listening = True
    while True:
        connection: Connection | None = None
        try:
            connection = await hosts.connect()
            for channel in channels:
                with translated():
                    await connection.add_listener(
                        channel, lambda _, __, named, payload: on_notification(named, str(payload))
                    )
            delay_s = 0.1
            is_listening = True
            for channel in channels:
                on_notification(channel, "")
            gone = asyncio.Event()
            connection.add_termination_listener(lambda _, gone=gone: gone.set())
            while not connection.is_closed():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(gone.wait(), _LISTEN_CHECK_S)
                with translated():
                    await connection.execute("select 1", timeout=_CONNECT_TIMEOUT_S)
        except (DatabaseUnavailable, Refused, DsnError) as error:
            if is_listening:
                is_listening = False
                log.warning(Event.LISTENER_LOST, error=str(error))
            await sleep(delay_s)
            delay_s = min(delay_s * 2, 2.0)
        finally:
            if connection is not None:
                with contextlib.suppress(*FOREIGN):
                    await connection.close(timeout=1)
