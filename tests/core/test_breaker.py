"""The circuit as a pure value: decide() against a table, and summaries however they are split."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.breaker import (
    SLOW_START_STEP_S,
    AttemptSummary,
    Breaker,
    Circuit,
    Health,
    Ping,
    Policy,
    decide,
    is_at_rest,
    slow_start,
)
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Judgement, Statuses, Verdict, judge
from tests.core.test_callback_body import a_callback
from tests.core.test_verdict import NOW, OK, REJECTED, answered

THRESHOLD, OPEN_S, INTERVAL_S = 5, 4.0, 30.0
FAILURES_BEFORE = 2
"""Below the threshold, so that every case shows whether they were counted."""

# Attempts, and the failures in a row that result after the two from before.
FAILURES_AFTER: dict[AttemptSummary, int] = {
    AttemptSummary(): 2,
    AttemptSummary(succeeded=True): 0,
    AttemptSummary(failures=1, failed=True): 3,
    AttemptSummary(failures=2, failed=True): 4,
    AttemptSummary(failures=3, failed=True): 5,
    AttemptSummary(failures=9, failed=True): 11,
    AttemptSummary(succeeded=True, failed=True): 0,
    AttemptSummary(succeeded=True, failures=1, failed=True): 1,
    AttemptSummary(succeeded=True, failures=4, failed=True): 4,
    AttemptSummary(succeeded=True, failures=5, failed=True): 5,
}
# By interval: seconds to the next PING before, seconds to it afterwards, whether one starts now.
PLANS: dict[float, list[tuple[float | None, float | None, bool]]] = {
    # Another daemon's file may have an interval: the PING that it planned stays.
    0.0: [(None, None, False), (-1.0, -1.0, False), (0.0, 0.0, False), (3.0, 3.0, False), (100.0, 100.0, False)],
    INTERVAL_S: [(None, 30.0, True), (-1.0, 30.0, True), (0.0, 30.0, True), (3.0, 3.0, False), (100.0, 30.0, False)],
    OPEN_S: [(None, 4.0, True), (-1.0, 4.0, True), (0.0, 4.0, True), (3.0, 3.0, False), (100.0, 4.0, False)],
}
# The result of the deciding PING, and the circuit after it.
CIRCUIT_AFTER = {
    Ping.ANSWERED: Circuit.CLOSED,
    Ping.FAILED: Circuit.OPEN,
    Ping.NONE: Circuit.OPEN,
    Ping.UNDER_WAY: Circuit.HALF_OPEN,
}
INTERVALS_S = (0.0, INTERVAL_S)
CASES = list(itertools.product(Ping, FAILURES_AFTER, (False, True)))
"""The last PING's result, the attempts, whether the operator ever answered: each test tries all."""


def policy(interval_s: float, failure_threshold: int = THRESHOLD) -> Policy:
    return Policy(failure_threshold=failure_threshold, open_s=OPEN_S, ping_interval_s=interval_s)


@pytest.mark.parametrize("interval_s", INTERVALS_S)
def test_a_closed_circuit_opens_at_the_threshold_and_otherwise_pings_when_due(interval_s: float) -> None:
    # A PING started by the last decision must not start another one.
    for (ping, attempts, ever), (planned_in_s, after_s, starts), started in itertools.product(
        CASES, PLANS[interval_s], (False, True)
    ):
        before = Breaker(
            consecutive_failures=FAILURES_BEFORE,
            ever_succeeded=ever,
            ping_in_s=planned_in_s,
            ping=ping,
            starts_ping=started,
        )
        opens = FAILURES_AFTER[attempts] >= THRESHOLD
        assert decide(before, attempts, policy(interval_s)) == Breaker(
            circuit=Circuit.OPEN if opens else Circuit.CLOSED,
            consecutive_failures=FAILURES_AFTER[attempts],
            ever_succeeded=ever or attempts.succeeded,
            ping_in_s=OPEN_S if opens else after_s,
            ping=ping,
            starts_ping=starts and not opens,
        )


@pytest.mark.parametrize("interval_s", INTERVALS_S)
def test_an_operator_is_at_rest_exactly_if_a_decision_without_attempts_changes_nothing(interval_s: float) -> None:
    """For closed circuits; an open one is decided at every poll."""
    policy = Policy(failure_threshold=THRESHOLD, open_s=OPEN_S, ping_interval_s=interval_s)
    for ping, failures, (planned_s, _, _) in itertools.product(Ping, (0, 1, THRESHOLD), PLANS[interval_s]):
        breaker = Breaker(consecutive_failures=failures, ping_in_s=planned_s, ping=ping)
        stays = decide(breaker, AttemptSummary(), policy) == breaker
        assert is_at_rest(breaker, interval_s) == (stays and failures == 0)
    assert not is_at_rest(Breaker(circuit=Circuit.OPEN, ping_in_s=1.0), interval_s)
    assert not is_at_rest(Breaker(circuit=Circuit.HALF_OPEN, ping_in_s=1.0), interval_s)


@pytest.mark.parametrize("interval_s", INTERVALS_S)
def test_an_open_circuit_stays_open_after_any_attempts_and_pings_when_due(interval_s: float) -> None:
    for (ping, attempts, ever), (planned_in_s, after_s, starts) in itertools.product(CASES, PLANS[OPEN_S]):
        before = Breaker(
            circuit=Circuit.OPEN, consecutive_failures=7, ever_succeeded=ever, ping_in_s=planned_in_s, ping=ping
        )
        after = decide(before, attempts, policy(interval_s))
        assert (after.circuit, after.consecutive_failures) == (Circuit.OPEN, 7)
        assert (after.ping_in_s, after.starts_ping, after.health) == (after_s, starts, Health.DOWN)


@pytest.mark.parametrize("interval_s", INTERVALS_S)
def test_a_half_open_circuit_is_decided_by_its_ping_alone(interval_s: float) -> None:
    for (ping, attempts, ever), (planned_in_s, _, _) in itertools.product(CASES, PLANS[interval_s]):
        before = Breaker(
            circuit=Circuit.HALF_OPEN, consecutive_failures=7, ever_succeeded=ever, ping_in_s=planned_in_s, ping=ping
        )
        after = decide(before, attempts, policy(interval_s))
        expected: dict[Circuit, tuple[int, float | None, Health]] = {
            Circuit.CLOSED: (0, interval_s or None, Health.HEALTHY),
            Circuit.OPEN: (8, OPEN_S, Health.DOWN),
            Circuit.HALF_OPEN: (7, planned_in_s, Health.DOWN),
        }
        assert after.circuit is CIRCUIT_AFTER[ping]
        assert (after.consecutive_failures, after.ping_in_s, after.health) == expected[CIRCUIT_AFTER[ping]]
        # A later decision starts the next PING.
        assert not after.starts_ping


@pytest.mark.parametrize(
    ("breaker", "health"),
    [
        (Breaker(), Health.UNKNOWN),
        (Breaker(ever_succeeded=True), Health.HEALTHY),
        (Breaker(consecutive_failures=1), Health.DEGRADED),
        (Breaker(consecutive_failures=1, ever_succeeded=True), Health.DEGRADED),
        (Breaker(circuit=Circuit.OPEN, consecutive_failures=9, ever_succeeded=True), Health.DOWN),
        (Breaker(circuit=Circuit.HALF_OPEN, consecutive_failures=9, ever_succeeded=True), Health.DOWN),
        (Breaker(circuit=Circuit.OPEN), Health.DOWN),
    ],
)
def test_health_follows_from_the_circuit_and_the_failures(breaker: Breaker, health: Health) -> None:
    assert breaker.health is health


# What counts

COUNTS_AS = {
    "success": AttemptSummary(succeeded=True),
    "failure": AttemptSummary(failures=1, failed=True),
    "answered failure": AttemptSummary(failures=1, failed=True, is_heard=True),
    # Each daemon counts for itself how often it could not connect.
    "not sent": AttemptSummary(failed=True),
    "nothing": AttemptSummary(),
}


NOTHING_TO_REVERSE = b'{"status":"TRANSACTION_NOT_FOUND"}'
METHODS = {b'{"status":"OK"}': Method.PING, NOTHING_TO_REVERSE: Method.BET_ROLLBACK}
"""The method of the callback with this answer, unless it is a BET_MAKE."""


def unreached(reason: str) -> Exchange:
    return Exchange(evidence=Evidence.NOT_SENT, reason=reason, total_ms=1.0)


def unanswered(reason: str) -> Exchange:
    return Exchange(evidence=Evidence.UNANSWERED, reason=reason, total_ms=1.0)


@pytest.mark.parametrize(
    ("counts_as", "exchange"),
    [
        ("success", answered(200, OK)),
        ("success", answered(200, b'{"status":"OK"}')),
        ("success", answered(404, NOTHING_TO_REVERSE)),
        ("success", answered(409, b'{"status":"DUPLICATE_TRANSACTION","balance":1}')),
        ("success", answered(200, REJECTED)),
        ("success", answered(402, REJECTED)),
        ("success", answered(404, b'{"status":"PLAYER_NOT_FOUND"}')),
        ("success", answered(429, REJECTED)),
        # The application answers, so the operator is not down.
        *(("success", answered(code, NOTHING_TO_REVERSE)) for code in (200, 400, 401, 404)),
        *(("success", answered(code, b'{"status":"WHAT"}')) for code in (200, 404, 405, 410, 418, 422, 429)),
        # This may be a gateway, also with JSON.
        *(("answered failure", answered(code, b'{"status":"WHAT"}')) for code in (302, 401, 403, 500, 503)),
        *(("not sent", unreached(why)) for why in ("connect_refused", "connect_timeout", "dns_failed", "tls_failed")),
        *(("failure", unanswered(why)) for why in ("timeout", "reset", "truncated", "too_large")),
        *(("answered failure", answered(code, OK)) for code in (302, 500, 503)),
        # Misconfigured: attempts with a wrong URL or key only fill the operator's log.
        *(("answered failure", answered(code, b"")) for code in (301, 401, 403, 404, 405, 410)),
        *(
            ("answered failure", answered(200, body))
            for body in (b"", b"<html>", b"[]", b"{}", b'{"status":7}', b"\xff")
        ),
        ("answered failure", answered(418, b"")),
        ("nothing", answered(429, b"")),
        *(("nothing", unreached(why)) for why in ("interrupted", "too_late", "internal_error")),
        ("nothing", unanswered("interrupted")),
        ("nothing", unanswered("internal_error")),
    ],
)
def test_what_an_attempt_counts_as(counts_as: str, exchange: Exchange) -> None:
    method = METHODS.get(exchange.body, Method.BET_MAKE)
    judgement = judge(a_callback(method), exchange, Statuses.of(), now=NOW)
    assert AttemptSummary().with_attempt(judgement, exchange.evidence) == COUNTS_AS[counts_as]


# However it is split

JUDGEMENTS = {
    "+": Judgement(verdict=Verdict.DELIVERED, is_from_application=True),
    "r": Judgement(verdict=Verdict.REJECTED, reason="insufficient_funds", is_from_application=True),
    "-": Judgement(verdict=Verdict.RETRY, reason="timeout"),
    "!": Judgement(verdict=Verdict.RETRY, reason="http_500"),
    "n": Judgement(verdict=Verdict.RETRY, reason="connect_refused"),
    "0": Judgement(verdict=Verdict.RETRY, reason="interrupted"),
}
EVIDENCES = {"-": Evidence.UNANSWERED, "n": Evidence.NOT_SENT, "0": Evidence.UNANSWERED}
histories = st.text(alphabet="+r---!n0", max_size=20)


def summary_of(history: str) -> AttemptSummary:
    summary = AttemptSummary()
    for one in history:
        summary = summary.with_attempt(JUDGEMENTS[one], EVIDENCES.get(one, Evidence.ANSWERED))
    return summary


def failures_at_end(history: str) -> int:
    """Return the failures since the last answer; attempts that count as nothing are skipped."""
    return sum(streak(history).count(one) for one in "-!")


def streak(history: str) -> str:
    """Return the attempts since the application's last answer."""
    return history.replace("r", "+").rpartition("+")[2]


@given(histories, histories, histories)
def test_summaries_in_any_grouping_equal_the_attempts_one_by_one(first: str, second: str, third: str) -> None:
    one, two, three = summary_of(first), summary_of(second), summary_of(third)
    assert one.then(two).then(three) == one.then(two.then(three)) == summary_of(first + second + third)
    assert AttemptSummary().then(one) == one.then(AttemptSummary()) == one
    whole = first + second + third
    assert summary_of(whole) == AttemptSummary(
        succeeded=bool(set("+r") & set(whole)),
        failures=failures_at_end(whole),
        failed=bool(set("-!n") & set(whole)),
        is_heard="!" in streak(whole),
    )


@given(st.lists(histories, max_size=8), st.integers(1, 6))
def test_the_circuit_opens_exactly_when_consecutive_failures_reach_the_threshold(
    histories_written: list[str], threshold: int
) -> None:
    """However attempts are split over daemons and polls, the failures at the end count."""
    breaker, written = Breaker(), ""
    for history in histories_written:
        written += history
        breaker = decide(breaker, summary_of(history), policy(0.0, threshold))
        assert (breaker.circuit is Circuit.OPEN) == (failures_at_end(written) >= threshold)
        assert breaker.consecutive_failures == failures_at_end(written)
        if breaker.circuit is Circuit.OPEN:
            return


# Slow start


@given(st.integers(1, 10_000), st.floats(0, 10_000), st.floats(0, 10_000))
def test_after_an_outage_the_slots_only_grow_and_are_never_zero(slots: int, one_s: float, other_s: float) -> None:
    sooner_s, later_s = sorted((one_s, other_s))
    assert 1 <= slow_start(slots, sooner_s) <= slow_start(slots, later_s) <= slots
    assert slow_start(slots, slots.bit_length() * SLOW_START_STEP_S + later_s) == slots


def test_slots_double_with_each_step() -> None:
    starts = [slow_start(32, step * SLOW_START_STEP_S) for step in range(7)]
    assert starts == [1, 2, 4, 8, 16, 32, 32]
    # The clocks of two hosts may differ, so the age may be negative.
    assert (slow_start(32, -1.0), slow_start(32, SLOW_START_STEP_S * 0.99), slow_start(0, 100.0)) == (1, 1, 0)
