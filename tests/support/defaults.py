"""Hostile defaults of a database: what `alter database … set` may hold without a superuser.

With TEST_DEFAULTS="repeatable read" or "serializable" each test's database has them, with this
isolation level: TEST_DEFAULTS=serializable make test ARGS="tests/sql/test_races.py". Our daemons,
commands and functions must not notice. The tests' own producers keep all but what would stop any
client, because their sessions are their own.
"""

import os
from collections.abc import Mapping
from typing import Final

import asyncpg

from predictu_dispatch.edge.postgres.session import AT_START

ISOLATION: Final = os.environ.get("TEST_DEFAULTS", "")
ARE_HOSTILE: Final = ISOLATION != ""

STOPPING: Final[Mapping[str, str]] = {
    "default_transaction_read_only": "on",
    "statement_timeout": "1",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "idle_session_timeout": "1",
}
"""No client could work with these, in milliseconds."""
HOSTILE: Final[Mapping[str, str]] = {
    **STOPPING,
    "default_transaction_isolation": f"'{ISOLATION or 'repeatable read'}'",
    "default_transaction_deferrable": "on",
    # Before pg_catalog, the schema of HIJACK.
    "search_path": "hijack, pg_catalog",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "sql_standard",
    # Days begin at one o'clock there when summer time begins.
    "TimeZone": "'America/Sao_Paulo'",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "synchronous_commit": "off",
    "default_table_access_method": "hijacked_heap",
    "plan_cache_mode": "force_custom_plan",
    "constraint_exclusion": "on",
    "cursor_tuple_fraction": "0",
    "geqo_threshold": "2",
    "from_collapse_limit": "1",
    "join_collapse_limit": "1",
    "work_mem": "'64kB'",
    "temp_buffers": "100",
    "jit": "on",
    "jit_above_cost": "0",
    "client_min_messages": "error",
    **dict.fromkeys(
        (
            "enable_bitmapscan",
            "enable_hashagg",
            "enable_hashjoin",
            "enable_indexonlyscan",
            "enable_indexscan",
            "enable_mergejoin",
            "enable_nestloop",
            "enable_sort",
            "enable_tidscan",
        ),
        "off",
    ),
}
HIJACK: Final = """
create access method hijacked_heap type table handler heap_tableam_handler;
create schema hijack;
grant usage on schema hijack to public;
create function hijack.say() returns text language plpgsql as
    $$ begin raise exception 'somebody else''s function was called'; end $$;
create function hijack.format(text, text) returns text language sql as 'select hijack.say()';
create function hijack.format(text, text, text) returns text language sql as 'select hijack.say()';
create function hijack.format(text, integer) returns text language sql as 'select hijack.say()';
create function hijack.length(text) returns integer language sql as 'select length(hijack.say())';
create function hijack.now() returns timestamptz language sql as 'select hijack.say()::timestamptz';
create function hijack.clock_timestamp() returns timestamptz language sql as 'select hijack.say()::timestamptz';
create function hijack.equal(text, text) returns boolean language sql as 'select hijack.say()::boolean';
create operator hijack.= (leftarg = text, rightarg = text, function = hijack.equal);
create operator hijack.<> (leftarg = text, rightarg = text, function = hijack.equal);
"""
"""What a producer with CREATE on a schema could put into the way of unqualified names."""


async def make_hostile(connection: "asyncpg.Connection[asyncpg.Record]", name: str, **changed: str) -> None:
    """Gives the database called `name`, to which this superuser is connected, hostile defaults."""
    await connection.execute(HIJACK)
    for setting, value in {**HOSTILE, **changed}.items():
        await connection.execute(f"alter database {name} set {setting} = {value}")


def of_the_tests(dsn: str) -> dict[str, str]:
    """The settings with which a test connects: those of our daemons, none for a producer."""
    if "test_producer" not in dsn:
        # The tests create tables of their own, and read names as text.
        return {**AT_START, "search_path": "public", "quote_all_identifiers": "off"}
    return {name: AT_START[name] for name in STOPPING}
