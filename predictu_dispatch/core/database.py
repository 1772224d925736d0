"""What a call to the database may raise."""

from __future__ import annotations

from typing import Final

LOCK_NOT_AVAILABLE: Final = "55P03"
NOTIFICATION_QUEUE_FULL: Final = "54000"
"""Raised by a COMMIT; see sql/functions/dispatch/notify.sql."""
INSUFFICIENT_PRIVILEGE: Final = "42501"
_MEANINGS: Final = {
    "25006": "it is read-only",
    "53100": "its disk is full",
    "53300": "it has no free connection",
    "57P03": "it is starting or stopping",
}
"""What the states of common outages mean."""


class DatabaseUnavailable(Exception):  # noqa: N818 - a state, not a mistake
    """The database did not execute the statement; the same statement may succeed later.

    `sqlstate` and `message` are the server's, if it answered. `without_session` if no session
    could be opened; `has_timed_out` if it ran longer than it may.
    """

    def __init__(
        self,
        description: str,
        *,
        sqlstate: str = "",
        message: str = "",
        without_session: bool = False,
        has_timed_out: bool = False,
    ) -> None:
        super().__init__(description)
        self.sqlstate = sqlstate
        self.message = message
        self.without_session = without_session
        self.has_timed_out = has_timed_out

    @property
    def is_locked(self) -> bool:
        """True if another transaction holds a lock that the statement did not wait for."""
        return self.sqlstate == LOCK_NOT_AVAILABLE


class Refused(Exception):  # noqa: N818 - the database's decision, not a mistake
    """Refused for good; without a `sqlstate` because a parameter could not be encoded."""

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


def describe_outage(error: DatabaseUnavailable) -> str:
    """The outage in words that name no host, user or database; the log has the server's message."""
    if not error.sqlstate:
        return "the database cannot be reached"
    refused = "the login" if error.without_session else "every statement"
    meaning = _MEANINGS.get(error.sqlstate)
    return f"the database refuses {refused} (SQLSTATE {error.sqlstate}{f': {meaning}' if meaning else ''})"


def describe_failure(error: Exception) -> str:
    """The SQLSTATE, or the error's type: enough to find it in the log, and nothing from a row."""
    sqlstate = getattr(error, "sqlstate", "")
    return f"SQLSTATE {sqlstate}" if sqlstate else type(error).__name__


class DsnError(Exception):
    """The DSN cannot be used."""
