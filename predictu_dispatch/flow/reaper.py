"""The reaper ends overdue callbacks and recovers expired leases.

Every daemon ends overdue callbacks; one daemon per interval reaps the leases of all. The lease's
fence ignores a late report.

A lease is reaped only if its owner has certainly stopped sending, whatever the database's clock did
meanwhile: this daemon has seen the clock steady for the lease's full length, or has seen for that
long a lease that begins in the future. Otherwise a debit could arrive after its rollback.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from predictu_dispatch.core.callback import Callback, Evidence, Exchange
from predictu_dispatch.core.claim import Lease
from predictu_dispatch.core.clock import ClockReading, DatabaseClock
from predictu_dispatch.core.lifecycle import Attempt, outcome_of, policy_of
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.verdict import Statuses, judge
from predictu_dispatch.flow.loops import run_chore, wait_for_event
from predictu_dispatch.flow.ports import Observer, Operator, Outbox
from predictu_dispatch.flow.recorder import Recorder

REAP_INTERVAL_S = 0.5
"""Short beside the deadlines of bets, which are seconds; two index lookups that find nothing."""
EXPIRE_MAX = 20
"""Of one operator and kind in a turn: a few milliseconds, also if ten operators fail at once."""
_YIELD_S = 3 * REAP_INTERVAL_S
"""After a turn that left attempts to this daemon's own reports: if it cannot settle, another daemon
gets the chore meanwhile."""
_AHEAD_INTERVAL_S = 5.0
"""Interval of the search for leases that begin in the future, while there are none."""
_TURN_MIN_S = 0.02
"""Bounds the turns per second that bets for a paused operator cause."""
_SOON_S = 0.1
_STATUSES = Statuses.of()


class Reaper:
    """Reaps until cancelled."""

    def __init__(
        self,
        outbox: Outbox,
        recorders: Mapping[Lane, Recorder],
        observer: Observer,
        operators: Callable[[], Mapping[str, Operator]],
        *,
        instance: str,
        wake: Callable[[Lane, float, str], None],
        clock: DatabaseClock,
    ) -> None:
        self._outbox = outbox
        self._recorders = recorders
        self._observer = observer
        self._operators = operators
        self._instance = instance
        self._wake = wake
        self._clock = clock
        self._ahead_since_s: dict[tuple[str, uuid.UUID, int], float] = {}
        """Leases that begin in the future, and when this daemon first saw them."""
        self._ahead_due_s = float("-inf")
        self._work = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        self._work.set()

    def wake_soon(self) -> None:
        """Run a turn in a moment, for all such calls together."""
        if self._soon is None or self._soon.when() <= asyncio.get_running_loop().time():
            self._soon = asyncio.get_running_loop().call_later(_SOON_S, self.wake)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        leases_due_s = loop.time()
        while True:
            self._work.clear()
            began_s = loop.time()
            await run_chore("expire", self._expire(), self._observer)
            if loop.time() >= leases_due_s:
                has_left_any = await run_chore("reap_leases", self.reap_leases(), self._observer)
                leases_due_s = loop.time() + (_YIELD_S if has_left_any else REAP_INTERVAL_S)
            # As long as the turn took, so that many ends do not keep the database busy.
            await asyncio.sleep(max(_TURN_MIN_S, loop.time() - began_s))
            await wait_for_event(self._work, REAP_INTERVAL_S)

    async def reap_leases(self) -> bool:
        """Report every attempt whose lease expired; return whether any was left out.

        They are not awaited, because the bet of one may stay locked for long. An attempt that this
        daemon is recording is left to that report: a late answer says more than none.
        """
        expired = await self._expired_leases()
        steady_for_s = self._clock.steady_for_s(time.monotonic())
        ended = [lease for lease in expired if lease[0].lease_s <= steady_for_s]
        # Another daemon may have seen the clock steady for longer.
        has_left_any = len(ended) < len(expired)
        for callback, lease_owner, reaped_at in (*ended, *await self._ended_leases_ahead()):
            recorder = self._recorders[callback.lane]
            if recorder.is_recording(callback):
                has_left_any = True
            else:
                recorder.record(self._interrupted(callback, lease_owner, reaped_at))
        return has_left_any

    async def _expired_leases(self) -> list[Lease]:
        """The leases that are over by the database's clock, which is read once more."""
        sent_s = time.monotonic()
        expired = await self._outbox.expired_leases(every_s=REAP_INTERVAL_S)
        if expired:
            # It may have stepped since the last reading.
            self._clock.observe(ClockReading(expired[0][2].timestamp(), sent_s, time.monotonic()))
        return expired

    async def _ended_leases_ahead(self) -> list[Lease]:
        """The leases from the future that this daemon has seen for their full length."""
        now_s = time.monotonic()
        if (
            not self._ahead_since_s
            and now_s < self._ahead_due_s
            and self._clock.steady_for_s(now_s) > _AHEAD_INTERVAL_S
        ):
            return []
        ahead = {_key(lease[0]): lease for lease in await self._outbox.leases_ahead()}
        now_s = time.monotonic()
        self._ahead_due_s = now_s + _AHEAD_INTERVAL_S
        self._ahead_since_s = {key: self._ahead_since_s.get(key, now_s) for key in ahead}
        return [lease for key, lease in ahead.items() if now_s - self._ahead_since_s[key] >= lease[0].lease_s]

    async def _expire(self) -> None:
        ended: Counter[str] = Counter()
        for change in await self._outbox.expire(EXPIRE_MAX):
            ended[change.operator_id] += 1
            self._observer.callback_changed(change)
            if change.lane is not None:
                self._wake(change.lane, 0.0, change.operator_id)
        if ended and max(ended.values()) >= EXPIRE_MAX:
            self.wake()

    def _interrupted(self, callback: Callback, lease_owner: str, reaped_at: datetime) -> Attempt:
        """The attempt as far as it is known: it began, and the operator may have received it."""
        elapsed_s = (reaped_at - callback.leased_at).total_seconds()
        if elapsed_s < 0:
            # From the future: it was seen for this long.
            elapsed_s, reaped_at = callback.lease_s, callback.leased_at + timedelta(seconds=callback.lease_s)
        exchange = Exchange(
            evidence=Evidence.UNANSWERED,
            reason="interrupted",
            error=f"the lease of {lease_owner} expired without a report; reaped by {self._instance}",
            total_ms=elapsed_s * 1000,
        )
        judgement = judge(callback, exchange, _STATUSES, now=reaped_at)
        operator = self._operators().get(callback.operator_id)
        return Attempt(
            callback=callback,
            instance=lease_owner,
            finished_at=reaped_at,
            exchange=exchange,
            judgement=judgement,
            outcome=outcome_of(
                callback,
                judgement,
                policy_of(callback.method, operator.settings if operator else None),
                # Only an answer is rechecked, and an interrupted attempt has none.
                recheck_s=0.0,
                elapsed_s=elapsed_s,
                jitter=random.uniform(-1, 1),  # noqa: S311 - spreads retries in time, guards nothing
            ),
            report_id=uuid.uuid4(),
            reaped=True,
        )


def _key(callback: Callback) -> tuple[str, uuid.UUID, int]:
    return callback.operator_id, callback.request_id, callback.attempt
