"""Watches the database's clock: reads it, reports steps, and corrects times after a step back.

After a step forward nothing is corrected: retries are sent early, and the reaper waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from predictu_dispatch.core.clock import DatabaseClock
from predictu_dispatch.core.fleet import LatestTimes
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.flow.loops import run_chore
from predictu_dispatch.flow.ports import ClockObserver, ClockStore, Operator

READ_INTERVAL_S = 0.5
_CORRECT_INTERVAL_S = 5.0
"""Interval of the search for times too far ahead, which costs a few index lookups."""
_CORRECT_ALL_FOR_S = 30.0
"""For this long after a start or a step all later times are examined, also those of retries."""
_AHEAD_MIN_S, _AHEAD_MAX_S = 1.0, 1e9


class ClockWatch:
    """Watches until cancelled. `stepped()` follows a step, `wake()` a correction."""

    def __init__(
        self,
        store: ClockStore,
        clock: DatabaseClock,
        observer: ClockObserver,
        operators: Callable[[], Mapping[str, Operator]],
        *,
        stepped: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._observer = observer
        self._operators = operators
        self._stepped = stepped
        self._wake = wake
        self._correct_at_s = float("-inf")

    async def run(self) -> None:
        while True:
            await run_chore("read_clock", self.read(), self._observer)
            if time.monotonic() >= self._correct_at_s:
                self._correct_at_s = time.monotonic() + _CORRECT_INTERVAL_S
                await run_chore("correct_times", self._correct(), self._observer)
            await asyncio.sleep(READ_INTERVAL_S)

    async def read(self) -> None:
        """Read the clock once, and report the steps since the last time."""
        self._clock.observe(await self._store.read_clock())
        self._observer.clock_read(self._clock)
        for step_s in self._clock.take_steps():
            self._observer.clock_stepped(step_s)
            self._stepped()
            self._correct_at_s = float("-inf")

    async def _correct(self) -> None:
        is_recent = self._clock.steady_for_s(time.monotonic()) < _CORRECT_ALL_FOR_S
        latest = [_latest_times(operator.settings) for operator in self._operators().values()]
        corrected = await self._store.correct_times(latest, ahead_s=_AHEAD_MIN_S if is_recent else _AHEAD_MAX_S)
        if corrected:
            self._observer.times_corrected(corrected)
            self._wake()


def _latest_times(settings: OperatorSettings) -> LatestTimes:
    """Return how far ahead this operator's times may be written; see core/lifecycle.py."""
    lanes = settings.interactive, settings.settlement
    return LatestTimes(
        operator_id=settings.operator_id,
        # A rollback in the interactive lane has the settlement lane's delays.
        delay_s=max(settings.rollback.recheck_s, *(lane.max_delay_s * (1 + lane.jitter) for lane in lanes)),
        interactive_backoff_s=settings.interactive.max_delay_s,
        settlement_backoff_s=settings.settlement.max_delay_s,
    )
