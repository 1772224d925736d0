"""Decides which loops run early when something changed: a callback became due, or a limit moved."""

from __future__ import annotations

from collections.abc import Mapping

from predictu_dispatch.core.methods import Lane
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.dispatcher import Dispatcher
from predictu_dispatch.flow.monitor import Monitor
from predictu_dispatch.flow.reaper import Reaper

WORK_CHANNEL = "predictu_dispatch_due"
OPERATOR_CHANNEL = "predictu_dispatch_operator"


class Wakeups:
    """Wakes dispatchers, reaper and monitor; `connect()` gives it these after they are made."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def connect(self, dispatchers: Mapping[Lane, Dispatcher], reaper: Reaper, monitor: Monitor) -> None:
        self._dispatchers = dispatchers
        self._reaper = reaper
        self._monitor = monitor

    def callback_due(self, lane: Lane, delay_s: float, operator_id: str) -> None:
        self._dispatchers[lane].wake(delay_s, operator_id)
        if lane is Lane.INTERACTIVE and self._admission.blocks_any_bets():
            # A bet that was in flight when the circuit opened ends instead of being retried.
            self._reaper.wake()

    def limits_changed(self) -> None:
        """This daemon's shares changed, or an operator was paused, resumed or its circuit moved."""
        for dispatcher in self._dispatchers.values():
            dispatcher.wake()
        # Bets that may not be sent end instead.
        self._reaper.wake()

    def on_notification(self, channel: str, payload: str) -> None:
        """A producer or a daemon enqueued something, or an operator's row changed."""
        if channel == OPERATOR_CHANNEL:
            self._monitor.wake()
            return
        operator_id, _, behind = payload.partition(" ")
        self._dispatchers[Lane.INTERACTIVE].on_work_notification(is_behind=bool(behind))
        if self._admission.blocks_bets(operator_id):
            self._reaper.wake()
        elif self._admission.blocks_any_bets():
            # One notification may stand for several operators; see notify_due().
            self._reaper.wake_soon()
