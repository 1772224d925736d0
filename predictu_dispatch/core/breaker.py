"""An operator's circuit: when it is left alone, and when its callbacks flow again.

Theory of operation. The value lives in the database, in the operator's row. Each daemon keeps a tally of what its own
attempts taught it, and now and then applies it: it reads the row, asks `decide` what follows, and writes that back if
nobody has written in between. So one daemon's discovery spares the others, and no daemon's word is lost. Nothing but
the answer to the one deciding PING closes a circuit again.

    closed ──failure_threshold failures in a row──▶ open ──a PING is due, or asked for──▶ half_open
       ▲                                              ▲                                     │  │
       │                                              └───────────── it failed ─────────────┘  │
       └───────────────────────────────────── it was answered ─────────────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from predictu_dispatch.core.verdict import Verdict

if TYPE_CHECKING:
    from predictu_dispatch.core.verdict import Judgement


class Circuit(StrEnum):
    """DESIGN.md 6; the names are a contract."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Health(StrEnum):
    """DESIGN.md 6; the names are a contract."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"


class Ping(StrEnum):
    """What has become of the last PING that was started."""

    NONE = "none"
    UNDER_WAY = "under_way"
    ANSWERED = "answered"
    FAILED = "failed"


_OUR_OWN_DOING = frozenset({"interrupted", "too_late", "internal_error", "no_socket"})
"""Reasons of attempts that say nothing of the operator."""
_ASKED_TO_SLOW_DOWN = "http_429"
"""The operator is there and says so itself; leaving it alone is Retry-After's business, not the circuit's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSummary:
    """What attempts have taught since the last decision; `failures` are those in a row at its end."""

    succeeded: bool = False
    failures: int = 0
    failed: bool = False

    def with_attempt(self, judgement: Judgement) -> AttemptSummary:
        """The tally after one more attempt; a business refusal is an answer, and so a success of the operator."""
        if judgement.verdict is Verdict.DELIVERED or judgement.verdict is Verdict.REJECTED:
            return replace(self, succeeded=True, failures=0) if self.failed else _SUCCEEDED
        if judgement.reason in _OUR_OWN_DOING or judgement.reason == _ASKED_TO_SLOW_DOWN:
            return self
        return replace(self, failures=self.failures + 1, failed=True)

    def then(self, later: AttemptSummary) -> AttemptSummary:
        """Both, in this order."""
        if later is _SUCCEEDED and not self.failed:
            # Nearly every attempt is one more success after others.
            return later
        return AttemptSummary(
            succeeded=self.succeeded or later.succeeded,
            failures=later.failures + (0 if later.succeeded else self.failures),
            failed=self.failed or later.failed,
        )


_SUCCEEDED = AttemptSummary(succeeded=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """An operator's `[circuit]` and `[health]`; `ping_interval_s` 0 is never."""

    failure_threshold: int
    open_s: float
    ping_interval_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """An operator's circuit at one moment. `ping_in_s`: until the next PING is due, None where none is planned."""

    circuit: Circuit = Circuit.CLOSED
    consecutive_failures: int = 0
    ever_succeeded: bool = False
    ping_in_s: float | None = None
    ping: Ping = Ping.NONE
    starts_ping: bool = False

    @property
    def health(self) -> Health:
        """In one word, how the operator is."""
        if self.circuit is not Circuit.CLOSED:
            return Health.DOWN
        if self.consecutive_failures:
            return Health.DEGRADED
        return Health.HEALTHY if self.ever_succeeded else Health.UNKNOWN


def decide(breaker: Breaker, tally: AttemptSummary, policy: Policy) -> Breaker:
    """The circuit after what was learnt; `starts_ping` where a PING is due now. It changes one step at a time."""
    before = replace(breaker, starts_ping=False, ever_succeeded=breaker.ever_succeeded or tally.succeeded)
    match breaker.circuit:
        case Circuit.CLOSED:
            failures = tally.failures + (0 if tally.succeeded else breaker.consecutive_failures)
            if failures >= policy.failure_threshold:
                return _opened(before, failures, policy)
            return _pinged_when_due(replace(before, consecutive_failures=failures), policy.ping_interval_s)
        case Circuit.OPEN:
            # What was sent before it opened, and ends now, decides nothing: the next PING does.
            return _pinged_when_due(before, policy.open_s)
        case Circuit.HALF_OPEN:
            match breaker.ping:
                case Ping.ANSWERED:
                    interval_s = policy.ping_interval_s or None
                    return replace(
                        before,
                        circuit=Circuit.CLOSED,
                        consecutive_failures=0,
                        ever_succeeded=True,
                        ping_in_s=interval_s,
                    )
                case Ping.FAILED | Ping.NONE:
                    return _opened(before, breaker.consecutive_failures + 1, policy)
                case Ping.UNDER_WAY:
                    return before
                case never:
                    assert_never(never)
        case never_circuit:
            assert_never(never_circuit)


def is_at_rest(breaker: Breaker, ping_interval_s: float) -> bool:
    """True where decide() would change nothing for an operator of which nothing was heard: so it need not be asked."""
    return (
        breaker.circuit is Circuit.CLOSED
        and breaker.consecutive_failures == 0
        and (ping_interval_s == 0 or (breaker.ping_in_s is not None and 0 < breaker.ping_in_s <= ping_interval_s))
    )


def _opened(breaker: Breaker, failures: int, policy: Policy) -> Breaker:
    return replace(breaker, circuit=Circuit.OPEN, consecutive_failures=failures, ping_in_s=policy.open_s)


def _pinged_when_due(breaker: Breaker, interval_s: float) -> Breaker:
    """A PING now where one is due or was never planned, else at the planned time, which no longer interval puts off."""
    if interval_s == 0:
        # Another daemon's file may say otherwise, and what it has planned stands.
        return breaker
    if breaker.ping_in_s is None or breaker.ping_in_s <= 0:
        return replace(breaker, ping_in_s=interval_s, starts_ping=True)
    return replace(breaker, ping_in_s=min(breaker.ping_in_s, interval_s))


SLOW_START_STEP_S = 0.5
"""An operator that is back gets one slot, and twice as many after each of these: 32 after two and a half seconds."""


def slow_start(slots: int, closed_for_s: float) -> int:
    """How many of `slots` may be used so long after the circuit closed; at least one, if there is one."""
    steps = int(min(max(closed_for_s, 0.0) / SLOW_START_STEP_S, 30))
    return min(slots, 1 << steps)
