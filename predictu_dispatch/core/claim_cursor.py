"""How far each operator's lane has been read: a claim goes on from there, as long as that finds all that is due.

What was claimed leaves its entries at the head of the index until Postgres may clear them away, which it may not while
anybody holds an old snapshot open; a claim from the start would walk over all of them, each time. What became due
behind the mark (a producer's transaction that was open for longer than the margin, a row that somebody held) is found
by a reading from the start, which comes now and then, and the less often the longer it takes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from predictu_dispatch.core.callback import Callback

_MARGIN = timedelta(seconds=1)
"""Between the moment in a row, which is that of its enqueueing, and its commit; most transactions take milliseconds."""
_FROM_START_EVERY_S = 1.0
_FROM_START_EVERY_MAX_S = 10.0
_FROM_START_LOAD = 0.02
"""The part of the time that reading from the start may take."""


class ClaimCursor:
    """One dispatcher's marks, by operator; moments are the database's, spans and `now_s` this process's."""

    def __init__(self) -> None:
        self._marks: dict[str, datetime] = {}
        self._from_start_at_s = float("-inf")

    def look_back(self) -> None:
        """The next claim reads from the start."""
        self._from_start_at_s = float("-inf")

    def begin(self, now_s: float) -> bool:
        """True where the claim that begins now reads from the start."""
        if now_s < self._from_start_at_s:
            return False
        self._from_start_at_s = float("inf")
        return True

    def due_from(self, operator_id: str) -> datetime | None:
        """From where on a claim that does not read from the start does so."""
        mark = self._marks.get(operator_id)
        return None if mark is None else mark - _MARGIN

    def read(self, claimed: Iterable[Callback]) -> None:
        """These came: the oldest that were due, so what is left is due no earlier."""
        for callback in claimed:
            mark = self._marks.get(callback.operator_id)
            if mark is None or callback.due_at > mark:
                self._marks[callback.operator_id] = callback.due_at

    def ended(self, now_s: float, took_s: float) -> None:
        """A claim that read from the start took so long."""
        pause_s = min(max(_FROM_START_EVERY_S, took_s / _FROM_START_LOAD), _FROM_START_EVERY_MAX_S)
        # Unless it was asked for again meanwhile.
        if self._from_start_at_s == float("inf"):
            self._from_start_at_s = now_s + pause_s
