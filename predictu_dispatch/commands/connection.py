"""One database connection for a command, or exit code 3 with one line that says what could not be reached."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_NO_DATABASE, Invocation
from predictu_dispatch.core.database_errors import (
    INSUFFICIENT_PRIVILEGE,
    DatabaseUnavailable,
    DsnError,
    LoginRefused,
    Refused,
)

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database


def dsn_of(invocation: Invocation) -> str:
    """The database's DSN.

    The operators' files are not read, so that a fault in one never hides a bet from the support desk.
    """
    from predictu_dispatch.edge.config.dispatcher_file import read_dispatcher  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415 - loaded only where used

    try:
        return read_dispatcher(invocation.config, os.environ).database.dsn.get_secret_value()
    except ConfigError as error:
        invocation.refuse(error)


@asynccontextmanager
async def database(invocation: Invocation) -> AsyncIterator[Database]:
    """The database for one command; ends the command where it can't be reached or has another schema."""
    from predictu_dispatch.edge.postgres.database import Database  # noqa: PLC0415 - loaded only where used

    # A command says each statement once or twice, so keeping it prepared gains nothing; and where the DSN leads through
    # a transaction-pooling proxy, the next command would get a session in which the same name is taken.
    opened = Database(
        dsn_of(invocation), pool_size=1, application_name="predictu-dispatch command", through_pooler=True
    )
    with reported_outages(invocation):
        await opened.open()
        try:
            yield opened
        finally:
            await opened.close()


@contextmanager
def reported_outages(invocation: Invocation) -> Iterator[None]:
    """Ends the command where the database cannot be worked with.

    With exit code 3 where it is away or lets us not in, 2 where the DSN makes no sense, and 1 where its schema or our
    rights do not fit.
    """
    from predictu_dispatch.edge.config.dispatcher_file import DSN_VARIABLE  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.postgres.migrations import SchemaError  # noqa: PLC0415

    in_file = f"[database] dsn in {invocation.config}"
    look = f"look at {f'{DSN_VARIABLE} in the environment' if os.environ.get(DSN_VARIABLE) else in_file}"
    try:
        yield
    except SchemaError as error:
        _end(EXIT_FAILED, str(error))
    except DsnError as error:
        _end(EXIT_MISCONFIGURED, f"the DSN cannot be used ({error}); {look}")
    except DatabaseUnavailable as error:
        _end(EXIT_NO_DATABASE, f"the database can't be reached ({error}); {look}")
    except Refused as error:
        if error.sqlstate == INSUFFICIENT_PRIVILEGE:
            _end(EXIT_FAILED, f"the database refused: {error.message}; see sql/README.md for the roles")
        if isinstance(error, LoginRefused):
            _end(EXIT_NO_DATABASE, f"the database refused: {error.message}; {look}")
        raise


def _end(code: int, message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)
