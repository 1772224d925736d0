"""Limits a run: the number of its requests, and their rate. Times are monotonic seconds.

An operator may have a limit of its own and put requests off. The rate then falls to half of what it
was, and rises again with each request that follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BURST: Final = 64
"""Requests that may be sent at once: the most that a scenario has in flight."""
_REGAINED: Final = 1.01
"""How much the rate rises with each request after it fell: 70 requests double it."""
_RATE_MIN: Final = 1.0


class RequestCapError(Exception):
    """The run has sent as many requests as it may; the message says what to do."""


@dataclass(kw_only=True)
class Limits:
    """A token bucket with a cap. It decides only: the caller waits as long as take() says."""

    requests_max: int
    requests_per_s: float
    taken: int = 0
    """The requests of the run so far."""
    _share: float = 1.0
    """The part of the rate and of the burst that is used."""
    _slowed_until_s: float = 0.0
    _tokens: float = BURST
    """Below 0 if requests were taken that must wait."""
    _at_s: float | None = None

    @property
    def burst(self) -> int:
        """How many requests should be taken together, so that they share a sync of the journal."""
        return max(1, int(self._share * BURST))

    def take(self, requests: int, now_s: float) -> float:
        """Take this many requests; return the seconds to wait before the last one may be sent.

        Raises RequestCapError, and takes none, if the run would then have more than its cap.
        """
        if self.taken + requests > self.requests_max:
            raise RequestCapError(
                f"the run has sent {self.taken} of at most {self.requests_max} requests and needs {requests} more;"
                " raise --max-requests"
            )
        self._share = min(1.0, self._share * _REGAINED**requests)
        rate = max(min(_RATE_MIN, self.requests_per_s), self._share * self.requests_per_s)
        elapsed_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._tokens = min(self._share * BURST, self._tokens + elapsed_s * rate) - requests
        self._at_s = now_s if self._at_s is None else max(self._at_s, now_s)
        self.taken += requests
        return max(0.0, -self._tokens / rate)

    def slow_down(self, now_s: float, wait_s: float) -> None:
        """Halve the rate, because the operator put a request off and asks to wait.

        The answers to requests that were sent before count as one.
        """
        if now_s >= self._slowed_until_s:
            self._share = max(self._share / 2, min(1.0, _RATE_MIN / self.requests_per_s))
            self._tokens = min(self._tokens, 0.0)
            self._slowed_until_s = now_s + wait_s
