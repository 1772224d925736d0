"""The SQLite file, its transactions, and the writer that commits waiting changes together.

`synchronous = full`: the commit is on disk before the answer is sent. With `normal`, a power cut
could lose debits that were answered OK. `begin immediate` takes the write lock before the first
read, so that two copies of a callback cannot both find that it is new.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar, cast

LOCK_WAIT_S = 5.0
"""How long a transaction waits for another process, before the callback is answered 503."""
SCHEMA_VERSION = 1

WAITING_MAX = 1000
"""Changes that may wait. Above that the answer is 503, which Predictu retries."""
BATCH_MAX = 100
"""Changes in one transaction. More would hardly share the wait for the disk any better."""
_T = TypeVar("_T")


class WalletError(Exception):
    """The file is no such database, or a player cannot be created; the message says why."""


class BusyError(Exception):
    """Too many changes are waiting; nothing was done."""


def open_database(file: Path) -> sqlite3.Connection:
    """Returns a connection for one thread at a time. Raises WalletError, sqlite3.Error."""
    sql = sqlite3.connect(file, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        sql.execute("pragma journal_mode = wal")
        sql.execute("pragma synchronous = full")
        sql.execute("pragma foreign_keys = on")
        _check_version(sql, file)
        sql.executescript(Path(__file__).with_name("schema.sql").read_text(encoding="utf-8"))
        sql.execute(f"pragma user_version = {SCHEMA_VERSION}")
    except BaseException:
        sql.close()
        raise
    return sql


def _check_version(sql: sqlite3.Connection, file: Path) -> None:
    version = sql.execute("pragma user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        raise WalletError(f"{file} has schema version {version}; this program needs version {SCHEMA_VERSION}")


@contextmanager
def transaction(sql: sqlite3.Connection) -> Iterator[None]:
    """Commits everything inside to disk, or nothing."""
    sql.execute("begin immediate")
    try:
        yield
        sql.execute("commit")
    except BaseException:
        # Some errors, such as a full disk, end the transaction by themselves.
        if sql.in_transaction:
            sql.execute("rollback")
        raise


@contextmanager
def savepoint(sql: sqlite3.Connection) -> Iterator[None]:
    """Inside a transaction: keeps everything inside, or rolls all of it back."""
    sql.execute("savepoint one")
    try:
        yield
        sql.execute("release one")
    except BaseException:
        try:
            sql.execute("rollback to one")
            sql.execute("release one")
        except sqlite3.Error:
            # If the savepoint cannot be rolled back, the whole transaction is.
            if sql.in_transaction:
                sql.execute("rollback")
        raise


def utc_now() -> str:
    """Returns the current time in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Writer:
    """Runs changes in the order of arrival, on one connection and in one thread.

    Waiting changes are committed in one transaction, so that a slow disk costs one wait for all.
    Each has its own savepoint. A caller gets its result only after the commit.
    """

    def __init__(self, sql: sqlite3.Connection, thread: Executor) -> None:
        self._sql = sql
        self._thread = thread
        self._waiting: deque[tuple[Callable[[], object], asyncio.Future[object]]] = deque()
        self._requested = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def write(self, change: Callable[[], _T]) -> _T:
        """Returns the result after the commit. Raises BusyError, sqlite3.Error or the change's."""
        if len(self._waiting) >= WAITING_MAX:
            raise BusyError(f"{WAITING_MAX} changes are waiting for the wallet's database")
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        self._requested.set()
        return cast("_T", await done)

    async def run(self) -> None:
        """Commits waiting changes until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._requested.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
            if not self._waiting:
                self._requested.clear()
            results = await loop.run_in_executor(self._thread, self._commit, [change for change, _ in batch])
            for (_, done), result in zip(batch, results, strict=True):
                # A cancelled caller does not undo its change.
                if done.done():
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)

    def _commit(self, changes: Sequence[Callable[[], object]]) -> Sequence[object]:
        """Returns each change's result or error, or the transaction's error for every change."""
        try:
            with transaction(self._sql):
                return [self._run(change) for change in changes]
        except Exception as fault:  # noqa: BLE001 # Raised again in each caller.
            return [fault] * len(changes)

    def _run(self, change: Callable[[], object]) -> object:
        try:
            with savepoint(self._sql):
                return change()
        except Exception as fault:  # Raised again in the caller.
            if not self._sql.in_transaction:
                # An error such as a full disk rolled back the whole transaction.
                raise
            return fault
