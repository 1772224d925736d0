"""This daemon's health: whether it is ready, and whether only a restart can help.

A restart does not help against a database that is unavailable, overloaded or refuses a claim or a
settle. So the watchdog is notified as long as the loop turns, every dispatcher gets an answer to
its claims and every recorder to its settles, even if the answer is an outage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from predictu_dispatch.core.events import Event
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.dispatcher import Dispatcher
from predictu_dispatch.flow.recorder import Recorder

_CLAIM_AGE_MAX_S = 10.0
"""If the last claim is this much older than the poll interval, the daemon is not ready: a claim
takes milliseconds, and its timeout is 10 s."""
_ANSWER_AGE_MAX_S = 60.0
"""The same for an answer: twice what a statement takes to fail (edge/postgres/database.py)."""
_UNSETTLED_AGE_MAX_S = 10.0
"""A settle takes milliseconds, and its timeout is 10 s: an older answer has met a failure."""
_BEATS_PER_WATCHDOG = 4
"""So that a late beat on an overloaded machine does not matter."""
_BEAT_MAX_S = 5.0
_READY_POLL_S = 0.05

log = structlog.get_logger()


class ServiceManager(Protocol):
    """The service manager that started this process; see edge/systemd.py."""

    @property
    def listens(self) -> bool: ...
    @property
    def watchdog_s(self) -> float | None: ...
    def ready(self) -> None: ...
    def alive(self) -> None: ...
    def status(self, text: str) -> None: ...


class Health:
    """Reads the state of dispatchers, recorders, admission and database; keeps no own figures."""

    def __init__(
        self,
        dispatchers: Collection[Dispatcher],
        recorders: Collection[Recorder],
        admission: Admission,
        *,
        poll_interval_s: float,
        database_outage: Callable[[], str | None],
        database_blocked: Callable[[], str | None],
        heartbeat_failure: Callable[[], str | None],
        is_draining: Callable[[], bool],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dispatchers = dispatchers
        self._recorders = recorders
        self._admission = admission
        self._poll_interval_s = poll_interval_s
        self._database_outage = database_outage
        self._database_blocked = database_blocked
        self._heartbeat_failure = heartbeat_failure
        self._is_draining = is_draining
        self._now_s = now_s
        self._began_at_s = now_s()

    def unready(self) -> str | None:
        """Return why this daemon delivers nothing at the moment, or None."""
        if (outage := self._database_outage()) is not None:
            return outage
        if self._is_draining():
            return "draining"
        if (blocked := self._database_blocked()) is not None:
            return blocked
        for dispatcher in self._dispatchers:
            if dispatcher.failure is not None:
                return dispatcher.failure
        for recorder in self._recorders:
            age_s = recorder.unsettled.held_up_s()
            if age_s > _UNSETTLED_AGE_MAX_S:
                return f"an answer of the {recorder.lane} lane has not been settled for {age_s:.0f} s"
        if not self._admission.has_share():
            failure = self._heartbeat_failure() or "no heartbeat succeeded"
            return f"{failure}, so this daemon has no share of any operator's limits"
        claims_s = [dispatcher.claimed_at_s for dispatcher in self._dispatchers]
        oldest_s = min((claim_s for claim_s in claims_s if claim_s is not None), default=None)
        if oldest_s is None or None in claims_s:
            return "no claim has succeeded yet"
        age_s = self._now_s() - oldest_s
        return f"the last claim was {age_s:.0f} s ago" if age_s > self._poll_interval_s + _CLAIM_AGE_MAX_S else None

    def stuck(self) -> str | None:
        """Return why only a restart can help, or None."""
        if self._is_draining():
            return None  # Nothing is claimed any more, and stopping has its own timeout.
        for dispatcher in self._dispatchers:
            answered_at_s = dispatcher.answered_at_s or self._began_at_s
            age_s = self._now_s() - answered_at_s
            if age_s > self._poll_interval_s + _ANSWER_AGE_MAX_S:
                return f"the claims of the {dispatcher.lane} dispatcher have had no answer for {age_s:.0f} s"
        for recorder in self._recorders:
            age_s = self._now_s() - recorder.progressed_at_s
            if recorder.has_work and age_s > _ANSWER_AGE_MAX_S:
                return f"the settles of the {recorder.lane} recorder have had no answer for {age_s:.0f} s"
        return None

    async def report(self, manager: ServiceManager) -> None:
        """Notify the manager when this daemon is ready, then at intervals unless it is stuck."""
        if not manager.listens:
            return
        while (reason := self.unready()) is not None:
            manager.status(reason)
            await asyncio.sleep(_READY_POLL_S)
        manager.ready()
        beat_s = min(_BEAT_MAX_S, (manager.watchdog_s or _BEAT_MAX_S) / _BEATS_PER_WATCHDOG)
        withheld = False
        while True:
            stuck = self.stuck()
            if stuck is None:
                manager.alive()
            elif not withheld:
                log.error(Event.WATCHDOG_WITHHELD, reason=stuck, restart_in_s=manager.watchdog_s)
            withheld = stuck is not None
            manager.status(stuck or self.unready() or "ready")
            await asyncio.sleep(beat_s)
