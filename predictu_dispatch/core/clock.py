"""The database's clock as this process sees it: since when it runs steadily, and what it says now.

The database's clock decides what is due and which lease is over. A restore, a failover or an
administrator may step it. A reading gives the clock's offset from this process's monotonic clock,
as exactly as the statement was quick. If two readings contradict each other, the clock has stepped.
"""

from __future__ import annotations

from typing import NamedTuple

STEP_MIN_S = 0.25
"""A smaller difference counts as drift. heartbeat() in the database uses the same."""
FOLLOWED_MAX_S = 30.0
"""If the clocks differ by more, tokens use the host's: the database's is more likely wrong."""
_UNREAD_MAX_S = 30.0
"""After a longer time without a reading the clock may have stepped unseen."""


class ClockReading(NamedTuple):
    """The database's Unix time, read between two monotonic times of this process."""

    database_at_s: float
    sent_s: float
    received_s: float


class DatabaseClock:
    """What the readings show. All times without `database` are monotonic seconds."""

    def __init__(self) -> None:
        self._offset_s: tuple[float, float] | None = None
        """The lowest and the highest offset that the last exact reading allows."""
        self._read_at_s = float("-inf")
        self._steady_from_s = float("inf")
        self._stepped_at_s = float("-inf")
        self._steps: list[float] = []

    def observe(self, reading: ClockReading) -> None:
        """Add a reading; the order of readings that overlap does not matter."""
        lowest_s, highest_s = reading.database_at_s - reading.received_s, reading.database_at_s - reading.sent_s
        step_s = self._step_s(lowest_s, highest_s)
        if step_s:
            self._steps.append(step_s)
            self._stepped_at_s = reading.received_s
        if step_s or reading.sent_s - self._read_at_s > _UNREAD_MAX_S:
            self._steady_from_s = reading.received_s
        if self._offset_s is None or step_s or highest_s - lowest_s < self._width_max_s(*self._offset_s):
            self._offset_s = lowest_s, highest_s
        self._read_at_s = max(self._read_at_s, reading.received_s)

    def _step_s(self, lowest_s: float, highest_s: float) -> float:
        if self._offset_s is None:
            return 0.0
        before_lowest_s, before_highest_s = self._offset_s
        if lowest_s > before_highest_s + STEP_MIN_S:
            return lowest_s - before_highest_s
        return highest_s - before_lowest_s if highest_s < before_lowest_s - STEP_MIN_S else 0.0

    def _width_max_s(self, lowest_s: float, highest_s: float) -> float:
        """How inexact a reading may be that replaces this one; over a long distance all are."""
        return max(STEP_MIN_S, 1.5 * (highest_s - lowest_s))

    def take_steps(self) -> list[float]:
        """Return the seconds of each step since the last call; below 0 if it was set back."""
        steps, self._steps = self._steps, []
        return steps

    def steady_for_s(self, now_s: float) -> float:
        """Return for how long the clock is known to be steady; below 0 if it was never read."""
        return now_s - self._steady_from_s

    def stepped_s_ago(self, now_s: float) -> float:
        """Return the time since the last step that was seen; infinity if none was."""
        return now_s - self._stepped_at_s

    def at_s(self, now_s: float) -> float:
        """Return its Unix time; 0 if it was never read."""
        # The lowest that is possible: a token issued in its verifier's future would be refused.
        return 0.0 if self._offset_s is None else self._offset_s[0] + now_s

    def at_arrival_s(self, now_s: float) -> float:
        """Return its Unix time when a statement that is sent now arrives; 0 if it was never read.

        Supposes that the statement takes as long to arrive as the last one that was read.
        """
        return 0.0 if self._offset_s is None else self._offset_s[1] + now_s

    def ahead_of_host_s(self, host_at_s: float, now_s: float) -> float | None:
        """Return by how much it is ahead of the host's Unix time; None if it was never read."""
        return None if self._offset_s is None else self.at_s(now_s) - host_at_s

    def issued_at_s(self, host_at_s: float, now_s: float) -> float:
        """Return the Unix time for a token: the database's, or the host's if they differ much.

        So hosts whose clocks differ by seconds agree on the time of their tokens.
        """
        ahead_s = self.ahead_of_host_s(host_at_s, now_s)
        return host_at_s if ahead_s is None or abs(ahead_s) >= FOLLOWED_MAX_S else self.at_s(now_s)
