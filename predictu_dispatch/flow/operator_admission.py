"""How many callbacks of one operator this daemon may send now.

Bounded by this daemon's share of the operator's slots, the circuit, a pause, a Retry-After, the
slow start after an outage, and the rate limit, which bets use first. claim() checks the circuit,
pauses and Retry-After too; knowing them here saves the claim.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from predictu_dispatch.core.breaker import Circuit, slow_start
from predictu_dispatch.core.fleet import SHARE_VALID_S, OperatorState, Share, Usage
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.rate_limit import RateLimit
from predictu_dispatch.core.reach import CONNECTED, Reach

NEVER_S = float("-inf")
_CLAIM_S = 0.02
"""About how long a claim takes on a busy database."""


def _zeros() -> dict[Lane, int]:
    return dict.fromkeys(Lane, 0)


@dataclass(slots=True, kw_only=True)
class OperatorAdmission:
    """One operator's limits and what is used of them; times are monotonic seconds."""

    settings: OperatorSettings
    is_configured: bool = True
    """False once its file is removed: nothing more is sent, and attempts in flight still count."""
    share: Share | None = None
    share_until_s: float = NEVER_S
    state: OperatorState | None = None
    state_at_s: float = NEVER_S
    backoff_until_s: dict[Lane, float] = field(default_factory=dict)
    """The end of a Retry-After that this daemon received."""
    reach: Reach = CONNECTED
    rate_limit: RateLimit | None = None
    in_flight: dict[Lane, int] = field(default_factory=_zeros)
    reserved: dict[Lane, int] = field(default_factory=_zeros)
    """What claims in progress may bring; it takes slots and rate as if it were in flight."""
    bets_wait_for_rate: bool = False
    """True while only the rate delays bets: settlements then take none of it."""

    def claimable(self, lane: Lane, now_s: float) -> int:
        """Return how many callbacks may be claimed now: free slots, as far as the rate allows."""
        free_slots, allowed = self.free_slots(lane, now_s), self._rate_allows(lane, now_s)
        if lane is Lane.INTERACTIVE:
            self.bets_wait_for_rate = free_slots > 0 and allowed == 0
        return max(0, free_slots if allowed is None else min(free_slots, allowed))

    def free_slots(self, lane: Lane, now_s: float) -> int:
        """Return the slots without an attempt; below 0 if the share has shrunk."""
        return self._slots(lane, now_s) - self.in_flight[lane] - self.reserved[lane]

    def _slots(self, lane: Lane, now_s: float) -> int:
        share, state = self.share, self.state
        if share is None or now_s >= self.share_until_s or not (self.is_configured and self.settings.enabled):
            return 0
        if self.reach.leaves_to_others:
            return 0
        if now_s < self.backoff_until_s.get(lane, NEVER_S):
            return 0
        slots, age_s = share.slots(lane), now_s - self.state_at_s
        if state is None:
            return slots
        if state.is_paused or state.backoff_s(lane) > age_s:
            return 0
        match state.breaker.circuit:
            case Circuit.CLOSED:
                return slots if state.circuit_age_s is None else slow_start(slots, state.circuit_age_s + age_s)
            case Circuit.HALF_OPEN if lane is Lane.INTERACTIVE:
                # For the one PING that decides.
                return min(slots, self.in_flight[lane] + 1)
            case _:
                return 0

    def _rate_allows(self, lane: Lane, now_s: float) -> int | None:
        """Return how many requests the rate allows this lane; None without a limit."""
        if self.rate_limit is None:
            # Without a valid share of the limit this daemon may send nothing.
            return None if self.settings.limits.max_requests_per_s == 0 else 0
        if lane is Lane.SETTLEMENT and self.bets_wait_for_rate:
            return 0
        return max(0, self.rate_limit.allowed(now_s) - sum(self.reserved.values()))

    def rate_allows_in_s(self, lane: Lane, now_s: float) -> float | None:
        """Return the time until the rate allows a claim; None if the rate does not delay it."""
        if self.rate_limit is None or self.free_slots(lane, now_s) <= 0:
            return None
        requests = 1 if lane is Lane.INTERACTIVE else self.rate_limit.batch
        # If it already allows them, the other lane's claim has reserved them and will soon use
        # them.
        return self.rate_limit.allowed_in_s(requests, now_s) or (_CLAIM_S if any(self.reserved.values()) else 0.0)

    def confirm(self, lane: Lane, *, reserved: int, claimed: int) -> None:
        self.reserved[lane] -= reserved
        self.in_flight[lane] += claimed
        if self.rate_limit is not None:
            now_s = time.monotonic()
            self.rate_limit = self.rate_limit.used(claimed, now_s)
            if lane is Lane.INTERACTIVE:
                self.bets_wait_for_rate = claimed == reserved and self._rate_allows(lane, now_s) == 0

    def update_share(self, share: Share | None, *, requested_at_s: float, now_s: float) -> None:
        """Use this share from now on, until SHARE_VALID_S after it was requested."""
        self.share, self.share_until_s = share, requested_at_s + SHARE_VALID_S
        requests_per_s = share.requests_per_s if share is not None else None
        if not requests_per_s:
            self.rate_limit = None
        elif self.rate_limit is None:
            self.rate_limit = RateLimit(requests_per_s=requests_per_s)
        elif self.rate_limit.requests_per_s != requests_per_s:
            self.rate_limit = self.rate_limit.at_rate(requests_per_s, now_s)

    def valid_share(self, now_s: float) -> Share | None:
        return self.share if now_s < self.share_until_s else None

    def usage(self, now_s: float, *, is_ending: bool) -> Usage | None:
        """Return what this daemon uses until the next heartbeat; None gives the share back.

        `is_ending`: this daemon keeps only what its attempts in flight need.
        """
        used = {lane: self.in_flight[lane] + self.reserved[lane] for lane in Lane}
        if not any(used.values()) and (is_ending or not self.is_configured):
            return None
        share = None if is_ending or self.reach.leaves_to_others else self.valid_share(now_s)
        return Usage(
            operator_id=self.settings.operator_id,
            interactive_max=self.settings.interactive.max_in_flight,
            settlement_max=self.settings.settlement.max_in_flight,
            requests_per_s_max=self.settings.limits.max_requests_per_s,
            interactive_used=max(used[Lane.INTERACTIVE], share.interactive_slots if share is not None else 0),
            settlement_used=max(used[Lane.SETTLEMENT], share.settlement_slots if share is not None else 0),
            requests_per_s_used=share.requests_per_s if share is not None else 0.0,
        )

    @property
    def blocks_bets(self) -> bool:
        """True if BALANCE and BET_MAKE end at once, as far as this daemon knows."""
        return self.state is not None and (self.state.is_paused or self.state.breaker.circuit is not Circuit.CLOSED)
