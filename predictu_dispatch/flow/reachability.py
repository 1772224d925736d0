"""Notes whether this daemon can connect to each operator, and tries again while it cannot.

core/reach.py decides what follows. report_reach() tells the other daemons, and returns whether they
can connect. It is not called while every connection opens.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from predictu_dispatch.core.breaker import CAUSED_BY_US, Circuit
from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.core.lifecycle import Attempt
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.reach import CONNECTED, Reach
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.courier import NOT_SERVED
from predictu_dispatch.flow.loops import run_chore, wait_for_event
from predictu_dispatch.flow.ports import FleetObserver, FleetStore

_REPORT_INTERVAL_S = 1.0
"""How often the other daemons' reports are read while this daemon fails to connect."""
_REPORT_INTERVAL_MIN_S = 0.02
"""An operator that refuses a thousand connections a second causes at most fifty reports."""


class Reachability:
    """Watches connections; calls `changed` when shares or circuits may change.

    `connect` opens a connection without a request and returns why it failed, or None.
    """

    def __init__(
        self,
        fleet_store: FleetStore,
        admission: Admission,
        observer: FleetObserver,
        *,
        connect: Callable[[str], Awaitable[str | None]],
        changed: Callable[[], None],
    ) -> None:
        self._fleet_store = fleet_store
        self._admission = admission
        self._observer = observer
        self._connect = connect
        self._changed = changed
        self._settings: dict[str, OperatorSettings] = {}
        self._failing: set[str] = set()
        """Operators whose last attempt was not sent; unreachable ones stay until one connects."""
        self._try_at_s: dict[str, float] = {}
        """When to try the next connection; infinite while one is being opened."""
        self._reported: tuple[set[str], dict[str, tuple[int, int]]] = (set(), {})
        self._report_requested = asyncio.Event()
        # A process of the same name before this one may have left a report.
        self._report_requested.set()

    def configure(self, settings: Iterable[OperatorSettings]) -> None:
        self._settings = {one.operator_id: one for one in settings}
        for operator_id in self._failing - self._settings.keys():
            self._recovered(operator_id)

    def observe(self, attempt: Attempt) -> None:
        """Note whether the request of an attempt could be sent."""
        operator_id, evidence = attempt.callback.operator_id, attempt.exchange.evidence
        if evidence is Evidence.ANSWERED:
            if operator_id in self._failing:
                self._recovered(operator_id)
        elif evidence is Evidence.NOT_SENT and attempt.judgement.reason not in CAUSED_BY_US:
            self._failed(attempt)

    def _failed(self, attempt: Attempt) -> None:
        operator_id = attempt.callback.operator_id
        settings, state = self._settings.get(operator_id), self._admission.state(operator_id)
        if settings is None:
            return
        is_closed = state is None or state.breaker.circuit is Circuit.CLOSED
        before = self._admission.reach(operator_id)
        reach = before.after_failure(
            attempt.judgement.reason,
            leased_at_s=attempt.callback.leased_at_s,
            circuit_changed_at_s=self._admission.circuit_changed_at_s(operator_id),
            # The one PING of an open circuit must not fail twice because of this host.
            threshold=settings.circuit.failure_threshold if is_closed else 1,
        )
        self._update(operator_id, reach, before)

    def _update(self, operator_id: str, reach: Reach, before: Reach) -> None:
        self._admission.update_reach(operator_id, reach)
        if reach.is_unreachable and not before.is_unreachable:
            self._observer.operator_unreachable(operator_id, reach)
        if reach.is_unreachable and self._try_at_s.get(operator_id, math.inf) == math.inf:
            self._try_at_s[operator_id] = time.monotonic() + self._settings[operator_id].circuit.open_s
        if reach.failures and (operator_id not in self._failing or reach.is_unreachable):
            self._failing.add(operator_id)
            self._report_requested.set()

    def _recovered(self, operator_id: str) -> None:
        self._failing.discard(operator_id)
        self._try_at_s.pop(operator_id, None)
        if self._admission.reach(operator_id).is_unreachable:
            self._observer.operator_recovered(operator_id)
            self._report_requested.set()
        self._admission.update_reach(operator_id, CONNECTED)

    def check(self, operator_id: str) -> None:
        """Open a connection to this operator soon, unless one is being opened."""
        if operator_id not in self._try_at_s:
            self._try_at_s[operator_id] = time.monotonic()
            self._report_requested.set()

    async def run(self) -> None:
        """Report and try until cancelled; waits for a failure while there is none."""
        async with asyncio.TaskGroup() as tries:
            while True:
                self._report_requested.clear()
                # First, because a try may not wait for the database.
                self._try_due(tries)
                is_reported = await run_chore("report_reach", self._report(), self._observer) is not None
                await asyncio.sleep(_REPORT_INTERVAL_MIN_S)
                if self._failing or self._try_at_s or not is_reported:
                    next_try_s = min(self._try_at_s.values(), default=math.inf) - time.monotonic()
                    await wait_for_event(self._report_requested, max(0.0, min(_REPORT_INTERVAL_S, next_try_s)))
                else:
                    await self._report_requested.wait()

    async def _report(self) -> bool:
        """Report the unreachable operators; read how many other daemons can connect."""
        unreachable = {one for one in self._failing if self._admission.reach(one).is_unreachable}
        peers = await self._fleet_store.report_reach(list(unreachable), list(self._failing))
        counts = {name: (one.connected, one.unconnected) for name, one in peers.items()}
        for operator_id in self._failing & peers.keys():
            reach = replace(self._admission.reach(operator_id), peers=peers[operator_id])
            self._admission.update_reach(operator_id, reach)
        if (unreachable, counts) != self._reported:
            self._reported = (unreachable, counts)
            self._changed()
        return True

    def _try_due(self, tries: asyncio.TaskGroup) -> None:
        now_s = time.monotonic()
        for operator_id in [one for one, at_s in self._try_at_s.items() if now_s >= at_s]:
            self._try_at_s[operator_id] = math.inf
            tries.create_task(self._try(operator_id), name="try to connect")

    async def _try(self, operator_id: str) -> None:
        reason = await self._connect(operator_id)
        settings, before = self._settings.get(operator_id), self._admission.reach(operator_id)
        if settings is None or operator_id not in self._try_at_s:
            return
        if reason == NOT_SERVED or reason in CAUSED_BY_US:
            # This says nothing about the network. check() is called again, or another try follows.
            self._try_at_s.pop(operator_id)
            self._update(operator_id, before, before)
            return
        if reason is None:
            self._recovered(operator_id)
        threshold = settings.circuit.failure_threshold
        self._update(operator_id, before.after_try(reason, now_s=time.monotonic(), threshold=threshold), before)
        self._changed()
