"""How fast an operator may be called: a smooth rate, as a pure value.

The generic cell rate algorithm (ITU-T I.371): each request moves a theoretical arrival time on by
one interval, and may go once that time is no more than the burst ahead of now. Unlike a bucket of a
whole second's worth, which may be full when the second begins and then sends two, it keeps every
second close to the rate: in any `w` seconds go at most `1 + rate * (w + _LATENESS_S)` requests. For
the first of them leaves the theoretical time no earlier than one interval after itself, each
further one moves it on by one, and the last one found it at most the burst ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_LATENESS_S = 0.05
"""Whoever comes so late for a request that was due loses nothing of the rate; a twentieth of any
second's."""
_ROUNDING_S = 1e-6
"""Nothing to an operator, and more than a clock of weeks loses in its last digit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A rate of requests, above 0, and how far it is used up.

    Times are monotonic seconds of one process.
    """

    requests_per_s: float
    next_s: float = -math.inf
    """When the next request would be due if all came evenly."""

    @property
    def burst(self) -> float:
        """Requests that may go at once after a silence: one, and those that came due meanwhile."""
        return 1 + self.requests_per_s * _LATENESS_S

    @property
    def batch(self) -> int:
        """Requests worth waiting for where nobody waits for each of them: half a burst, so that none gets lost."""
        return max(1, int(self.burst / 2))

    def allowed(self, now_s: float) -> int:
        """How many requests may go now."""
        ahead_s = max(0.0, self.next_s - now_s - _ROUNDING_S)
        return max(0, math.floor(self.burst - ahead_s * self.requests_per_s))

    def taken(self, requests: int, now_s: float) -> Pace:
        """After so many requests have gone."""
        return replace(self, next_s=max(self.next_s, now_s) + requests / self.requests_per_s) if requests else self

    def allowed_in_s(self, requests: int, now_s: float) -> float:
        """Until so many requests, no more than the burst, may go at once."""
        ahead_s = max(0.0, self.next_s - now_s)
        return max(0.0, ahead_s - (self.burst - requests) / self.requests_per_s)

    def at_rate(self, requests_per_s: float, now_s: float) -> Pace:
        """The same at another rate: what is used up stays used up, as a number of requests."""
        ahead = max(0.0, self.next_s - now_s) * self.requests_per_s
        return Pace(requests_per_s=requests_per_s, next_s=now_s + ahead / requests_per_s)
