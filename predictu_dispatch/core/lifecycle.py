"""The states of a callback and of a bet, an attempt, and what becomes of the callback after it.

`outcome_of` decides. The database overrules it in one case that only it can know: a placement that
rollback_bet() met in flight is not retried. core/specification.py has all allowed moves.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, assert_never, cast
from uuid import UUID

from tenacity import RetryCallState, wait_exponential

from predictu_dispatch.core.callback import Callback, Effect, Exchange
from predictu_dispatch.core.methods import RULES, Lane, Method, Retries
from predictu_dispatch.core.operator_settings import INTERACTIVE, SETTLEMENT, LaneSettings, OperatorSettings
from predictu_dispatch.core.verdict import Judgement, Verdict


class CallbackState(StrEnum):
    """The states of a callback; the names are a contract."""

    WAITING = "waiting"
    READY = "ready"
    IN_FLIGHT = "in_flight"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


FINAL = frozenset({CallbackState.DELIVERED, CallbackState.REJECTED, CallbackState.EXHAUSTED, CallbackState.CANCELLED})


class BetState(StrEnum):
    """The states of a bet; the names are a contract."""

    PLACING = "placing"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    VOID = "void"


class Outcome(NamedTuple):
    """What becomes of a callback after one attempt.

    `verdict` is the judgement's, or RETRY if `nothing_to_reverse` is to be checked once more.
    `due_in_s` is set for READY only and counts from the settling.
    """

    verdict: Verdict
    state: CallbackState
    reason: str | None
    effect: Effect
    due_in_s: float | None = None


class Attempt(NamedTuple):
    """One attempt that ended: the source of its audit row (settle()), log line and metrics."""

    callback: Callback
    instance: str
    finished_at: datetime
    exchange: Exchange
    judgement: Judgement
    outcome: Outcome
    report_id: UUID
    """Makes settling repeatable: the database answers `repeated` if it has settled this report."""
    url: str | None = None
    key_id: str | None = None
    request_headers: str | None = None
    """A JSON object of the headers sent, without the token's signature."""
    request_body: str | None = None
    token_signature: bytes | None = None
    """The signature that `request_headers` lacks."""
    response_body_sha256: bytes | None = None
    """Of the whole body, if the answer repeats an earlier one and `exchange` has its beginning."""
    response_body_repeats: int | None = None
    """The attempt whose audit row has the whole body."""
    reaped: bool = False
    """True if the lease expired without a report and another daemon settled the attempt."""

    @property
    def audited_bytes(self) -> int:
        """The bytes of headers and bodies in its audit row."""
        size = len(self.request_headers or "") + len((self.request_body or "").encode()) + len(self.exchange.body)
        for name, value in self.exchange.headers:
            size += len(name) + len(value)
        return size


class Cause(StrEnum):
    """Why a callback changed.

    The first five belong to a report of an attempt, the others to a move of the callback's bet.
    expire() says SETTLED too, without an attempt.
    """

    SETTLED = "settled"
    LATE = "late"
    REPEATED = "repeated"
    LOCKED = "locked"
    UNKNOWN_ATTEMPT = "unknown_attempt"
    RELEASED = "released"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"


class CallbackChange(NamedTuple):
    """One callback that settle() or expire() changed, or one report that changed nothing.

    `state` and `lane` are None if nothing changed: a late or repeated report, or a locked row.
    """

    operator_id: str
    request_id: UUID
    method: Method
    lane: Lane | None
    state: CallbackState | None
    reason: str | None
    cause: Cause
    attempt: int | None = None


def outcome_of(
    callback: Callback, judgement: Judgement, policy: LaneSettings, *, recheck_s: float, elapsed_s: float, jitter: float
) -> Outcome:
    """Decide what becomes of `callback` after an attempt with this judgement.

    `elapsed_s` is the time since the lease began; `jitter` is a random number from -1 to 1.
    """
    effect = _later_effect(callback.effect, judgement.effect)
    match judgement.verdict:
        case Verdict.DELIVERED:
            if judgement.reason == "nothing_to_reverse" and _debit_may_still_land(callback, recheck_s, elapsed_s):
                # Rechecked once, also without attempts left: time shows whether a slow debit lands.
                return _retry(callback, judgement.reason, effect, delay=recheck_s, elapsed_s=elapsed_s)
            return Outcome(Verdict.DELIVERED, CallbackState.DELIVERED, judgement.reason, effect)
        case Verdict.REJECTED:
            return Outcome(Verdict.REJECTED, CallbackState.REJECTED, judgement.reason, effect)
        case Verdict.RETRY:
            tries = callback.attempt - callback.budget_from
            attempts_max = 1 if RULES[callback.method].retries is Retries.PROBE else policy.max_attempts
            # If our own stop kept an attempt from being sent, it does not count.
            was_sent = not (judgement.reason == "interrupted" and judgement.effect is None)
            if judgement.is_from_application and RULES[callback.method].retries is Retries.PROBE:
                # The operator is not down, and every daemon must see that in the PING's state.
                return Outcome(Verdict.RETRY, CallbackState.REJECTED, judgement.reason, effect)
            if tries >= attempts_max and was_sent:
                return Outcome(Verdict.RETRY, CallbackState.EXHAUSTED, "max_attempts", effect)
            delay = delay_s(policy, tries=tries, jitter=jitter, retry_after_s=judgement.retry_after_s)
            return _retry(callback, judgement.reason, effect, delay=delay, elapsed_s=elapsed_s)
        case Verdict.LATE:
            raise ValueError("only the database can say that a report is late")
        case never:
            assert_never(never)


def policy_of(method: Method, settings: OperatorSettings | None) -> LaneSettings:
    """Return the timeouts and retries for `method`; the defaults if the operator has no file."""
    if RULES[method].retries is Retries.SETTLEMENT:
        return SETTLEMENT if settings is None else settings.settlement
    return INTERACTIVE if settings is None else settings.interactive


def delay_s(policy: LaneSettings, *, tries: int, jitter: float, retry_after_s: float | None = None) -> float:
    """Return the seconds until the next attempt, after `tries` attempts.

    Exponential, capped by `max_delay_s`, varied by ± `policy.jitter` (`jitter` is from -1 to 1). A
    Retry-After (RFC 9110 section 10.2.3) is a lower bound with the same cap, so that no operator
    can postpone its own callbacks forever.
    """
    wait = wait_exponential(multiplier=policy.initial_delay_s, exp_base=policy.multiplier, max=policy.max_delay_s)
    state = RetryCallState(cast("object", None), None, (), {})  # type: ignore[arg-type] # Only attempt_number is read.
    state.attempt_number = tries
    backoff_s = wait(state) * (1 + policy.jitter * jitter)
    return max(backoff_s, min(retry_after_s or 0.0, policy.max_delay_s))


def _retry(callback: Callback, reason: str | None, effect: Effect, *, delay: float, elapsed_s: float) -> Outcome:
    """Ready after the delay; exhausted at once if the deadline comes first: a producer may wait."""
    if callback.expires_in_s is not None and elapsed_s + delay >= callback.expires_in_s:
        return Outcome(Verdict.RETRY, CallbackState.EXHAUSTED, "deadline", effect)
    return Outcome(Verdict.RETRY, CallbackState.READY, reason, effect, due_in_s=delay)


_EFFECTS = tuple(Effect)


def _later_effect(before: Effect, learnt: Effect | None) -> Effect:
    """Return the effect that is further along none, unknown, applied; None adds no knowledge."""
    if learnt is None or before is Effect.NONE:
        return learnt or before
    return max(before, learnt, key=_EFFECTS.index)


def _debit_may_still_land(callback: Callback, recheck_s: float, elapsed_s: float) -> bool:
    """Return whether the placement's last attempt ended less than `recheck_s` ago."""
    ended_s_ago = callback.placement_ended_s_ago
    if ended_s_ago is None:
        return False
    if ended_s_ago < 0:
        # The clock was set back since: it counts as now, for one recheck.
        return elapsed_s < recheck_s and callback.reason != "nothing_to_reverse"
    return ended_s_ago + elapsed_s < recheck_s
