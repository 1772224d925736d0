"""The database connection of a command, and the lookup of a callback by its id."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from predictu_dispatch.commands.invocation import EXIT_MISCONFIGURED, EXIT_NO_DATABASE, Invocation, fail
from predictu_dispatch.commands.output import Row, timestamp
from predictu_dispatch.core.database import (
    INSUFFICIENT_PRIVILEGE,
    DatabaseUnavailable,
    DsnError,
    LoginRefused,
    Refused,
)
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database


def dsn_of(invocation: Invocation) -> str:
    """The database's DSN."""
    return invocation.dispatcher().database.dsn.get_secret_value()


@asynccontextmanager
async def database(invocation: Invocation) -> AsyncIterator[Database]:
    """The open database; ends the command if it cannot be reached or has another schema."""
    from predictu_dispatch.edge.postgres.database import Database  # noqa: PLC0415 - loaded only where used

    # `through_pooler`: behind a transaction-pooling proxy, the next command would get a session
    # that already has a prepared statement of the same name.
    opened = Database(
        dsn_of(invocation), pool_size=1, application_name="predictu-dispatch command", through_pooler=True
    )
    with exit_on_database_errors(invocation):
        await opened.open()
        try:
            yield opened
        finally:
            await opened.close()


@contextmanager
def exit_on_database_errors(invocation: Invocation) -> Iterator[None]:
    """End the command on a database error: exit 3 if unreachable, 2 for a bad DSN, 1 otherwise."""
    from predictu_dispatch.edge.config.loader import DSN_VARIABLE  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.postgres.migrations import SchemaError  # noqa: PLC0415

    if os.environ.get(DSN_VARIABLE):
        check = f"check {DSN_VARIABLE} in the environment"
    else:
        check = f"check [database] dsn in {invocation.config}"
    try:
        yield
    except SchemaError as error:
        fail(str(error))
    except DsnError as error:
        fail(f"invalid DSN ({error}); {check}", EXIT_MISCONFIGURED)
    except DatabaseUnavailable as error:
        fail(f"the database can't be reached ({error}); {check}", EXIT_NO_DATABASE)
    except Refused as error:
        if error.sqlstate == INSUFFICIENT_PRIVILEGE:
            fail(f"the database refused: {error.message}; see sql/README.md for the roles")
        if isinstance(error, LoginRefused):
            fail(f"the database refused the login: {error.message}; {check}", EXIT_NO_DATABASE)
        raise


async def the_one(db: Database, rows: Sequence[Row], request_id: UUID, operator: str | None) -> Row:
    """The only row; ends the command if there is none, or if several operators have this id."""
    if len(rows) != 1:
        fail(await why_not_one(db, [row["operator_id"] for row in rows], request_id, operator))
    return rows[0]


async def why_not_one(db: Database, owners: Sequence[str], request_id: UUID, operator: str | None) -> str:
    """Why the id names no single callback: ambiguous, removed by retention, or unknown."""
    if owners:
        return f"several operators have {request_id}; add --operator {' | '.join(owners)}"
    for removed in await db.fetch(query("show_removed"), request_id, operator):
        name = f"{removed['method']} {request_id} of operator {removed['operator_id']}"
        return f"{name} ended {removed['state']}; retention removed it at {timestamp(removed['removed_at'])}"
    if operator is None:
        return f"no callback {request_id}"
    if await is_unknown(db, operator):
        return f"no callback {request_id}: {unknown_operator(operator)}"
    return f"no callback {request_id} of operator {operator}"


async def is_unknown(db: Database, operator: str) -> bool:
    """True if no daemon ever had this operator's file."""
    return operator not in {row["operator_id"] for row in await db.fetch(query("operators"))}


def unknown_operator(operator: str) -> str:
    """The message about such an operator."""
    return f"unknown operator {operator}; predictu-dispatch status lists them"
