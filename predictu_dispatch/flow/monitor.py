"""The monitor keeps each operator's circuit and health: it observes every attempt and starts PINGs.

All daemons' monitors write the same rows. A write counts only if the row's revision is still the
one it was decided on, so only one daemon starts a PING that is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from predictu_dispatch.core.breaker import Circuit
from predictu_dispatch.core.fleet import CircuitWrite, OperatorState
from predictu_dispatch.core.lifecycle import Attempt
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.observations import Observations, circuit_write, may_change_circuit
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.loops import run_chore, wait_for_event
from predictu_dispatch.flow.ports import FleetObserver, FleetStore

_POLL_INTERVAL_S = 1.0
_POLL_INTERVAL_MIN_S = 0.02
"""An operator that fails a thousand times a second causes at most fifty polls."""
_PING_DELAY_MAX = 0.1
"""The part of its interval that a healthy operator's PING may be late, up to one poll interval."""
_CONFLICT_DOUBLINGS_MAX = 5
"""After a conflict the shortest pause doubles each time, up to 0.64 s."""


class Monitor:
    """Watches the operators; calls `wake` when what may be sent has changed.

    `check_connection(operator_id)` is called before failures open a circuit that may be our own.
    """

    def __init__(
        self,
        fleet_store: FleetStore,
        admission: Admission,
        observer: FleetObserver,
        *,
        wake: Callable[[], None],
        check_connection: Callable[[str], None],
    ) -> None:
        self._fleet_store = fleet_store
        self._check_connection = check_connection
        self._admission = admission
        self._observer = observer
        self._wake = wake
        self._settings: dict[str, OperatorSettings] = {}
        self._pending: dict[str, Observations] = {}
        self._written_at_s: dict[str, float] = {}
        self._conflicts = 0
        self._poll_requested = asyncio.Event()

    def configure(self, settings: Iterable[OperatorSettings]) -> None:
        self._settings = {one.operator_id: one for one in settings}
        self._poll_requested.set()

    def wake(self) -> None:
        """Poll now, because an operator's row has changed."""
        self._poll_requested.set()

    def observe(self, attempt: Attempt) -> None:
        """Note an attempt that ended; poll now if it may change what is sent."""
        callback = attempt.callback
        operator_id = callback.operator_id
        if (observed := self._pending.get(operator_id)) is None:
            observed = self._pending[operator_id] = Observations()
        now_s = time.monotonic()
        changed_at_s = self._admission.circuit_changed_at_s(operator_id)
        observed.add(attempt, circuit_changed_at_s=changed_at_s, now_s=now_s)
        if attempt.judgement.retry_after_s:
            until_s = now_s + self._backoff_s(operator_id, callback.lane, attempt.judgement.retry_after_s)
            observed.back_off(callback.lane, until_s)
            # At once, before this attempt's slot is free again.
            self._admission.back_off(operator_id, callback.lane, until_s)
        if self._is_urgent(operator_id, observed):
            self._poll_requested.set()

    def _backoff_s(self, operator_id: str, lane: Lane, retry_after_s: float) -> float:
        """Cap Retry-After by max_delay_s: no operator can postpone its own callbacks forever."""
        settings = self._settings.get(operator_id)
        return 0.0 if settings is None else min(retry_after_s, settings.lane(lane).max_delay_s)

    def _is_urgent(self, operator_id: str, observed: Observations) -> bool:
        return may_change_circuit(observed, self._admission.state(operator_id), self._settings.get(operator_id))

    async def run(self) -> None:
        """Poll forever; what could not be written in an outage is written by a later poll."""
        while True:
            self._poll_requested.clear()
            observed, self._pending = self._pending, {}
            pause_s = await run_chore("monitor", self._poll(observed), self._observer)
            if pause_s is None:
                self._keep(observed)
                pause_s = _POLL_INTERVAL_S
            await asyncio.sleep(_POLL_INTERVAL_MIN_S)
            await wait_for_event(self._poll_requested, pause_s)

    async def _poll(self, observed: dict[str, Observations]) -> float:
        """Read all operators, write what follows, and return the time until the next poll."""
        read_at_s = time.monotonic()
        states = await self._fleet_store.operator_states(list(self._settings))
        self._update_admission(states, read_at_s)
        writes, kept = self._decide(states, observed)
        written = await self._fleet_store.write_circuits(list(writes.values())) if writes else set()
        self._written_at_s |= dict.fromkeys(written, read_at_s)
        conflicts = writes.keys() - written
        self._keep(kept | {name: observed[name] for name in conflicts & observed.keys()})
        if written:
            # The rows are read again, to compare further observations with what was written.
            return 0.0
        self._conflicts = self._conflicts + 1 if conflicts else 0
        return self._pause_s(states, conflicts)

    def _update_admission(self, states: Sequence[OperatorState], read_at_s: float) -> None:
        before = {state.operator_id: _sendable(self._admission.state(state.operator_id)) for state in states}
        self._admission.update_states(states, read_at_s=read_at_s)
        self._observer.operators_read(states)
        if any(self._is_urgent(operator_id, observed) for operator_id, observed in self._pending.items()):
            # Observed during the read, and compared with the states before it.
            self._poll_requested.set()
        if any(before[state.operator_id] != _sendable(state) for state in states):
            self._wake()

    def _decide(
        self, states: Sequence[OperatorState], observed: dict[str, Observations]
    ) -> tuple[dict[str, CircuitWrite], dict[str, Observations]]:
        """Return the writes that follow, and the observations that may count later."""
        writes, kept, now_s = {}, {}, time.monotonic()
        for state in states:
            operator_id = state.operator_id
            ours, settings = observed.get(operator_id), self._watched(state)
            write = None
            if settings is not None:
                changed_at_s, reach = (
                    self._admission.circuit_changed_at_s(operator_id),
                    self._admission.reach(operator_id),
                )
                write = circuit_write(
                    state,
                    ours,
                    settings,
                    circuit_changed_at_s=changed_at_s,
                    written_at_s=self._written_at_s.get(operator_id, 0.0),
                    now_s=now_s,
                    reach=reach,
                )
            if write is not None and ours is not None and _opens(state, write) and self._is_doubtful(operator_id, ours):
                self._check_connection(operator_id)
                kept[operator_id] = ours
            elif write is not None:
                writes[operator_id] = write
            elif ours is not None:
                # Attempts that changed nothing are dropped: considered again, an old success would
                # hide failures that another daemon has seen since. A pause decides nothing.
                kept[operator_id] = ours if state.is_paused else ours.without_attempts()
        return writes, kept

    def _is_doubtful(self, operator_id: str, observed: Observations) -> bool:
        reach = self._admission.reach(operator_id)
        return not reach.is_unreachable and observed.may_be_our_path(reach)

    def _pause_s(self, states: Sequence[OperatorState], conflicts: set[str]) -> float:
        """Return the time until the next PING, retry of a conflicting write, or regular poll."""
        due_s = [self._ping_due_in_s(state) for state in states if state.operator_id not in conflicts]
        if conflicts:
            # Another daemon's write ends at once; an open transaction may lock the row for minutes.
            due_s.append(_POLL_INTERVAL_MIN_S * 2 ** min(self._conflicts, _CONFLICT_DOUBLINGS_MAX))
        return min(_POLL_INTERVAL_S, *due_s)

    def _ping_due_in_s(self, state: OperatorState) -> float:
        """Return the time until the poll that starts this operator's next PING.

        An open circuit's PING is exact. The others share a poll: with 500 operators a PING is due
        sixteen times a second, and reading every row each time took a seventh of the throughput.
        """
        settings, breaker = self._watched(state), state.breaker
        if settings is None or breaker.ping_in_s is None or breaker.circuit is Circuit.HALF_OPEN:
            return _POLL_INTERVAL_S
        if breaker.circuit is Circuit.OPEN:
            return max(0.0, breaker.ping_in_s)
        interval_s = settings.health.ping_interval_s
        if interval_s == 0:
            return _POLL_INTERVAL_S
        return max(breaker.ping_in_s, min(_POLL_INTERVAL_S, interval_s * _PING_DELAY_MAX))

    def _watched(self, state: OperatorState) -> OperatorSettings | None:
        """Return the operator's settings; None if it is paused, disabled or not configured."""
        settings = self._settings.get(state.operator_id)
        return None if settings is None or state.is_paused or not settings.enabled else settings

    def _keep(self, observed: dict[str, Observations]) -> None:
        for operator_id, earlier in observed.items():
            self._pending[operator_id] = earlier.then(self._pending.get(operator_id, Observations()))


def _sendable(state: OperatorState | None) -> tuple[bool, Circuit] | None:
    """Return the part of a state that decides what may be sent."""
    return None if state is None else (state.is_paused, state.breaker.circuit)


def _opens(state: OperatorState, write: CircuitWrite) -> bool:
    return state.breaker.circuit is Circuit.CLOSED and write.breaker.circuit is Circuit.OPEN
