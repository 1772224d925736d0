"""What becomes of a callback after one judged attempt, and when it is retried."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.callback import Effect, Evidence, Exchange
from predictu_dispatch.core.lifecycle import CallbackState, Outcome, delay_s, outcome_of, policy_of
from predictu_dispatch.core.methods import RULES, Method, Retries
from predictu_dispatch.core.operator_settings import INTERACTIVE, SETTLEMENT, LaneSettings, OperatorSettings
from predictu_dispatch.core.verdict import Judgement, Statuses, Verdict, judge
from tests.core.test_callback_body import MOMENT, a_callback

UNKNOWN = Judgement(verdict=Verdict.RETRY, reason="http_503", effect=Effect.UNKNOWN)
NOT_SENT = Judgement(verdict=Verdict.RETRY, reason="connect_refused")
DELIVERED = Judgement(verdict=Verdict.DELIVERED, effect=Effect.APPLIED)
REJECTED = Judgement(verdict=Verdict.REJECTED, reason="insufficient_funds")
NOTHING_TO_REVERSE = Judgement(verdict=Verdict.DELIVERED, reason="nothing_to_reverse")

RANK = {Effect.NONE: 0, Effect.UNKNOWN: 1, Effect.APPLIED: 2}
RETRIED = [method for method in Method if RULES[method].retries is not Retries.PROBE]


def policy(**differing: Any) -> LaneSettings:
    """Return a policy without jitter and deadline: three attempts, 1 s doubling up to 60 s."""
    usual = {"max_attempts": 3, "initial_delay_s": 1.0, "multiplier": 2.0, "max_delay_s": 60.0}
    usual |= {"jitter": 0.0, "deadline_s": 0.0}
    return LaneSettings.model_validate({**SETTLEMENT.model_dump(), **usual, **differing})


def outcome(
    judgement: Judgement,
    method: Method = Method.BET_WIN,
    *,
    under: LaneSettings | None = None,
    recheck_s: float = 60.0,
    elapsed_s: float = 0.5,
    jitter: float = 0.0,
    **differing: Any,
) -> Outcome:
    return outcome_of(
        a_callback(method, **differing),
        judgement,
        under or policy(),
        recheck_s=recheck_s,
        elapsed_s=elapsed_s,
        jitter=jitter,
    )


# Final verdicts


@pytest.mark.parametrize("effect", Effect)
def test_delivered_is_final_and_applied_also_after_the_deadline(effect: Effect) -> None:
    for method in Method:
        assert outcome(DELIVERED, method, attempt=99, expires_in_s=0.1, effect=effect) == Outcome(
            verdict=Verdict.DELIVERED, state=CallbackState.DELIVERED, reason=None, effect=Effect.APPLIED
        )


@pytest.mark.parametrize("effect", [Effect.NONE, Effect.UNKNOWN])
def test_a_rejection_is_final_and_keeps_an_unknown_effect_of_an_earlier_attempt(effect: Effect) -> None:
    # A BET_MAKE that ends rejected with an unknown effect is still rolled back.
    for method in Method:
        assert outcome(REJECTED, method, attempt=2, effect=effect) == Outcome(
            verdict=Verdict.REJECTED, state=CallbackState.REJECTED, reason="insufficient_funds", effect=effect
        )


def test_only_the_database_may_call_a_report_late() -> None:
    with pytest.raises(ValueError, match="late"):
        outcome(Judgement(verdict=Verdict.LATE))


# Attempts and time


@pytest.mark.parametrize("method", RETRIED)
@pytest.mark.parametrize("judgement", [UNKNOWN, NOT_SENT])
def test_a_retry_is_due_after_the_delay_until_no_attempt_is_left(method: Method, judgement: Judgement) -> None:
    effect = judgement.effect or Effect.NONE
    for attempt, due_in_s in ((1, 1.0), (2, 2.0)):
        assert outcome(judgement, method, attempt=attempt) == Outcome(
            verdict=Verdict.RETRY, state=CallbackState.READY, reason=judgement.reason, effect=effect, due_in_s=due_in_s
        )
    assert outcome(judgement, method, attempt=3) == Outcome(
        verdict=Verdict.RETRY, state=CallbackState.EXHAUSTED, reason="max_attempts", effect=effect
    )


def test_a_retry_by_a_person_starts_a_new_budget_and_backoff_but_keeps_counting() -> None:
    # Retried by a person after 400 attempts: the 401st is the first of the new budget.
    assert outcome(UNKNOWN, attempt=401, budget_from=400).due_in_s == 1.0
    assert outcome(UNKNOWN, attempt=402, budget_from=400).due_in_s == 2.0
    assert outcome(UNKNOWN, attempt=403, budget_from=400).state is CallbackState.EXHAUSTED


def test_a_ping_has_one_attempt_whatever_the_file_says() -> None:
    for judgement in (UNKNOWN, NOT_SENT):
        ended = outcome(judgement, Method.PING, under=policy(max_attempts=100))
        assert (ended.state, ended.reason) == (CallbackState.EXHAUSTED, "max_attempts")


def test_a_ping_that_the_application_answered_is_seen_as_answered_by_every_daemon() -> None:
    """Its state is all that the other daemons see, and `rejected` counts as an answer."""
    for reason in ("operator_retry", "misconfigured", "http_429"):
        busy = Judgement(verdict=Verdict.RETRY, reason=reason, effect=Effect.UNKNOWN, is_from_application=True)
        ended = outcome(busy, Method.PING)
        assert ended == Outcome(Verdict.RETRY, CallbackState.REJECTED, reason, Effect.UNKNOWN)
        assert outcome(busy, Method.BALANCE).state is CallbackState.READY


@pytest.mark.parametrize(
    ("expires_in_s", "elapsed_s", "state"),
    [
        (None, 1e6, CallbackState.READY),
        (2.0, 0.5, CallbackState.READY),
        (1.5, 0.5, CallbackState.EXHAUSTED),
        (1.4, 0.5, CallbackState.EXHAUSTED),
        (0.1, 0.5, CallbackState.EXHAUSTED),
        (2.0, 1.5, CallbackState.EXHAUSTED),
    ],
)
def test_a_retry_that_would_start_at_the_deadline_or_later_ends_now(
    expires_in_s: float | None, elapsed_s: float, state: CallbackState
) -> None:
    ended = outcome(UNKNOWN, Method.BET_MAKE, expires_in_s=expires_in_s, elapsed_s=elapsed_s)
    assert ended.state is state
    assert ended.effect is Effect.UNKNOWN
    assert (ended.reason, ended.due_in_s) == (("http_503", 1.0) if state is CallbackState.READY else ("deadline", None))


def test_a_retry_after_beyond_the_deadline_ends_now() -> None:
    busy = Judgement(verdict=Verdict.RETRY, reason="http_429", effect=Effect.UNKNOWN, retry_after_s=30.0)
    assert outcome(busy, Method.BET_MAKE, expires_in_s=15.0).reason == "deadline"
    assert outcome(busy, Method.BET_MAKE, expires_in_s=31.0).due_in_s == 30.0


# Nothing to reverse


@pytest.mark.parametrize(
    ("placement_ended_s_ago", "elapsed_s", "is_rechecked"),
    [
        (0.0, 0.5, True),
        (59.0, 0.5, True),
        (59.0, 1.0, False),
        (59.5, 0.5, False),
        (60.0, 0.0, False),
        (3600.0, 0.5, False),
        # An adopted bet: its placement was never sent by us.
        (None, 0.5, False),
    ],
)
def test_a_rollback_is_rechecked_only_while_a_slow_debit_may_still_land(
    placement_ended_s_ago: float | None, elapsed_s: float, *, is_rechecked: bool
) -> None:
    ended = outcome(
        NOTHING_TO_REVERSE,
        Method.BET_ROLLBACK,
        recheck_s=60.0,
        elapsed_s=elapsed_s,
        placement_ended_s_ago=placement_ended_s_ago,
    )
    verdict, state, due_in_s = (
        (Verdict.RETRY, CallbackState.READY, 60.0)
        if is_rechecked
        else (Verdict.DELIVERED, CallbackState.DELIVERED, None)
    )
    assert ended == Outcome(verdict, state, "nothing_to_reverse", Effect.NONE, due_in_s)


def test_a_placement_that_ended_in_the_future_counts_as_ended_now_and_is_rechecked_once() -> None:
    """The clock was set back since; each recheck would find it in the future again."""
    future: dict[str, Any] = {"recheck_s": 60.0, "placement_ended_s_ago": -3500.0}
    first = outcome(NOTHING_TO_REVERSE, Method.BET_ROLLBACK, **future)
    assert (first.state, first.due_in_s) == (CallbackState.READY, 60.0)
    again = outcome(NOTHING_TO_REVERSE, Method.BET_ROLLBACK, **future, reason="nothing_to_reverse")
    assert again.state is CallbackState.DELIVERED
    off = outcome(NOTHING_TO_REVERSE, Method.BET_ROLLBACK, **{**future, "recheck_s": 0.0})
    assert off.state is CallbackState.DELIVERED


def test_the_recheck_uses_no_attempt_of_the_budget_and_can_be_turned_off() -> None:
    def last(recheck_s: float) -> Outcome:
        return outcome(
            NOTHING_TO_REVERSE, Method.BET_ROLLBACK, recheck_s=recheck_s, attempt=3, placement_ended_s_ago=1.0
        )

    assert last(recheck_s=60.0).due_in_s == 60.0
    assert last(recheck_s=0.0).state is CallbackState.DELIVERED


@given(
    placement_ended_s_ago=st.floats(0, 200),
    elapsed_s=st.floats(0, 10),
    recheck_s=st.floats(0, 100),
    late_s=st.floats(0),
)
def test_there_is_only_one_recheck(
    placement_ended_s_ago: float, elapsed_s: float, recheck_s: float, late_s: float
) -> None:
    asked = outcome(
        NOTHING_TO_REVERSE,
        Method.BET_ROLLBACK,
        recheck_s=recheck_s,
        elapsed_s=elapsed_s,
        placement_ended_s_ago=placement_ended_s_ago,
    )
    if asked.due_in_s is not None:
        again = outcome(
            NOTHING_TO_REVERSE,
            Method.BET_ROLLBACK,
            recheck_s=recheck_s,
            elapsed_s=0.0,
            placement_ended_s_ago=placement_ended_s_ago + elapsed_s + asked.due_in_s + late_s,
        )
        assert again.state is CallbackState.DELIVERED


# The effect

EXCHANGES = [
    Exchange(evidence=Evidence.NOT_SENT, reason="connect_refused", total_ms=1.0),
    Exchange(evidence=Evidence.UNANSWERED, reason="timeout", total_ms=1.0),
    *(
        Exchange(evidence=Evidence.ANSWERED, status=code, body=json.dumps({"status": status}).encode(), total_ms=1.0)
        for code in (200, 302, 401, 404, 409, 429, 500, 503)
        for status in ("OK", "INSUFFICIENT_FUNDS", "BET_NOT_FOUND", "PENDING")
    ),
]


@given(
    method=st.sampled_from(Method),
    exchanges=st.lists(st.sampled_from(EXCHANGES), min_size=1, max_size=8),
    jitter=st.floats(-1, 1),
    placement_ended_s_ago=st.none() | st.floats(0, 120),
    expires_in_s=st.none() | st.floats(0, 100),
)
def test_over_any_attempts_the_effect_only_moves_from_none_to_unknown_to_applied(
    method: Method,
    exchanges: list[Exchange],
    jitter: float,
    placement_ended_s_ago: float | None,
    expires_in_s: float | None,
) -> None:
    effect = Effect.NONE
    for attempt, exchange in enumerate(exchanges, start=1):
        callback = a_callback(
            method,
            attempt=attempt,
            effect=effect,
            placement_ended_s_ago=placement_ended_s_ago,
            expires_in_s=expires_in_s,
        )
        judgement = judge(callback, exchange, Statuses.of(), now=MOMENT)
        ended = outcome_of(callback, judgement, policy(), recheck_s=60.0, elapsed_s=0.5, jitter=jitter)
        assert RANK[ended.effect] >= RANK[effect]
        assert ended.effect is not Effect.NONE or judgement.effect is None
        assert (ended.due_in_s is not None) == (ended.state is CallbackState.READY)
        assert ended.verdict in {judgement.verdict, Verdict.RETRY}
        # The database checks both, and would refuse to settle anything else.
        if ended.state is CallbackState.DELIVERED:
            assert ended.effect is Effect.APPLIED or ended.reason == "nothing_to_reverse"
        effect = ended.effect
        if ended.state is not CallbackState.READY:
            break


# The delay

policies = st.builds(
    lambda initial_delay_s, more_s, multiplier, jitter: policy(
        initial_delay_s=initial_delay_s,
        max_delay_s=min(initial_delay_s + more_s, 86_400.0),
        multiplier=multiplier,
        jitter=jitter,
    ),
    st.floats(0, 100),
    st.floats(0, 86_400),
    st.floats(1, 100),
    st.floats(0, 0.99),
)


def test_the_delay_doubles_from_the_first_attempt_up_to_the_cap() -> None:
    delays_s = [delay_s(policy(max_delay_s=10.0), tries=tries, jitter=0.0) for tries in range(1, 8)]
    assert delays_s == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_jitter_varies_the_delay_in_both_directions_within_its_bounds() -> None:
    spread = policy(jitter=0.2, initial_delay_s=10.0)
    assert [round(delay_s(spread, tries=1, jitter=draw), 9) for draw in (-1.0, -0.5, 0.0, 1.0)] == [8, 9, 10, 12]


@given(policy=policies, tries=st.integers(1, 10_000), jitter=st.floats(-1, 1))
def test_the_delay_stays_within_its_bounds_for_any_policy_and_number_of_attempts(
    policy: LaneSettings, tries: int, jitter: float
) -> None:
    middle_s = delay_s(policy, tries=tries, jitter=0.0)
    assert 0 <= middle_s <= policy.max_delay_s
    assert middle_s >= delay_s(policy, tries=max(1, tries - 1), jitter=0.0)
    spread_s = delay_s(policy, tries=tries, jitter=jitter)
    assert abs(spread_s - middle_s) <= middle_s * (policy.jitter + 1e-9)


@pytest.mark.parametrize(
    ("retry_after_s", "due_in_s"),
    [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (40.0, 40.0), (60.0, 60.0), (61.0, 60.0), (float("inf"), 60.0)],
)
def test_retry_after_is_a_lower_bound_that_max_delay_s_caps(retry_after_s: float | None, due_in_s: float) -> None:
    busy = Judgement(verdict=Verdict.RETRY, reason="http_429", effect=Effect.UNKNOWN, retry_after_s=retry_after_s)
    assert outcome(busy).due_in_s == due_in_s
    # Jitter never shortens a Retry-After.
    spread = outcome(busy, under=policy(jitter=0.9), jitter=-1.0).due_in_s
    assert spread is not None
    assert spread >= min(retry_after_s or 0.0, 60.0)


def test_the_policy_follows_the_method_and_a_rollback_retries_like_a_settlement() -> None:
    own = OperatorSettings.model_validate(
        {
            "operator_id": "op_abc123",
            "callback_url": "https://wallet.example.com/",
            "signing": {"key_file": "key.pem"},
            "interactive": {"max_attempts": 5},
            "settlement": {"max_attempts": 500},
        }
    )
    settled = {Method.BET_WIN, Method.BET_LOSE, Method.BET_SELL, Method.BET_REFUND, Method.BET_ROLLBACK}
    for method in Method:
        assert policy_of(method, own).max_attempts == (500 if method in settled else 5)
        assert policy_of(method, None) == (SETTLEMENT if method in settled else INTERACTIVE)


def test_the_default_settlement_policy_lasts_more_than_a_day_with_any_jitter() -> None:
    for draw in (-1.0, 0.0, 1.0):
        total_s = sum(delay_s(SETTLEMENT, tries=tries, jitter=draw) for tries in range(1, SETTLEMENT.max_attempts))
        assert total_s > 24 * 3600
