"""How this daemon is: whether it is ready, whether only a new process can help, and telling the service manager.

An absent database, an overloaded one or one that refuses a claim is no reason for a new process: it would find the
same database, and what this one has in flight or still has to settle would be lost to the reaper. So the watchdog is
fed as long as the loop turns and each dispatcher gets an answer to its claims, be it that the database is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

import structlog

from predictu_dispatch.core.events import Event

if TYPE_CHECKING:
    from predictu_dispatch.flow.admission import Admission
    from predictu_dispatch.flow.dispatcher import Dispatcher

_CLAIM_AGE_MAX_S = 30.0
"""A daemon that has not claimed for so long after its poll was due is not ready, whatever the reason."""
_ANSWER_AGE_MAX_S = 60.0
"""The same for an answer: twice what the slowest claim takes to fail, which waits for its turn, for a connection, for
the statement and for giving the connection back; see edge/postgres/database.py."""
_BEATS_EACH_WATCHDOG = 4
"""So that one that comes late, on a machine on its knees, does not matter."""
_BEAT_MAX_S = 5.0
_LOOKS_WHETHER_READY_S = 0.05

log = structlog.get_logger()


class ServiceManager(Protocol):
    """Who started us, and may want to know; edge/systemd.py."""

    @property
    def listens(self) -> bool: ...
    @property
    def watchdog_s(self) -> float | None: ...
    def ready(self) -> None: ...
    def alive(self) -> None: ...
    def status(self, words: str) -> None: ...


class Health:
    """Looks at what it was given, whenever asked; it keeps no figures of its own."""

    def __init__(
        self,
        dispatchers: Collection[Dispatcher],
        admission: Admission,
        *,
        poll_interval_s: float,
        database_is_up: Callable[[], bool],
        is_draining: Callable[[], bool],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dispatchers = dispatchers
        self._admission = admission
        self._poll_interval_s = poll_interval_s
        self._database_is_up = database_is_up
        self._is_draining = is_draining
        self._now_s = now_s
        self._began_at_s = now_s()

    def unready(self) -> str | None:
        """Why nothing is delivered at the moment, in words, or None."""
        if not self._database_is_up():
            return "the database cannot be reached"
        if self._is_draining():
            return "draining"
        if not self._admission.has_share():
            return "this daemon could not announce itself, and so has no share of any operator"
        claims_s = [dispatcher.claimed_at_s for dispatcher in self._dispatchers]
        oldest_s = min((claim_s for claim_s in claims_s if claim_s is not None), default=None)
        if oldest_s is None or None in claims_s:
            return "nothing was claimed yet"
        age_s = self._now_s() - oldest_s
        return f"the last claim was {age_s:.0f} s ago" if age_s > self._poll_interval_s + _CLAIM_AGE_MAX_S else None

    def stuck(self) -> str | None:
        """Why only a new process can help, in words, or None."""
        if self._is_draining():
            return None  # Nothing is claimed any more, and the stop has a timeout of its own.
        for dispatcher in self._dispatchers:
            answered_at_s = dispatcher.answered_at_s or self._began_at_s
            age_s = self._now_s() - answered_at_s
            if age_s > self._poll_interval_s + _ANSWER_AGE_MAX_S:
                return f"the {dispatcher.lane} dispatcher has neither claimed nor failed to for {age_s:.0f} s"
        return None

    async def tell(self, manager: ServiceManager) -> None:
        """For ever: the manager hears that we are ready, once we are, and then that we live, as long as we do."""
        if not manager.listens:
            return
        while (words := self.unready()) is not None:
            manager.status(words)
            await asyncio.sleep(_LOOKS_WHETHER_READY_S)
        manager.ready()
        beat_s = min(_BEAT_MAX_S, (manager.watchdog_s or _BEAT_MAX_S) / _BEATS_EACH_WATCHDOG)
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
