"""The one writer: changes that wait together are committed together, so that a slow disk costs one wait for them all.

Each change has a savepoint of its own: it happens whole or not at all, whatever becomes of its neighbours. Nobody hears
of a change before the transaction around it is on the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar, cast

from .database import savepoint, transaction

WAITING_MAX = 1000
"""Changes that may wait; above that the answer is an honest 503, which Predictu retries."""

BATCH_MAX = 100
"""Changes in one transaction. The wait for the disk is shared by all of them long before this many."""

_T = TypeVar("_T")


class BusyError(Exception):
    """Too many changes are waiting; nothing was done."""


class Writer:
    """Runs changes on one connection, in one thread, in the order in which they were asked for."""

    def __init__(self, sql: sqlite3.Connection, thread: Executor) -> None:
        self._sql = sql
        self._thread = thread
        self._waiting: deque[tuple[Callable[[], object], asyncio.Future[object]]] = deque()
        self._asked = asyncio.Event()

    async def write(self, change: Callable[[], _T]) -> _T:
        """What the change returned, once it is on the disk. Raises BusyError, sqlite3.Error, or what it raised."""
        if len(self._waiting) >= WAITING_MAX:
            raise BusyError(f"{WAITING_MAX} changes are waiting for the wallet's database")
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        self._asked.set()
        return cast("_T", await done)

    async def run(self) -> None:
        """Commits what is waiting, again and again, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._asked.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
            if not self._waiting:
                self._asked.clear()
            results = await loop.run_in_executor(self._thread, self._commit, [change for change, _ in batch])
            for (_, done), result in zip(batch, results, strict=True):
                # Whoever asked may have gone; the change stands all the same.
                if done.done():
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)

    def _commit(self, changes: Sequence[Callable[[], object]]) -> Sequence[object]:
        """What each change returned or raised; where the transaction itself fails, that failure for every one."""
        try:
            with transaction(self._sql):
                return [self._run(change) for change in changes]
        except Exception as fault:  # noqa: BLE001 # As below.
            return [fault] * len(changes)

    def _run(self, change: Callable[[], object]) -> object:
        try:
            with savepoint(self._sql):
                return change()
        except Exception as fault:  # It is raised again where the change was asked for.
            if not self._sql.in_transaction:
                # A full disk, for one, took the whole transaction back, the neighbours' changes with it.
                raise
            return fault
