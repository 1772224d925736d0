"""Whether this daemon can connect to an operator, judged by its own attempts alone.

The cause of an attempt that was not sent may be this daemon's host or the operator. So each daemon
counts such failures separately. After `failure_threshold` of them in a row the operator is
unreachable for this daemon. The same holds if requests got no answer and no new connection opens.
While another daemon can connect, this one claims nothing of the operator and returns its share. If
none can, or a second one cannot either, the operator is down: the failures then count towards its
circuit. An answer, or a connection that opens without a request, resets the count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

_SETTLED_S: Final = 0.5
"""A daemon whose PING closed the circuit has reported by then that it can connect."""


class Peers(NamedTuple):
    """How many other daemons serve the operator as of `read_at_s`, by whether they can connect."""

    connected: int
    unconnected: int
    read_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """This daemon's failures to connect to one operator in a row; times are monotonic seconds."""

    failures: int = 0
    failing_from_s: float = math.inf
    """When the first of these attempts was leased."""
    reason: str | None = None
    """Why the last of them failed."""
    is_unreachable: bool = False
    """True once this daemon counts itself as unable to connect."""
    connected_at_s: float = -math.inf
    """When a connection was last opened without a request."""
    peers: Peers | None = None

    def after_failure(
        self, reason: str | None, *, leased_at_s: float, circuit_changed_at_s: float, threshold: int
    ) -> Reach:
        """Return the value after an attempt that was not sent; `threshold` in a row is unreachable.

        Failures from before the circuit's last change do not add to those after it.
        """
        is_new = self.failing_from_s < circuit_changed_at_s or self.failures == 0
        failures = 1 if is_new else self.failures + 1
        return replace(
            self,
            failures=failures,
            failing_from_s=leased_at_s if is_new else self.failing_from_s,
            reason=reason,
            is_unreachable=self.is_unreachable or failures >= threshold,
        )

    def after_try(self, reason: str | None, *, now_s: float, threshold: int) -> Reach:
        """Return the value after a connection without a request; `reason` says why it failed."""
        if reason is None:
            return replace(CONNECTED, connected_at_s=now_s)
        if self.is_unreachable:
            return replace(self, reason=reason)
        return replace(self, failures=threshold, failing_from_s=now_s, reason=reason, is_unreachable=True)

    @property
    def leaves_to_others(self) -> bool:
        """True if this daemon sends nothing to the operator, because another one can connect."""
        return self.is_unreachable and (self.peers is None or self.peers.connected > 0)

    def failures_of_operator(self, circuit_changed_at_s: float) -> int:
        """Return how many of the failures count towards the operator's circuit."""
        peers = self.peers
        if peers is None or self.failing_from_s < circuit_changed_at_s:
            return 0
        if peers.read_at_s < circuit_changed_at_s + _SETTLED_S:
            return 0
        is_alone = peers.connected == 0
        return self.failures if is_alone or (self.is_unreachable and peers.unconnected > 0) else 0


CONNECTED: Final = Reach()
