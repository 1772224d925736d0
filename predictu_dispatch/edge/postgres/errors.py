"""Translates asyncpg's and the system's errors into those of core/database.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from predictu_dispatch.core.database import (
    NOTIFICATION_QUEUE_FULL,
    DatabaseUnavailable,
    DsnError,
    LoginRefused,
    Refused,
)

FOREIGN: Final = (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""Everything that asyncpg's statements and connections raise, except bugs and cancellation."""
_CANCELLED: Final = "57014"
_WHICH_ARGUMENT: Final = re.compile(r"invalid input for query argument \$\d+")


@contextmanager
def translated() -> Iterator[None]:
    """Raise DatabaseUnavailable, Refused or DsnError for asyncpg's and the system's errors."""
    try:
        yield
    except FOREIGN as error:
        raise translate(error) from error


@contextmanager
def translated_connect() -> Iterator[None]:
    """Raise DatabaseUnavailable for whatever opening a session raises: nothing was executed.

    For a process that has started: what is refused now may be allowed in a moment.
    """
    try:
        yield
    except DatabaseUnavailable as error:
        error.without_session = True
        raise
    except Refused as error:
        raise DatabaseUnavailable(
            str(error), sqlstate=error.sqlstate, message=error.message, without_session=True
        ) from error
    except Exception as error:  # asyncpg and ssl raise more than they document
        raise DatabaseUnavailable(_describe(error), without_session=True) from error


@contextmanager
def translated_statement() -> Iterator[None]:
    """Raise DatabaseUnavailable or Refused for what a statement in an open session raises."""
    try:
        yield
    except FOREIGN as error:
        translation = translate(error)
        if isinstance(translation, LoginRefused):
            # The server ended the session; the next one may execute the statement.
            translation = DatabaseUnavailable(
                str(translation), sqlstate=translation.sqlstate, message=translation.message
            )
        elif isinstance(translation, DatabaseUnavailable):
            translation.has_timed_out = isinstance(error, TimeoutError) or translation.sqlstate == _CANCELLED
        raise translation from error


def translate(error: Exception) -> DatabaseUnavailable | Refused | DsnError:
    """The error of ours for one of FOREIGN."""
    if isinstance(error, asyncpg.PostgresError):
        return _translate_answer(error)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return DsnError(_describe(error))
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        # asyncpg quotes the value, which may be personal data.
        named = _WHICH_ARGUMENT.match(str(error))
        return Refused("", named[0] if named else "a parameter could not be encoded")
    return DatabaseUnavailable(_describe(error))


def _translate_answer(error: asyncpg.PostgresError) -> DatabaseUnavailable | Refused:
    sqlstate, message = error.sqlstate or "", error.args[0] if error.args else ""
    if is_unavailable(sqlstate):
        return DatabaseUnavailable(_describe(error), sqlstate=sqlstate, message=message)
    hint = error.as_dict().get("hint") or ""
    ends_session = (
        error.as_dict().get("severity_en") in {"FATAL", "PANIC"}
        # asyncpg raises these before it has read the severity.
        or isinstance(error, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError)
    )
    return (LoginRefused if ends_session else Refused)(sqlstate, message, hint)


def is_unavailable(sqlstate: str) -> bool:
    """True if the same statement may succeed later, so that a command exits with 3.

    Classes of Postgres' appendix A: 08 connection, 40 rollback, 53 resources, 57P shutdown and
    recovery, 58 system error; 25006 is a standby, 54000 a full notification queue, 55P03 a held
    lock, 57014 a cancelled statement. A running daemon repeats everything that is refused, whatever
    the class; see flow/loops.py.
    """
    is_of_a_class = sqlstate[:2] in ("08", "40", "53", "58") or sqlstate[:3] == "57P"
    return is_of_a_class or sqlstate in ("25006", NOTIFICATION_QUEUE_FULL, "55P03", _CANCELLED)


def was_answered(error: DatabaseUnavailable) -> bool:
    """True if the server answered: it cancelled only this statement, or refused its lock."""
    return error.sqlstate in ("55P03", _CANCELLED)


def _describe(error: Exception) -> str:
    """One line for the log; asyncpg's messages name hosts and users, never passwords."""
    text = next(iter(str(error).splitlines()), "")
    if isinstance(error, TimeoutError):
        text = text or "no answer in time"
    elif isinstance(error, FileNotFoundError) and error.filename is None:
        text += " (the server's socket, or a certificate that the DSN names)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
