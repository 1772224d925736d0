"""How fast an operator may be called: a smooth rate, as a pure value.

The generic cell rate algorithm (ITU-T I.371): each request moves a theoretical arrival time on by one interval, and is
due once that time is no more than the burst ahead of now. Unlike a bucket of a whole second's worth, which may be full
when the second begins and then sends two, it keeps every second close to the rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_BURST_S = 0.05
"""Of requests that may go at once: few enough to keep every second within a twentieth of the rate, enough to claim
several callbacks in one statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A rate of requests, above 0, and how far it is used up. Times are monotonic seconds of one process."""

    requests_per_s: float
    next_s: float = -math.inf
    """When the next request would be due if all came evenly."""

    @property
    def burst(self) -> int:
        """Requests that may go at once after a silence."""
        return max(1, int(self.requests_per_s * _BURST_S))

    def allowed(self, now_s: float) -> int:
        """How many requests may go now."""
        ahead_s = max(0.0, self.next_s - now_s)
        # The tiny summand keeps what is due exactly now from being lost to rounding.
        return max(0, math.floor(self.burst - ahead_s * self.requests_per_s + 1e-9))

    def taken(self, requests: int, now_s: float) -> Pace:
        """After so many requests have gone; a negative number gives back what was taken and not used."""
        return replace(self, next_s=max(self.next_s, now_s) + requests / self.requests_per_s)

    def allowed_in_s(self, now_s: float) -> float:
        """Until half the burst, and at least one request, may go."""
        wanted = max(1, self.burst // 2)
        ahead_s = max(0.0, self.next_s - now_s)
        return max(0.0, ahead_s - (self.burst - wanted) / self.requests_per_s)

    def at_rate(self, requests_per_s: float, now_s: float) -> Pace:
        """The same at another rate: what is used up stays used up, as a number of requests."""
        ahead = max(0.0, self.next_s - now_s) * self.requests_per_s
        return Pace(requests_per_s=requests_per_s, next_s=now_s + ahead / requests_per_s)
