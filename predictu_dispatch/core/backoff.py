"""When to try again: the delay before the next attempt of a callback. Nothing ever sleeps here.

The delay becomes a `due_at`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tenacity import RetryCallState, wait_exponential

from predictu_dispatch.core.methods import RULES, Method, Retries
from predictu_dispatch.core.operator_settings import INTERACTIVE, SETTLEMENT

if TYPE_CHECKING:
    from predictu_dispatch.core.operator_settings import LaneSettings, OperatorSettings


def policy_of(method: Method, settings: OperatorSettings | None) -> LaneSettings:
    """The section whose timeouts and retries hold for `method`: the operator's, or the defaults without a file.

    Source: PROTOCOL.md's table of callbacks, DESIGN.md 11.
    """
    if RULES[method].retries is Retries.SETTLEMENT:
        return SETTLEMENT if settings is None else settings.settlement
    return INTERACTIVE if settings is None else settings.interactive


def delay_s(policy: LaneSettings, *, tries: int, jitter: float, retry_after_s: float | None = None) -> float:
    """Seconds until the next attempt, after `tries` of this drive.

    Exponential, never above `max_delay_s` before the jitter, then ± `policy.jitter` of itself: `jitter` is a draw from
    -1 to 1. A Retry-After is a lower bound, itself capped by `max_delay_s`, so that no operator can put its own
    callbacks off for ever. Source: DESIGN.md 4 and 11; RFC 9110 section 10.2.3.
    """
    wait = wait_exponential(multiplier=policy.initial_delay_s, exp_base=policy.multiplier, max=policy.max_delay_s)
    state = RetryCallState(cast("object", None), None, (), {})  # type: ignore[arg-type] # Only attempt_number is read.
    state.attempt_number = tries
    spread_s = wait(state) * (1 + policy.jitter * jitter)
    return max(spread_s, min(retry_after_s or 0.0, policy.max_delay_s))
