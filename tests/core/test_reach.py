"""When a daemon counts itself as unable to connect, and when that counts for the operator."""

import pytest

from predictu_dispatch.core.breaker import AttemptSummary, Breaker, Circuit, Policy, decide
from predictu_dispatch.core.observations import Observations
from predictu_dispatch.core.reach import CONNECTED, Peers, Reach

THRESHOLD = 3
NEVER_S = float("-inf")
POLICY = Policy(failure_threshold=THRESHOLD, open_s=5.0, ping_interval_s=0.0)


def failed(times: int, *, reach: Reach = CONNECTED, from_s: float = 10.0, changed_at_s: float = NEVER_S) -> Reach:
    """Return the value after so many attempts that were not sent, one each second."""
    for n in range(times):
        reach = reach.after_failure(
            "connect_refused", leased_at_s=from_s + n, circuit_changed_at_s=changed_at_s, threshold=THRESHOLD
        )
    return reach


def with_peers(reach: Reach, connected: int, unconnected: int, *, read_at_s: float = 100.0) -> Reach:
    return Reach(
        failures=reach.failures,
        failing_from_s=reach.failing_from_s,
        is_unreachable=reach.is_unreachable,
        peers=Peers(connected, unconnected, read_at_s),
    )


def test_an_operator_is_unreachable_after_the_threshold_and_leaves_to_others_while_one_can_connect() -> None:
    assert not failed(THRESHOLD - 1).is_unreachable
    lost = failed(THRESHOLD)
    assert (lost.is_unreachable, lost.failures, lost.reason) == (True, THRESHOLD, "connect_refused")
    # Until the others are known, it holds back: that takes milliseconds.
    assert lost.leaves_to_others
    assert with_peers(lost, 1, 0).leaves_to_others
    assert with_peers(lost, 1, 5).leaves_to_others
    for alone in (with_peers(lost, 0, 0), with_peers(lost, 0, 2)):
        assert not alone.leaves_to_others
    assert not with_peers(failed(THRESHOLD - 1), 1, 0).leaves_to_others


@pytest.mark.parametrize(
    ("failures", "connected", "unconnected", "counted"),
    [
        # The only daemon: each failure counts, as any other failure does.
        (1, 0, 0, 1),
        (THRESHOLD, 0, 0, THRESHOLD),
        # Others can connect, so the cause is this host.
        (THRESHOLD - 1, 1, 0, 0),
        (THRESHOLD, 1, 0, 0),
        (THRESHOLD, 9, 0, 0),
        # A second daemon sees the same, but only once this one is lost too.
        (THRESHOLD - 1, 1, 1, 0),
        (THRESHOLD, 1, 1, THRESHOLD),
        (THRESHOLD, 9, 1, THRESHOLD),
        # No other daemon can connect.
        (1, 0, 1, 1),
    ],
)
def test_failures_to_connect_count_if_no_other_daemon_can_or_a_second_cannot(
    failures: int, connected: int, unconnected: int, counted: int
) -> None:
    reach = with_peers(failed(failures), connected, unconnected)
    assert reach.failures_of_operator(NEVER_S) == counted
    circuit = decide(Breaker(), AttemptSummary(), POLICY, unconnected=counted)
    assert (circuit.circuit is Circuit.OPEN) == (counted >= THRESHOLD)
    assert circuit.consecutive_failures == counted


def test_what_failed_before_the_circuit_changed_opens_it_no_more() -> None:
    """Another daemon's PING closed it: this one is still lost, and the operator is not down."""
    lost = with_peers(failed(THRESHOLD, from_s=10.0), 0, 1)
    assert lost.failures_of_operator(9.0) == THRESHOLD
    assert lost.failures_of_operator(11.0) == 0
    again = failed(1, reach=lost, from_s=20.0, changed_at_s=11.0)
    assert (again.failures, again.is_unreachable) == (1, True)
    assert failed(THRESHOLD, reach=lost, from_s=20.0, changed_at_s=11.0).failures_of_operator(11.0) == THRESHOLD


def test_others_reports_from_before_the_circuit_closed_say_nothing() -> None:
    """The daemon whose PING closed it may not have reported yet that it can connect."""
    lost = failed(THRESHOLD, from_s=50.0)
    assert with_peers(lost, 0, 1, read_at_s=50.3).failures_of_operator(50.0) == 0
    assert with_peers(lost, 0, 1, read_at_s=51.0).failures_of_operator(50.0) == THRESHOLD


def test_a_connection_without_a_request_finds_the_daemon_or_loses_it() -> None:
    lost = CONNECTED.after_try("connect_timeout", now_s=7.0, threshold=THRESHOLD)
    assert (lost.is_unreachable, lost.failures, lost.failing_from_s, lost.reason) == (
        True,
        THRESHOLD,
        7.0,
        "connect_timeout",
    )
    assert lost.after_try("dns_failed", now_s=9.0, threshold=THRESHOLD) == Reach(
        failures=THRESHOLD, failing_from_s=7.0, reason="dns_failed", is_unreachable=True
    )
    assert lost.after_try(None, now_s=9.0, threshold=THRESHOLD) == Reach(connected_at_s=9.0)


def test_unanswered_requests_may_be_our_path_until_a_connection_opens() -> None:
    """On cut connections requests time out, which looks as if the operator had stopped."""
    silent = Observations(attempts=AttemptSummary(failures=THRESHOLD, failed=True), failing_from_s=5.0)
    assert silent.may_be_our_path(CONNECTED)
    assert not silent.may_be_our_path(Reach(connected_at_s=5.0))
    assert silent.may_be_our_path(Reach(connected_at_s=4.9))
    heard = Observations(attempts=AttemptSummary(failures=THRESHOLD, failed=True, is_heard=True), failing_from_s=5.0)
    assert not heard.may_be_our_path(CONNECTED)
    assert not Observations().may_be_our_path(CONNECTED)
