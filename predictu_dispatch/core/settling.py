"""Decides how reports are settled again after a settle that failed."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from predictu_dispatch.core.database import DatabaseUnavailable, Refused

REPEATS_MAX: Final = 3
"""Of a statement that the server executed and failed: a deadlock passes, a corrupt row stays."""


class Remedy(StrEnum):
    """What to do with the reports of a settle that failed."""

    REPEAT = "repeat"
    """The same statement, in a moment."""
    ONE_BY_ONE = "one_by_one"
    """One of them may be the cause."""
    APART = "apart"
    """Each alone, in a session of its own, so that the others do not wait for it."""


def remedy(error: Exception, *, reports: int, repeats: int) -> Remedy:
    """Decide after a failed settle of this many reports.

    `repeats` counts its earlier failures in an open session. No list of SQLSTATEs is used: if any
    failure repeats, one report may be the cause.
    """
    if isinstance(error, DatabaseUnavailable):
        if error.without_session:
            return Remedy.REPEAT
        if error.has_timed_out:
            return Remedy.APART
        if repeats < REPEATS_MAX:
            return Remedy.REPEAT
    return Remedy.ONE_BY_ONE if reports > 1 else Remedy.APART


def is_about_content(error: Exception) -> bool:
    """True if the audit cannot store what came from outside, such as a NUL in a header."""
    return isinstance(error, Refused) and (not error.sqlstate or error.sqlstate.startswith("22"))
