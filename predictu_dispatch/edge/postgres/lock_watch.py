"""Finds the sessions that our statements wait for.

Postgres queues for the lock of a DDL statement before it checks the owner. So any login that may
use the schema can stop every statement on a table, and only the end of its session helps. This
names it within seconds, in a session of its own because all others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

import structlog
from asyncpg import Connection
from asyncpg.pool import PoolConnectionProxy

from predictu_dispatch.core.database import DatabaseUnavailable, Refused
from predictu_dispatch.core.events import Event
from predictu_dispatch.edge.postgres.connections import CONNECT_TIMEOUT_S, Hosts
from predictu_dispatch.edge.postgres.errors import FOREIGN, translated_connect, translated_statement
from predictu_dispatch.edge.postgres.session import with_settings
from predictu_dispatch.edge.postgres.sql_files import query

_SLOW_S: Final = 3.0
"""A statement that runs for longer may wait for a lock; most take milliseconds."""
_LOOK_S: Final = 1.0
_OVER_S: Final = 3.0
"""It is over if no statement waits for this long; one that timed out is repeated sooner."""
_OWN_CONNECT_S: Final = 2.0
_OTHER_DATABASE: Final = "postgres"
"""If logins to our own database hang too, because one of its catalogs is locked."""
_REMIND_S: Final = 60.0
_CHANGED_S: Final = 5.0
"""The least time between two log lines, for the same sessions and for others."""

Session: TypeAlias = Connection | PoolConnectionProxy
log = structlog.get_logger()


class Blocker(NamedTuple):
    """A session that holds a lock that we wait for, or waits for it before us.

    The pid is 0 for a prepared transaction, and the login is None if the session has ended.
    """

    pid: int
    login: str | None
    application_name: str | None
    is_waiting: bool
    since: datetime | None

    def described(self) -> str:
        names = [f"login {self.login}"] if self.login else []
        names += [f"application {self.application_name}"] if self.application_name else []
        process = f"process {self.pid} ({', '.join(names)})" if self.pid else "a prepared transaction"
        since = f" since {self.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if self.since else ""
        return f"{process} {'waits for it' if self.is_waiting else 'holds it'}{since}"


class LockWatch:
    """Looks at the statements in `running`, each with the monotonic time of its start."""

    def __init__(
        self, hosts: Hosts, options: Mapping[str, Any], *, through_pooler: bool, is_up: Callable[[], bool]
    ) -> None:
        self.running: dict[Session, float] = {}
        self._hosts = hosts
        self._options = options
        self._through_pooler = through_pooler
        self._is_up = is_up
        self._connection: Connection | None = None
        self._blockers: Sequence[Blocker] = ()
        self._since_s: float | None = None
        self._seen_at_s = 0.0
        self._logged: tuple[Sequence[int], float] = (), 0.0

    def blocked_s(self) -> float:
        """Return for how long statements have been waiting for a lock; 0 if none does."""
        return 0.0 if self._since_s is None else time.monotonic() - self._since_s

    def blocked(self) -> str | None:
        """Return what statements wait for, in words, or None."""
        if self._since_s is None:
            return None
        sessions = "; ".join(one.described() for one in self._blockers)
        return f"statements have been waiting for a lock for {self.blocked_s():.0f} s: {sessions}"

    async def run(self) -> None:
        """Look at intervals, until cancelled."""
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                await self._look()
        finally:
            await self._disconnect()

    async def _look(self) -> None:
        now_s = time.monotonic()
        oldest_s = min(self.running.values(), default=now_s)
        if self._since_s is None and now_s - oldest_s < _SLOW_S:
            await self._disconnect()
            return
        try:
            blockers = await self._ask()
        except (DatabaseUnavailable, Refused):
            # An outage, which the statements themselves report.
            await self._disconnect()
            return
        now_s = time.monotonic()
        if blockers:
            self._blockers, self._seen_at_s = blockers, now_s
            if self._since_s is None:
                self._since_s = oldest_s
            self._log(now_s)
        elif self._since_s is not None and now_s - self._seen_at_s > _OVER_S and self._is_up():
            log.info(Event.DATABASE_UNBLOCKED, lasted_s=round(self._seen_at_s - self._since_s, 1))
            self._since_s, self._logged = None, ((), 0.0)

    def _log(self, now_s: float) -> None:
        pids, (logged_pids, logged_at_s) = [one.pid for one in self._blockers], self._logged
        if not logged_pids or now_s - logged_at_s >= (_REMIND_S if pids == logged_pids else _CHANGED_S):
            self._logged = pids, now_s
            log.error(
                Event.DATABASE_BLOCKED,
                waiting_s=round(self.blocked_s(), 1),
                statements=len(self.running),
                pids=", ".join(map(str, pids)),
                reason=self.blocked(),
            )

    async def _ask(self) -> list[Blocker]:
        if not self.running:
            return []
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        keeps_settings = self._hosts.keeps_settings
        # A pooling proxy gives its own numbers as pids.
        is_direct = keeps_settings and not self._through_pooler
        pids = [session.get_server_pid() for session in self.running] if is_direct else None
        with translated_statement():
            async with with_settings(self._connection, keeps_settings=keeps_settings):
                rows = await self._connection.fetch(query("blockers"), pids, timeout=CONNECT_TIMEOUT_S)
        return [Blocker(*row) for row in rows]

    async def _connect(self) -> Connection:
        with translated_connect():
            try:
                async with asyncio.timeout(_OWN_CONNECT_S):
                    return await self._hosts.connect(**self._options)
            except TimeoutError:
                return await self._hosts.connect(**self._options, database=_OTHER_DATABASE)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(*FOREIGN):
                await connection.close(timeout=1)
