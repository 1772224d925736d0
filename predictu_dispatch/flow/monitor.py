"""The monitor keeps each operator's circuit and health: it hears of every attempt, pings, and asks core/breaker.py.

Every daemon has one and all write the same rows; the row's revision makes sure that each decision was made on what
really was there, and that of all daemons one starts the PING that is due.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from predictu_dispatch.core.breaker import AttemptSummary, Breaker, Circuit, Ping, Policy, decide, is_at_rest
from predictu_dispatch.core.fleet import CircuitWrite, OperatorState
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.flow.loops import run_chore, wait_for_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from predictu_dispatch.core.attempt import Attempt
    from predictu_dispatch.core.operator_settings import OperatorSettings
    from predictu_dispatch.flow.admission import Admission
    from predictu_dispatch.flow.ports import FleetObserver, FleetStore

_LOOKS_EVERY_S = 1.0
_TURN_MIN_S = 0.02
"""Between two turns, so that an operator that fails a thousand times a second costs the database fifty statements."""
_PING_LATE = 0.1
"""By so much of its interval, and at most until the next look, the PING of an operator that is well may be late."""
_REFUSED_DOUBLINGS_MAX = 5
"""Of the pause after a write that was refused: then it is more than half a second, and grows no more."""
_SUCCESS_TOLD_EVERY_S = 5.0
"""`last_success_at` of an operator that is well need not be exact, and each telling writes its row."""
_NOTHING = AttemptSummary()


@dataclass(slots=True)
class _Notes:
    """What was heard of one operator and not told yet; times are monotonic seconds of this process."""

    tally: AttemptSummary = field(default_factory=AttemptSummary)
    leased_from_s: float = math.inf
    """When the first attempt of the tally was leased."""
    success_at_s: float | None = None
    failure_at_s: float | None = None
    backoff_until_s: dict[Lane, float] = field(default_factory=dict)
    ping: tuple[UUID, Ping] | None = None

    def then(self, later: _Notes) -> _Notes:
        """Both, in this order."""
        return _Notes(
            tally=self.tally.then(later.tally),
            leased_from_s=min(self.leased_from_s, later.leased_from_s),
            success_at_s=later.success_at_s or self.success_at_s,
            failure_at_s=later.failure_at_s or self.failure_at_s,
            backoff_until_s=_latest(self.backoff_until_s, later.backoff_until_s),
            ping=later.ping or self.ping,
        )

    def without_tally(self) -> _Notes:
        """What is left once the tally and the PING have been weighed: the times, which may be told later."""
        return replace(self, tally=AttemptSummary(), leased_from_s=math.inf, ping=None)


class Monitor:
    """Watches over the operators. `wake` is called when what may be sent has changed."""

    def __init__(
        self,
        fleet_store: FleetStore,
        admission: Admission,
        observer: FleetObserver,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._fleet_store = fleet_store
        self._admission = admission
        self._observer = observer
        self._wake = wake
        self._settings: dict[str, OperatorSettings] = {}
        self._notes: dict[str, _Notes] = {}
        self._told_at_s: dict[str, float] = {}
        self._refused_turns = 0
        self._news = asyncio.Event()

    def configure(self, settings: Iterable[OperatorSettings]) -> None:
        """These are the operators from now on."""
        self._settings = {one.operator_id: one for one in settings}
        self._news.set()

    def wake(self) -> None:
        """Somebody has changed an operator's row."""
        self._news.set()

    def observe(self, attempt: Attempt) -> None:
        """An attempt has ended so; what it taught is told to the fleet, at once where it may change something."""
        callback, judgement = attempt.callback, attempt.judgement
        if (notes := self._notes.get(callback.operator_id)) is None:
            notes = self._notes[callback.operator_id] = _Notes()
        taught = _NOTHING.with_attempt(judgement)
        if callback.leased_at_s >= self._admission.circuit_changed_at_s(callback.operator_id):
            # What was sent before the circuit opened and hung until after it closed again says nothing of now.
            notes.tally = notes.tally.then(taught)
            notes.leased_from_s = min(notes.leased_from_s, callback.leased_at_s)
        now_s = time.monotonic()
        if taught.succeeded:
            notes.success_at_s = now_s
        elif taught.failed:
            notes.failure_at_s = now_s
        if judgement.retry_after_s:
            until_s = now_s + self._backoff_s(callback.operator_id, callback.lane, judgement.retry_after_s)
            notes.backoff_until_s = _latest(notes.backoff_until_s, {callback.lane: until_s})
            # Here at once, before this attempt's slot is free again; the others hear of it through the database.
            self._admission.back_off(callback.operator_id, callback.lane, until_s)
        if callback.method is Method.PING and taught != _NOTHING:
            notes.ping = (callback.request_id, Ping.ANSWERED if taught.succeeded else Ping.FAILED)
        if self._is_news(callback.operator_id, notes):
            self._news.set()

    def _backoff_s(self, operator_id: str, lane: Lane, retry_after_s: float) -> float:
        """Capped by max_delay_s: no operator can put its own callbacks off for ever. Source: DESIGN.md 11."""
        settings = self._settings.get(operator_id)
        if settings is None:
            return 0.0
        return min(retry_after_s, settings.lane(lane).max_delay_s)

    def _is_news(self, operator_id: str, notes: _Notes) -> bool:
        state, settings = self._admission.state(operator_id), self._settings.get(operator_id)
        if state is None or settings is None or notes.backoff_until_s:
            return True
        if notes.ping is not None and state.breaker.circuit is not Circuit.CLOSED:
            # It decides; of a closed circuit it is one more attempt.
            return True
        failures_before = 0 if notes.tally.succeeded else state.breaker.consecutive_failures
        is_recovering = notes.tally.succeeded and state.breaker.consecutive_failures > 0
        return is_recovering or failures_before + notes.tally.failures >= settings.circuit.failure_threshold

    async def run(self) -> None:
        """Looks, decides and writes for ever; an absent database is asked again at the next turn."""
        while True:
            self._news.clear()
            heard, self._notes = self._notes, {}
            pause_s = await run_chore("monitor", self._turn(heard), self._observer)
            if pause_s is None:
                # What was heard is told at the next turn.
                self._keep(heard)
                pause_s = _LOOKS_EVERY_S
            await asyncio.sleep(_TURN_MIN_S)
            await wait_for_event(self._news, pause_s)

    async def _turn(self, heard: dict[str, _Notes]) -> float:
        """One look at all operators; seconds until the next one is needed."""
        asked_at_s = time.monotonic()
        states = await self._fleet_store.operator_states(list(self._settings))
        was_allowed = {state.operator_id: _allows(self._admission.state(state.operator_id)) for state in states}
        self._admission.update_states(states, read_at_s=asked_at_s)
        self._observer.operators_read(states)
        if any(self._is_news(operator_id, notes) for operator_id, notes in self._notes.items()):
            # Heard while we asked, and held against what we knew before.
            self._news.set()
        if any(was_allowed[state.operator_id] != _allows(state) for state in states):
            self._wake()
        writes = {}
        for state in states:
            notes = heard.get(state.operator_id)
            write = self._decided(state, notes)
            if write is not None:
                writes[state.operator_id] = write
            elif notes is not None:
                # While paused nothing is decided, and it counts later. Else it was weighed and changed nothing; weighed
                # once more, an old success would wipe out what another daemon has seen fail since.
                self._keep({state.operator_id: notes if state.is_paused else notes.without_tally()})
        written = await self._fleet_store.write_circuits(list(writes.values())) if writes else set()
        for operator_id in writes:
            if operator_id in written:
                self._told_at_s[operator_id] = asked_at_s
            else:
                self._keep({operator_id: heard.get(operator_id, _Notes())})
        if written:
            # What was written is read before anything else, so that what is heard next is held against it.
            return 0.0
        refused = writes.keys() - written
        self._refused_turns = self._refused_turns + 1 if refused else 0
        # Another daemon's write is over at once; somebody's open transaction may hold the row for minutes.
        again_s = _TURN_MIN_S * 2 ** min(self._refused_turns, _REFUSED_DOUBLINGS_MAX) if refused else _LOOKS_EVERY_S
        due_s = (self._ping_due_in_s(state) for state in states if state.operator_id not in refused)
        return min(again_s, _LOOKS_EVERY_S, *due_s)

    def _ping_due_in_s(self, state: OperatorState) -> float:
        settings, breaker = self._watched(state), state.breaker
        if settings is None or breaker.ping_in_s is None or breaker.circuit is Circuit.HALF_OPEN:
            return _LOOKS_EVERY_S
        if breaker.circuit is Circuit.OPEN:
            return max(0.0, breaker.ping_in_s)
        interval_s = settings.health.ping_interval_s
        if interval_s == 0:
            return _LOOKS_EVERY_S
        # Nobody waits for it: the PINGs of hundreds of operators, each on its moment, would be a look for each.
        return max(breaker.ping_in_s, min(_LOOKS_EVERY_S, interval_s * _PING_LATE))

    def _watched(self, state: OperatorState) -> OperatorSettings | None:
        """The operator's settings; None where it stays as it is: paused, disabled, or no longer ours."""
        settings = self._settings.get(state.operator_id)
        return None if settings is None or state.is_paused or not settings.enabled else settings

    def _decided(self, state: OperatorState, notes: _Notes | None) -> CircuitWrite | None:
        """What is to be written of one operator; None where nothing is worth it."""
        settings = self._watched(state)
        if settings is None:
            return None
        if notes is None:
            # As of most of hundreds of operators.
            if is_at_rest(state.breaker, settings.health.ping_interval_s):
                return None
            notes = _Notes()
        seen = state.breaker
        if notes.ping is not None and notes.ping[0] == state.ping_request_id:
            seen = replace(seen, ping=notes.ping[1])
        policy = Policy(
            failure_threshold=settings.circuit.failure_threshold,
            open_s=settings.circuit.open_s,
            ping_interval_s=settings.health.ping_interval_s,
        )
        # Once more against what is known now: a daemon that stood still has missed that the circuit opened and closed.
        is_of_now = notes.leased_from_s >= self._admission.circuit_changed_at_s(state.operator_id)
        breaker = decide(seen, notes.tally if is_of_now else AttemptSummary(), policy)
        now_s = time.monotonic()
        is_stale = now_s - self._told_at_s.get(state.operator_id, 0.0) >= _SUCCESS_TOLD_EVERY_S
        was_heard = notes.success_at_s is not None or notes.failure_at_s is not None
        if not (
            breaker.starts_ping or _differs(breaker, state.breaker) or notes.backoff_until_s or (is_stale and was_heard)
        ):
            return None
        return CircuitWrite(
            operator_id=state.operator_id,
            revision=state.revision,
            breaker=breaker,
            success_s_ago=None if notes.success_at_s is None else now_s - notes.success_at_s,
            failure_s_ago=None if notes.failure_at_s is None else now_s - notes.failure_at_s,
            interactive_backoff_s=_left_s(notes, Lane.INTERACTIVE, now_s),
            settlement_backoff_s=_left_s(notes, Lane.SETTLEMENT, now_s),
        )

    def _keep(self, heard: dict[str, _Notes]) -> None:
        for operator_id, notes in heard.items():
            self._notes[operator_id] = notes.then(self._notes.get(operator_id, _Notes()))


def _allows(state: OperatorState | None) -> tuple[bool, Circuit] | None:
    return None if state is None else (state.is_paused, state.breaker.circuit)


def _differs(breaker: Breaker, seen: Breaker) -> bool:
    """True where it is more than the passing of time that tells them apart."""
    return (breaker.circuit, breaker.consecutive_failures, breaker.health, breaker.ping_in_s) != (
        seen.circuit,
        seen.consecutive_failures,
        seen.health,
        seen.ping_in_s,
    )


def _latest(one: dict[Lane, float], other: dict[Lane, float]) -> dict[Lane, float]:
    """Of each lane the later moment: an operator that asked for a minute and then for a second gets its minute."""
    return {lane: max(one.get(lane, -math.inf), other.get(lane, -math.inf)) for lane in one.keys() | other.keys()}


def _left_s(notes: _Notes, lane: Lane, now_s: float) -> float | None:
    until_s = notes.backoff_until_s.get(lane)
    return None if until_s is None else max(0.0, until_s - now_s)
