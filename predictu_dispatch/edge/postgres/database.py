"""A connection pool that recovers from outages by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import structlog
from asyncpg import Connection, Pool
from asyncpg.pool import PoolConnectionProxy

from predictu_dispatch.core.database import DatabaseUnavailable, Refused, describe_outage
from predictu_dispatch.core.events import Event
from predictu_dispatch.edge.postgres.connections import CONNECT_TIMEOUT_S, Hosts
from predictu_dispatch.edge.postgres.errors import (
    FOREIGN,
    translated,
    translated_connect,
    translated_statement,
    was_answered,
)
from predictu_dispatch.edge.postgres.lock_watch import LockWatch
from predictu_dispatch.edge.postgres.migrations import require_schema
from predictu_dispatch.edge.postgres.session import with_settings

_STATEMENTS_CACHED: Final = 100
"""More than the files in sql/queries; asyncpg's default."""
_COMMAND_TIMEOUT_S: Final = 10.0
"""Longer than any of our statements; a connection that is silent for longer counts as lost."""
_RELEASE_TIMEOUT_S: Final = 2.0
"""Time for asyncpg to cancel a running statement; a slower connection is dropped."""
_CLOSE_TIMEOUT_S: Final = 2.0
_IDLE_MAX_S: Final = 60.0
"""A firewall may forget a connection that was silent for longer."""
_REMIND_S: Final = 60.0
"""Outages are logged once in this time for each SQLSTATE: one that comes and goes fills no log."""
_URGENT_CONNECTIONS: Final = 2
"""Connections that only urgent statements may take: one to claim bets, one to settle them."""
log = structlog.get_logger()


@dataclass(slots=True)
class KeptSession:
    """A session that is kept between statements; if several run at once, one session is kept."""

    connection: Connection | None = None
    used_at_s: float = 0.0

    def take(self) -> Connection | None:
        """Return the session, or None if there is none or it may be lost."""
        connection, self.connection = self.connection, None
        if connection is not None and time.monotonic() - self.used_at_s > _IDLE_MAX_S:
            connection.terminate()
        return None if connection is None or connection.is_closed() else connection


class Database:
    """The pool. `outage` says in words why statements do not reach the database, None if they do.

    What a session or a statement is refused after open() is never the end of this process: it
    raises DatabaseUnavailable or Refused, and the caller tries again.
    """

    def __init__(self, dsn: str, *, pool_size: int, application_name: str, through_pooler: bool = False) -> None:
        self._hosts = Hosts(dsn)
        self._pool_size = pool_size
        self._options: dict[str, Any] = {
            "command_timeout": _COMMAND_TIMEOUT_S,
            # Behind a transaction-pooling proxy a statement may run in a session without it.
            "statement_cache_size": 0 if through_pooler else _STATEMENTS_CACHED,
            "server_settings": {"application_name": application_name},
        }
        self.lock_watch = LockWatch(self._hosts, self._options, through_pooler=through_pooler, is_up=lambda: self.is_up)
        self._background_permits = asyncio.Semaphore(max(1, pool_size - _URGENT_CONNECTIONS))
        self._pool: Pool | None = None
        self._kept: list[KeptSession] = []
        self._idle: list[tuple[float, PoolConnectionProxy]] = []
        """Kept out of the pool between statements, each with the monotonic time since when: giving
        back and taking again costs 0.2 ms."""
        self._acquiring = 0
        """Statements that wait for the pool; a connection is given back while there is one."""
        self._is_closing = False
        self.outage: str | None = "the database is not open"
        self._answered_at_s = 0.0
        self._lost_at_s = 0.0
        self._logged_at_s: dict[str, float] = {}
        """When an outage was last logged, by SQLSTATE."""
        self._is_outage_logged = False

    @property
    def is_up(self) -> bool:
        """True while the last statement reached the database."""
        return self.outage is None

    async def open(self) -> None:
        """Check the schema. Raises SchemaError, DatabaseUnavailable, Refused and DsnError."""
        self._pool = await asyncpg.create_pool(
            connect=self._hosts.connect,
            # With a minimum, asyncpg would compete with our statements for connections.
            min_size=0,
            max_size=self._pool_size,
            **self._options,
            # Our statements do not change the session; a reset would cost a round trip each.
            reset=_no_reset,
        )
        with translated():
            async with self._pool.acquire() as connection:
                await require_schema(connection)
        self.outage = None

    async def close(self) -> None:
        """Close all connections, by force if the server does not answer."""
        self._is_closing = True
        for kept in self._kept:
            if (connection := kept.take()) is not None:
                connection.terminate()
        if self._pool is not None:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    while self._idle:
                        await self._pool.release(self._idle.pop()[1])
                    await self._pool.close()
            except FOREIGN:
                self._pool.terminate()

    async def fetch(
        self,
        query: str,
        *args: Any,  # noqa: ANN401 - as varied as SQL's types
        urgent: bool = False,
        unless: Callable[[], bool] = lambda: False,
    ) -> list[Any]:
        """Execute a statement once and return its rows. Raises DatabaseUnavailable and Refused.

        Statements that are not urgent leave connections free for urgent ones: a burst of
        settlements or a slow count must not delay a bet. Nothing is sent if `unless()` is true
        once a connection is free.
        """
        if self._pool is None:
            raise DatabaseUnavailable("the database is not open")
        began_at_s = time.monotonic()
        try:
            if urgent:
                rows = await self._rows(self._pool, query, args, unless)
            else:
                async with self.background_permit():
                    rows = await self._rows(self._pool, query, args, unless)
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # The timeout of releasing a silent connection must not hide the cancellation.
                raise asyncio.CancelledError from error
            self._note_failure(error, began_at_s)
            raise
        self._answered()
        return list(rows)

    def keep_session(self) -> KeptSession:
        """Return a place in which fetch_apart() keeps its session for the next statement."""
        self._kept.append(kept := KeptSession())
        return kept

    async def fetch_apart(
        self,
        query: str,
        *args: Any,  # noqa: ANN401 - as above
        timeout_s: float,
        kept: KeptSession | None = None,
    ) -> list[Any]:
        """Execute a statement in a session of its own, so that a slow one delays no other."""
        began_at_s = time.monotonic()
        try:
            with translated_connect():
                connection = kept.take() if kept is not None else None
                if connection is None:
                    connection = await self._hosts.connect(**self._options)
            with translated_statement():
                try:
                    self.lock_watch.running[connection] = time.monotonic()
                    async with with_settings(connection, keeps_settings=self._hosts.keeps_settings):
                        rows = await connection.fetch(query, *args, timeout=timeout_s)
                    if kept is not None and kept.connection is None and not self._is_closing:
                        kept.connection, kept.used_at_s = connection, time.monotonic()
                finally:
                    self.lock_watch.running.pop(connection, None)
                    if kept is None or kept.connection is not connection:
                        with contextlib.suppress(*FOREIGN):
                            await connection.close(timeout=_CLOSE_TIMEOUT_S)
        except Exception as error:
            self._note_failure(error, began_at_s)
            raise
        self._answered()
        return list(rows)

    @contextlib.asynccontextmanager
    async def background_permit(self) -> AsyncIterator[None]:
        """Wait for a permit for statements that are not urgent; raises DatabaseUnavailable."""
        with translated_connect():
            async with asyncio.timeout(CONNECT_TIMEOUT_S + _COMMAND_TIMEOUT_S):
                await self._background_permits.acquire()
        try:
            yield
        finally:
            self._background_permits.release()

    async def _rows(self, pool: Pool, query: str, args: tuple[Any, ...], unless: Callable[[], bool]) -> list[Any]:
        with translated_connect():
            connection = await self._acquire(pool)
        is_kept = False
        with translated_statement():
            try:
                if unless():
                    rows = []
                else:
                    self.lock_watch.running[connection] = time.monotonic()
                    async with with_settings(connection, keeps_settings=self._hosts.keeps_settings):
                        rows = await connection.fetch(query, *args)
                is_kept = not self._acquiring and not self._is_closing
                return rows
            finally:
                self.lock_watch.running.pop(connection, None)
                if is_kept:
                    self._idle.append((time.monotonic(), connection))
                else:
                    await pool.release(connection, timeout=_RELEASE_TIMEOUT_S)

    async def _acquire(self, pool: Pool) -> PoolConnectionProxy:
        while self._idle:
            since_s, connection = self._idle.pop()
            # The pool has already taken back a connection that was lost meanwhile.
            with contextlib.suppress(asyncpg.InterfaceError):
                if connection.is_closed():
                    await pool.release(connection, timeout=_RELEASE_TIMEOUT_S)
                elif time.monotonic() - since_s > _IDLE_MAX_S:
                    connection.terminate()
                else:
                    return connection
        self._acquiring += 1
        try:
            return await pool.acquire(timeout=CONNECT_TIMEOUT_S)
        finally:
            self._acquiring -= 1

    def _note_failure(self, error: Exception, began_at_s: float) -> None:
        if isinstance(error, Refused):
            if error.sqlstate:
                self._answered()
        elif isinstance(error, DatabaseUnavailable) and not was_answered(error):
            is_slow = error.has_timed_out and self._answered_at_s > began_at_s
            if not is_slow:
                self._lost(error)

    def _answered(self) -> None:
        self._answered_at_s = time.monotonic()
        if self.outage is not None:
            self.outage = None
            if self._is_outage_logged:
                self._is_outage_logged = False
                log.info(Event.DATABASE_RECOVERED, lasted_s=round(self._answered_at_s - self._lost_at_s, 1))

    def _lost(self, error: DatabaseUnavailable) -> None:
        now_s = time.monotonic()
        if self.outage is None:
            self._lost_at_s = now_s
        self.outage = describe_outage(error)
        if now_s - self._logged_at_s.get(error.sqlstate, -_REMIND_S) >= _REMIND_S:
            self._logged_at_s[error.sqlstate] = now_s
            self._is_outage_logged = True
            log.warning(Event.DATABASE_LOST, error=str(error), sqlstate=error.sqlstate or None)


async def _no_reset(_: Connection) -> None: ...
