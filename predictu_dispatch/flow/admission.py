"""Admission: how many callbacks of each operator and lane may be claimed now.

Nothing awaits, so what is reserved cannot change between the check and the reservation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping

from predictu_dispatch.core.fleet import OperatorState, Share, Usage
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.rate_limit import SettlementPacing
from predictu_dispatch.core.reach import CONNECTED, Reach
from predictu_dispatch.flow.operator_admission import NEVER_S, OperatorAdmission


class Admission:
    """All operators' limits, and the pacing of settlements that they share."""

    def __init__(self, settings: Iterable[OperatorSettings]) -> None:
        self._operators: dict[str, OperatorAdmission] = {}
        self._is_draining = False
        self._pacing = SettlementPacing()
        self.configure(settings)

    def configure(self, settings: Iterable[OperatorSettings]) -> None:
        """Admit these operators from now on; what is known of those that stay is kept."""
        for operator in self._operators.values():
            operator.is_configured = False
        for one in settings:
            operator = self._operators.setdefault(one.operator_id, OperatorAdmission(settings=one))
            operator.settings, operator.is_configured = one, True

    def drain(self) -> None:
        """Admit nothing more; a share is given back once none of its attempts is in flight."""
        self._is_draining = True

    @property
    def operator_ids(self) -> list[str]:
        return [operator_id for operator_id, operator in self._operators.items() if operator.is_configured]

    # ── Claims ────────────────────────────────────────────────────────────────────────────────────

    def reserve(self, operator_id: str, lane: Lane, *, limit: int = sys.maxsize) -> int:
        """Reserve as many callbacks as may be claimed now, up to `limit`; confirm() must follow."""
        operator = self._operators.get(operator_id)
        if operator is None or self._is_draining:
            return 0
        reserved = min(operator.claimable(lane, time.monotonic()), limit)
        operator.reserved[lane] += reserved
        return reserved

    def confirm(self, operator_id: str, lane: Lane, *, reserved: int, claimed: int) -> None:
        self._operators[operator_id].confirm(lane, reserved=reserved, claimed=claimed)
        if claimed and lane is Lane.INTERACTIVE:
            self._pacing.bets_claimed(claimed, time.monotonic())

    def free_slot(self, operator_id: str, lane: Lane) -> None:
        self._operators[operator_id].in_flight[lane] -= 1

    def rate_allows_in_s(self, operator_id: str, lane: Lane) -> float | None:
        """Return the time until the rate allows a claim; None if the rate does not delay it."""
        operator = self._operators.get(operator_id)
        return None if operator is None or self._is_draining else operator.rate_allows_in_s(lane, time.monotonic())

    def settlement_gather_s(self) -> float:
        """Return how long settlements wait for more of them, to be claimed or settled together."""
        return self._pacing.gather_s(time.monotonic())

    def settlement_spacing_s(self) -> float:
        return self._pacing.spacing_s(time.monotonic())

    @property
    def in_flight(self) -> Mapping[tuple[str, Lane], int]:
        return {
            (operator_id, lane): count
            for operator_id, operator in self._operators.items()
            for lane, count in operator.in_flight.items()
        }

    # ── Shares ────────────────────────────────────────────────────────────────────────────────────

    def usages(self) -> list[Usage]:
        """Return what this daemon uses of each operator's limits until the next heartbeat."""
        now_s = time.monotonic()
        usages = (operator.usage(now_s, is_ending=self._is_draining) for operator in self._operators.values())
        return [usage for usage in usages if usage is not None]

    def update_shares(self, shares: Iterable[Share], *, requested_at_s: float) -> bool:
        """Replace all shares, also those of operators not named; returns whether any changed."""
        now_s = time.monotonic()
        new = {share.operator_id: share for share in shares}
        old = {name: share for name, one in self._operators.items() if (share := one.valid_share(now_s)) is not None}
        for operator_id, operator in self._operators.items():
            operator.update_share(new.get(operator_id), requested_at_s=requested_at_s, now_s=now_s)
        return old != new

    def has_share(self) -> bool:
        """Return whether this daemon has a valid answer to a heartbeat, or no operators."""
        now_s = time.monotonic()
        return not self.operator_ids or any(now_s < operator.share_until_s for operator in self._operators.values())

    # ── The operators' states ─────────────────────────────────────────────────────────────────────

    def update_states(self, states: Iterable[OperatorState], *, read_at_s: float) -> None:
        """Remember these states of operators, as of `read_at_s`."""
        for state in states:
            if (operator := self._operators.get(state.operator_id)) is not None:
                operator.state, operator.state_at_s = state, read_at_s

    def back_off(self, operator_id: str, lane: Lane, until_s: float) -> None:
        """Admit nothing of this lane before `until_s`; other daemons read it in the database."""
        if (operator := self._operators.get(operator_id)) is not None:
            operator.backoff_until_s[lane] = max(until_s, operator.backoff_until_s.get(lane, NEVER_S))

    def reach(self, operator_id: str) -> Reach:
        operator = self._operators.get(operator_id)
        return CONNECTED if operator is None else operator.reach

    def update_reach(self, operator_id: str, reach: Reach) -> None:
        if (operator := self._operators.get(operator_id)) is not None:
            operator.reach = reach

    def state(self, operator_id: str) -> OperatorState | None:
        operator = self._operators.get(operator_id)
        return None if operator is None else operator.state

    def circuit_changed_at_s(self, operator_id: str) -> float:
        """Return the monotonic time of the circuit's last change; minus infinity if none."""
        operator = self._operators.get(operator_id)
        if operator is None or operator.state is None or operator.state.circuit_age_s is None:
            return NEVER_S
        return operator.state_at_s - operator.state.circuit_age_s

    def blocks_bets(self, operator_id: str) -> bool:
        """Return whether this operator's BALANCE and BET_MAKE end at once, as far as is known."""
        operator = self._operators.get(operator_id)
        return operator is not None and operator.blocks_bets

    def blocks_any_bets(self) -> bool:
        return any(operator.blocks_bets for operator in self._operators.values())
