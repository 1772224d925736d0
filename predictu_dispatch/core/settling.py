"""Decides what becomes of reports that could not be settled."""

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
    """One of them may be at fault."""
    SET_ASIDE = "set_aside"
    """Beside the lane, each by itself: only these wait."""


def remedy(error: Exception, *, reports: int, repeats: int) -> Remedy:
    """Decide after a settle of so many reports that has failed in a session `repeats` times before.

    Nothing depends on a list of SQLSTATEs: whatever repeats itself, one report may be the cause.
    """
    if isinstance(error, DatabaseUnavailable):
        if error.without_session:
            return Remedy.REPEAT
        if error.has_timed_out:
            return Remedy.SET_ASIDE
        if repeats < REPEATS_MAX:
            return Remedy.REPEAT
    return Remedy.ONE_BY_ONE if reports > 1 else Remedy.SET_ASIDE


def is_about_content(error: Exception) -> bool:
    """True if the audit cannot store what came from outside, such as a NUL in a header."""
    return isinstance(error, Refused) and (not error.sqlstate or error.sqlstate.startswith("22"))
