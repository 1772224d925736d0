"""The admission: how many callbacks of an operator's lane this daemon may send right now.

Both dispatchers ask here before each claim. What narrows a gate: this daemon's share of the slots, the circuit, a
pause, a Retry-After, the slow start after an outage, and the rate, which the interactive lane has first. The claim
itself looks at circuit, pause and holds once more, in the database; here they are known early, so they cost nothing.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from predictu_dispatch.core.breaker import Circuit, slow_start
from predictu_dispatch.core.fleet import SHARE_VALID_S, OperatorState, Share, Usage
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.rate_limit import Pace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from predictu_dispatch.core.operator_settings import OperatorSettings

_NEVER_S = float("-inf")
_BETS_ABOUT_S = 1.0
"""For so long after the last bet settlements step back: each of their transactions, and each burst of starts, costs the
disk and the cores that the next bet needs, and nobody waits for one."""
_GATHER_S = 0.025
_SPACING_S = 0.003
_SPACING_BETS = 0.6
"""Between the starts of two settlements there are so many seconds, or so many bets, whichever is less: each bet ends
with one, so settlements must be able to be faster than bets."""
_CLAIM_S = 0.02
"""About as long as a claim takes on a busy database."""


@dataclass(slots=True, kw_only=True)
class _OperatorAdmission:
    """One operator's; times are monotonic seconds of this process."""

    settings: OperatorSettings
    is_configured: bool = True
    """False once its file is gone: nothing more is sent to it, and what is under way still counts."""
    share: Share | None = None
    share_until_s: float = _NEVER_S
    state: OperatorState | None = None
    state_at_s: float = _NEVER_S
    backoff_until_s: dict[Lane, float] = field(default_factory=dict)
    """Until when the operator asked this very daemon to leave the lane alone."""
    pace: Pace | None = None
    in_flight: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    asked: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    """What a claim that is under way may bring: it takes slots and rate as if it had come already."""
    bets_want_more: bool = False
    """True while the rate, and nothing else, keeps interactive callbacks waiting: then settlements take none of it."""


class Admission:
    """Every operator's gate. Nothing here awaits, so what is asked and taken in one breath cannot change in between."""

    def __init__(self, settings: Iterable[OperatorSettings]) -> None:
        self._admission: dict[str, _OperatorAdmission] = {}
        self._is_draining = False
        self._bets_at_s = _NEVER_S
        self._bets_since_s = _NEVER_S
        self._bets_counted = 0
        self._bets_per_s = 0.0
        self.configure(settings)

    def configure(self, settings: Iterable[OperatorSettings]) -> None:
        """These are the operators from now on; what is known of those that stay is kept."""
        for gate in self._admission.values():
            gate.is_configured = False
        for one in settings:
            gate = self._admission.setdefault(one.operator_id, _OperatorAdmission(settings=one))
            gate.settings, gate.is_configured = one, True

    def drain(self) -> None:
        """Nothing more is let through, and each operator's share goes back once nothing of it is under way."""
        self._is_draining = True

    @property
    def operator_ids(self) -> list[str]:
        """Those of the configuration."""
        return [operator_id for operator_id, gate in self._admission.items() if gate.is_configured]

    def usages(self) -> list[Usage]:
        """What this daemon goes on using until it hears of its shares again."""
        now_s = time.monotonic()
        usages = []
        for operator_id, gate in self._admission.items():
            used = {lane: gate.in_flight[lane] + gate.asked[lane] for lane in Lane}
            if not any(used.values()) and (self._is_draining or not gate.is_configured):
                # Who is not named gives back the whole share.
                continue
            share = gate.share if now_s < gate.share_until_s and not self._is_draining else None
            limits = gate.settings.limits
            usages.append(
                Usage(
                    operator_id=operator_id,
                    interactive_max=gate.settings.interactive.max_in_flight,
                    settlement_max=gate.settings.settlement.max_in_flight,
                    requests_per_s_max=limits.max_requests_per_s,
                    interactive_used=max(used[Lane.INTERACTIVE], share.interactive_slots if share is not None else 0),
                    settlement_used=max(used[Lane.SETTLEMENT], share.settlement_slots if share is not None else 0),
                    requests_per_s_used=share.requests_per_s if share is not None else 0.0,
                )
            )
        return usages

    def share(self, shares: Iterable[Share], *, asked_at_s: float) -> bool:
        """These are this daemon's shares, for SHARE_VALID_S from when they were asked for; of all else it has none.

        True where it had others.
        """
        by_operator = {share.operator_id: share for share in shares}
        now_s = time.monotonic()
        had = {name: gate.share for name, gate in self._admission.items() if gate.share and now_s < gate.share_until_s}
        for operator_id, gate in self._admission.items():
            gate.share, gate.share_until_s = by_operator.get(operator_id), asked_at_s + SHARE_VALID_S
            requests_per_s = gate.share.requests_per_s if gate.share is not None else None
            if not requests_per_s:
                gate.pace = None
            elif gate.pace is None:
                gate.pace = Pace(requests_per_s=requests_per_s)
            elif gate.pace.requests_per_s != requests_per_s:
                gate.pace = gate.pace.at_rate(requests_per_s, now_s)
        return had != by_operator

    def saw(self, states: Iterable[OperatorState], *, asked_at_s: float) -> None:
        """The operators are so, as of `asked_at_s`."""
        for state in states:
            if (gate := self._admission.get(state.operator_id)) is not None:
                gate.state, gate.state_at_s = state, asked_at_s

    def back_off(self, operator_id: str, lane: Lane, until_s: float) -> None:
        """Nothing of this lane is let through before then; what the fleet hears of it comes a little later."""
        if (gate := self._admission.get(operator_id)) is not None:
            gate.backoff_until_s[lane] = max(until_s, gate.backoff_until_s.get(lane, _NEVER_S))

    def state(self, operator_id: str) -> OperatorState | None:
        """What was last seen of an operator."""
        gate = self._admission.get(operator_id)
        return None if gate is None else gate.state

    def circuit_changed_at_s(self, operator_id: str) -> float:
        """The monotonic moment of the circuit's last change, as far as is known; before all time where none was."""
        gate = self._admission.get(operator_id)
        if gate is None or gate.state is None or gate.state.circuit_age_s is None:
            return _NEVER_S
        return gate.state_at_s - gate.state.circuit_age_s

    def refuses_bets(self, operator_id: str) -> bool:
        """True where BALANCE and BET_MAKE end at once, as far as this daemon knows."""
        state = self.state(operator_id)
        return state is not None and (state.is_paused or state.breaker.circuit is not Circuit.CLOSED)

    def has_share(self) -> bool:
        """True where this daemon was heard and may send, or has nobody to send to."""
        now_s = time.monotonic()
        return not self.operator_ids or any(now_s < gate.share_until_s for gate in self._admission.values())

    def refuses_any_bets(self) -> bool:
        """True where that is so of any operator."""
        return any(self.refuses_bets(operator_id) for operator_id in self._admission)

    def settlement_gather_s(self) -> float:
        """How long settlements wait for more of their kind to be claimed or settled with: not at all without bets."""
        return _GATHER_S if time.monotonic() - self._bets_at_s < _BETS_ABOUT_S else 0.0

    def settlement_spacing_s(self) -> float:
        """Between the starts of two settlements."""
        if time.monotonic() - self._bets_at_s >= _BETS_ABOUT_S:
            return 0.0
        return min(_SPACING_S, _SPACING_BETS / self._bets_per_s) if self._bets_per_s else _SPACING_S

    def ask(self, operator_id: str, lane: Lane, *, most: int = sys.maxsize) -> int:
        """How many callbacks may be claimed now, at most so many; they count as under way until claimed() is called."""
        gate = self._admission.get(operator_id)
        if gate is None:
            return 0
        now_s = time.monotonic()
        free = self._free(gate, lane, now_s)
        allowed = self._paced(gate, lane, now_s)
        if lane is Lane.INTERACTIVE:
            gate.bets_want_more = free > 0 and allowed == 0
        asked = max(0, min(free, most) if allowed is None else min(free, allowed, most))
        gate.asked[lane] += asked
        return asked

    def _paced(self, gate: _OperatorAdmission, lane: Lane, now_s: float) -> int | None:
        """How many the rate allows; None where there is none. Bets have it first."""
        if gate.pace is None:
            # A limited rate of which this daemon has no share yet, or none any more, is no rate.
            return None if gate.settings.limits.max_requests_per_s == 0 else 0
        if lane is Lane.SETTLEMENT and gate.bets_want_more:
            return 0
        return max(0, gate.pace.allowed(now_s) - sum(gate.asked.values()))

    def claimed(self, operator_id: str, lane: Lane, *, asked: int, came: int) -> None:
        """So many attempts more are under way, of those that were asked for."""
        gate = self._admission[operator_id]
        gate.asked[lane] -= asked
        gate.in_flight[lane] += came
        if came and lane is Lane.INTERACTIVE:
            self._note_bets(came)
        if gate.pace is None:
            return
        now_s = time.monotonic()
        gate.pace = gate.pace.taken(came, now_s)
        if lane is Lane.INTERACTIVE:
            gate.bets_want_more = came == asked and self._paced(gate, lane, now_s) == 0

    def _note_bets(self, came: int) -> None:
        self._bets_at_s = now_s = time.monotonic()
        self._bets_counted += came
        if (elapsed_s := now_s - self._bets_since_s) >= _BETS_ABOUT_S:
            self._bets_per_s = self._bets_counted / elapsed_s
            self._bets_since_s, self._bets_counted = now_s, 0

    def ended(self, operator_id: str, lane: Lane) -> None:
        """One attempt less is under way."""
        self._admission[operator_id].in_flight[lane] -= 1

    @property
    def in_flight(self) -> Mapping[tuple[str, Lane], int]:
        """Attempts under way, by operator and lane."""
        return {
            (operator_id, lane): count
            for operator_id, gate in self._admission.items()
            for lane, count in gate.in_flight.items()
        }

    def paced_in_s(self, operator_id: str, lane: Lane) -> float | None:
        """Until the rate allows one bet, or a batch of settlements; None where it is not the rate they wait for."""
        now_s = time.monotonic()
        gate = self._admission.get(operator_id)
        if gate is None or gate.pace is None or self._free(gate, lane, now_s) <= 0:
            return None
        paced_in_s = gate.pace.allowed_in_s(1 if lane is Lane.INTERACTIVE else gate.pace.batch, now_s)
        # What the other lane's claim has asked for is free again, or taken, in a moment.
        return paced_in_s or (_CLAIM_S if any(gate.asked.values()) else 0.0)

    def _free(self, gate: _OperatorAdmission, lane: Lane, now_s: float) -> int:
        """Slots that nothing is under way in; below 0 where the share has shrunk."""
        return self._slots(gate, lane, now_s) - gate.in_flight[lane] - gate.asked[lane]

    def _slots(self, gate: _OperatorAdmission, lane: Lane, now_s: float) -> int:
        if gate.share is None or now_s >= gate.share_until_s or self._is_draining:
            return 0
        if not (gate.is_configured and gate.settings.enabled) or now_s < gate.backoff_until_s.get(lane, _NEVER_S):
            return 0
        is_interactive = lane is Lane.INTERACTIVE
        slots = gate.share.interactive_slots if is_interactive else gate.share.settlement_slots
        state, age_s = gate.state, now_s - gate.state_at_s
        if state is None:
            return slots
        backoff_s = state.interactive_backoff_s if is_interactive else state.settlement_backoff_s
        if state.is_paused or backoff_s > age_s:
            return 0
        match state.breaker.circuit:
            case Circuit.CLOSED:
                return slots if state.circuit_age_s is None else slow_start(slots, state.circuit_age_s + age_s)
            case Circuit.HALF_OPEN if is_interactive:
                # For the one PING that decides.
                return min(slots, gate.in_flight[lane] + 1)
            case _:
                return 0
