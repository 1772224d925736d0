"""The SQLite file: opened with the schema in place, and written in transactions that happen whole or not at all.

`synchronous = full`: an answer promises that the money is booked, so the commit is on the disk before the answer goes.
With `normal` a power cut could take back the last debits although they were answered OK. `begin immediate` takes the
one write lock before the first read, so two copies of a callback can't both find that it was never seen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

LOCK_WAIT_S = 5.0
"""How long a transaction waits for another process on the same file, before the callback is answered 503."""

SCHEMA_VERSION = 1


class WalletError(Exception):
    """The file can't be this wallet's database, or a player can't be created; the message says why."""


def open_database(file: Path) -> sqlite3.Connection:
    """A connection for one thread at a time, the schema in place. Raises WalletError, sqlite3.Error."""
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
        raise WalletError(f"{file} has schema version {version}, this code knows {SCHEMA_VERSION}")


@contextmanager
def transaction(sql: sqlite3.Connection) -> Iterator[None]:
    """Everything inside happens, and is on the disk, or nothing happens."""
    sql.execute("begin immediate")
    try:
        yield
        sql.execute("commit")
    except BaseException:
        # Some errors, a full disk for one, end the transaction by themselves.
        if sql.in_transaction:
            sql.execute("rollback")
        raise


@contextmanager
def savepoint(sql: sqlite3.Connection) -> Iterator[None]:
    """Inside a transaction: everything inside happens with it, or nothing of it."""
    sql.execute("savepoint one")
    try:
        yield
        sql.execute("release one")
    except BaseException:
        try:
            sql.execute("rollback to one")
            sql.execute("release one")
        except sqlite3.Error:
            # What can't be taken back alone is taken back with the whole transaction.
            if sql.in_transaction:
                sql.execute("rollback")
        raise


def utc_now() -> str:
    """This moment in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
