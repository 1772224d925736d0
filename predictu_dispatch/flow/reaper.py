"""The reaper puts right what time has put wrong: leases that ran out, deadlines that passed, partitions not made yet.

Every daemon reaps for all: whoever comes first does it, and the fence turns the others away without a trace.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from typing import TYPE_CHECKING

from predictu_dispatch.core.attempt import Attempt
from predictu_dispatch.core.callback import Callback, Evidence, Exchange
from predictu_dispatch.core.lifecycle import outcome_of, policy_of
from predictu_dispatch.core.verdict import Statuses, judge
from predictu_dispatch.flow.loops import run_chore, wait_for_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from predictu_dispatch.core.methods import Lane
    from predictu_dispatch.flow.ports import Observer, Operator, Outbox
    from predictu_dispatch.flow.recorder import Recorder

REAP_INTERVAL_S = 0.5
"""Deadlines of bets are seconds long and half of one more is not felt.

Two index look-ups that find nothing cost nothing.
"""
ENDED_MOST = 20
"""Of one operator, kind and turn: a few milliseconds also where ten operators fail at once; there are many turns."""
_TURN_MIN_S = 0.02
"""Between two turns, so that bets for one operator that is paused cost at most fifty looks a second."""
_SOON_S = 0.1
_PARTITIONS_EVERY_S = 3600.0
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
    ) -> None:
        self._outbox = outbox
        self._recorders = recorders
        self._observer = observer
        self._operators = operators
        self._instance = instance
        self._wake = wake
        self._work = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Something may have to end at once: a bet for an operator that may not be sent anything."""
        self._work.set()

    def wake_soon(self) -> None:
        """Something may have to end: looked at in a moment, together with whatever else comes until then."""
        if self._soon is None or self._soon.when() <= asyncio.get_running_loop().time():
            self._soon = asyncio.get_running_loop().call_later(_SOON_S, self.wake)

    async def run(self) -> None:
        """Reaps for ever; an absent database is asked again at the next turn."""
        loop = asyncio.get_running_loop()
        partitions_due_s = loop.time()
        leases_due_s = loop.time()
        async with asyncio.TaskGroup() as reports:
            while True:
                self._work.clear()
                began_s = loop.time()
                # Each by itself: what one of them stumbles over must not keep the others from everybody else's
                # callbacks.
                await run_chore("expire", self._expire(), self._observer)
                if loop.time() >= leases_due_s:
                    await run_chore("reap_leases", self.reap_leases(reports), self._observer)
                    leases_due_s = loop.time() + REAP_INTERVAL_S
                if loop.time() >= partitions_due_s:
                    await run_chore("prepare_partitions", self._outbox.prepare_partitions(), self._observer)
                    partitions_due_s = loop.time() + _PARTITIONS_EVERY_S
                # As long as the turn took, so that a flood of ends never has the database for itself.
                await asyncio.sleep(max(_TURN_MIN_S, loop.time() - began_s))
                await wait_for_event(self._work, REAP_INTERVAL_S)

    async def reap_leases(self, reports: asyncio.TaskGroup) -> None:
        """Every attempt whose lease ran out gets its audit row, and its policy goes on.

        Not waited for, because the bet of one may be held for long. What is being reported already, by a courier or
        by us, is left to that report: an answer that came says more than that none did.
        """
        for lease in await self._outbox.expired_leases():
            recorder = self._recorders[lease[0].lane]
            if not recorder.is_recording(lease[0]):
                reports.create_task(recorder.record(self._interrupted(*lease)), name="reap")

    async def _expire(self) -> None:
        ended: Counter[str] = Counter()
        for change in await self._outbox.expire(ENDED_MOST):
            ended[change.operator_id] += 1
            self._observer.callback_changed(change)
            if change.lane is not None:
                self._wake(change.lane, 0.0, change.operator_id)
        if ended and max(ended.values()) >= ENDED_MOST:
            self.wake()

    def _interrupted(self, callback: Callback, leased_by: str, reaped_at: datetime) -> Attempt:
        """What is known of an attempt that nobody reported: it began, and the operator may have got it."""
        elapsed_s = (reaped_at - callback.leased_at).total_seconds()
        exchange = Exchange(
            evidence=Evidence.UNANSWERED,
            reason="interrupted",
            error=f"the lease of {leased_by} ran out without a report; reaped by {self._instance}",
            total_ms=elapsed_s * 1000,
        )
        judgement = judge(callback, exchange, _STATUSES, now=reaped_at)
        operator = self._operators().get(callback.operator_id)
        return Attempt(
            callback=callback,
            instance=leased_by,
            finished_at=reaped_at,
            exchange=exchange,
            judgement=judgement,
            outcome=outcome_of(
                callback,
                judgement,
                policy_of(callback.method, operator.settings if operator else None),
                # An interrupted attempt brought no answer, so there is nothing to ask about again.
                recheck_s=0.0,
                elapsed_s=elapsed_s,
                jitter=random.uniform(-1, 1),  # noqa: S311 - spreads retries in time, guards nothing
            ),
            report_id=uuid.uuid4(),
            reaped=True,
        )
