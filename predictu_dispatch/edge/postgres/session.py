"""The session settings that we rely on, whatever the defaults of the database and the role are.

`alter database … set` and `alter role … set` apply to every new session: another isolation level
would let shares exceed their limits, another search_path would call other users' functions. They
are sent when a connection is made. A pooling proxy refuses or drops them, and gives each
transaction another session; then every statement runs in a transaction that sets them itself.

Not here: what only a superuser may set, and `synchronous_commit`, which commit_durably() raises.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

from asyncpg import Connection
from asyncpg.pool import PoolConnectionProxy

SETTINGS: Final[Mapping[str, str]] = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # Our functions have their own timeouts, and our client has one for each statement.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "search_path": "pg_catalog, pg_temp",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "transform_null_equals": "off",
    # Rows of tables that we create must be lockable and movable.
    "default_table_access_method": "heap",
    "plan_cache_mode": "auto",
    "jit": "off",
    # Without these a lookup by key reads a whole table.
    **dict.fromkeys(
        (
            "enable_bitmapscan",
            "enable_hashagg",
            "enable_hashjoin",
            "enable_indexonlyscan",
            "enable_indexscan",
            "enable_mergejoin",
            "enable_nestloop",
            "enable_seqscan",
            "enable_sort",
            "enable_tidscan",
        ),
        "on",
    ),
}
_SINCE_17: Final[Mapping[str, str]] = {"transaction_timeout": "0", "restrict_nonsystem_relation_kind": ""}
"""A server refuses a connection that asks for a setting that it does not know."""
_VERSION_17: Final = 17

_MARK: Final = "predictu_dispatch.session"
"""A setting of our own: a session that has it was made with ours."""
AT_START: Final[Mapping[str, str]] = {**SETTINGS, _MARK: "ours"}
REFUSED_AT_START: Final = frozenset({"08P01", "0A000", "42704"})
"""How proxies refuse settings that they do not know: pgbouncer, RDS Proxy, others."""

_NOTHING: Final = contextlib.nullcontext()


async def keeps_settings(connection: Connection) -> bool:
    """Whether this new connection's session has our settings, and keeps them."""
    try:
        is_ours: bool = await connection.fetchval(f"select pg_catalog.current_setting('{_MARK}', true)") == "ours"
        if is_ours and (later := _since_17(connection)):
            await connection.execute("".join(f"set {name} = '{value}';" for name, value in later.items()))
    except BaseException:
        connection.terminate()
        raise
    return is_ours


@contextlib.asynccontextmanager
async def own_transaction(connection: Connection | PoolConnectionProxy) -> AsyncIterator[None]:
    """A transaction with our settings in any session; it leaves none of them behind."""
    settings = {**SETTINGS, **_since_17(connection)}
    try:
        async with connection.transaction(isolation="read_committed"):
            await connection.execute("set transaction read write, not deferrable;" + _set_local(settings))
            yield
    finally:
        # A rollback that failed must not leave its transaction to the next statement.
        if connection.is_in_transaction():
            connection.terminate()


async def begin_snapshot(connection: Connection, **changed: str) -> None:
    """Begin a read-only transaction with our settings, and those changed, in any session.

    All its statements see one moment. It ends with its connection.
    """
    await connection.transaction(isolation="repeatable_read", readonly=True).start()
    await connection.execute(_set_local({**SETTINGS, **_since_17(connection), **changed}))


def with_settings(
    connection: Connection | PoolConnectionProxy, *, keeps_settings: bool
) -> contextlib.AbstractAsyncContextManager[None]:
    """For one statement: nothing if the session keeps our settings, otherwise own_transaction()."""
    return _NOTHING if keeps_settings else own_transaction(connection)


def _since_17(connection: Connection | PoolConnectionProxy) -> Mapping[str, str]:
    return _SINCE_17 if connection.get_server_version().major >= _VERSION_17 else {}


def _set_local(settings: Mapping[str, str]) -> str:
    return "".join(f"set local {name} = {_quoted(name, value)};" for name, value in settings.items())


def _quoted(name: str, value: str) -> str:
    """As a literal; a list of names must not become one name."""
    return value if name == "search_path" else f"'{value}'"
