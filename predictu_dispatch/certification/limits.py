"""Limits a run: the number of its requests, and their rate. Times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BURST: Final = 64
"""Requests that may be sent at once: the most that a scenario has in flight."""


class RequestCapError(Exception):
    """The run has sent as many requests as it may; the message says what to do."""


@dataclass(kw_only=True)
class Limits:
    """A token bucket with a cap. It decides only: the caller waits as long as take() says."""

    requests_max: int
    requests_per_s: float
    taken: int = 0
    """The requests of the run so far."""
    _tokens: float = BURST
    """Below 0 if requests were taken that must wait."""
    _at_s: float | None = None

    def take(self, requests: int, now_s: float) -> float:
        """Take this many requests; return the seconds to wait before the last one may be sent.

        Raises RequestCapError, and takes none, if the run would then have more than its cap.
        """
        if self.taken + requests > self.requests_max:
            raise RequestCapError(
                f"the run has sent {self.taken} of at most {self.requests_max} requests and needs {requests} more;"
                " raise --max-requests"
            )
        elapsed_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._tokens = min(float(BURST), self._tokens + elapsed_s * self.requests_per_s) - requests
        self._at_s = now_s if self._at_s is None else max(self._at_s, now_s)
        self.taken += requests
        return max(0.0, -self._tokens / self.requests_per_s)
