"""What a database call may raise.

The Postgres edge translates its driver's and the system's errors into these.
"""

from __future__ import annotations

from typing import Final

LOCK_NOT_AVAILABLE: Final = "55P03"
INSUFFICIENT_PRIVILEGE: Final = "42501"


class DatabaseUnavailable(Exception):  # noqa: N818 - a state, not a mistake
    """The database did not execute the statement; the same statement may succeed later.

    `sqlstate` and `message` are the server's, if it answered.
    """

    def __init__(self, description: str, *, sqlstate: str = "", message: str = "") -> None:
        super().__init__(description)
        self.sqlstate = sqlstate
        self.message = message

    @property
    def is_locked(self) -> bool:
        """True if another transaction holds a lock that the statement did not wait for."""
        return self.sqlstate == LOCK_NOT_AVAILABLE


class Refused(Exception):  # noqa: N818 - the database's decision, not a mistake
    """The database refused the statement; repeating it changes nothing.

    Without a `sqlstate` a parameter could not be encoded.
    """

    def __init__(self, sqlstate: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message} (SQLSTATE {sqlstate})" if sqlstate else message)
        self.sqlstate = sqlstate
        self.message = message
        self.hint = hint

    @property
    def is_for_a_person(self) -> bool:
        """True if one of our functions raised it: show `message` and `hint` as they are."""
        return self.sqlstate.startswith("PD")


class LoginRefused(Refused):
    """The server refused the session itself: login, database name or a parameter of the DSN."""


class DsnError(Exception):
    """The DSN cannot be used."""
