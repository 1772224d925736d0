"""When an operator's previous signing key may be retired."""

from dataclasses import replace

import pytest

from predictu_dispatch.core.key_retirement import (
    LastPing,
    Obstacle,
    OperatorFacts,
    RetirementFacts,
    SigningDaemon,
    refusals,
)

PING = LastPing(state="delivered", key_id="new", instance="host-1")
OPERATOR = OperatorFacts(enabled=True, is_paused=False, last_ping=PING)
SWITCHED = SigningDaemon(instance="host-1", is_live=True, key_id="new", signs_for_s=40.0, seen_s_ago=0.5)
FACTS = RetirementFacts(
    active_key_id="new",
    previous_key_id="old",
    activated_s_ago=60.0,
    token_ttl_s=30.0,
    operator=OPERATOR,
    daemons=[SWITCHED],
)


def obstacles(facts: RetirementFacts) -> list[tuple[str, str | None]]:
    return [(one.obstacle.value, one.instance) for one in refusals(facts)]


def test_a_key_that_nothing_needs_is_retired() -> None:
    assert refusals(FACTS) == []
    # What a stopped daemon signed with no longer matters once its tokens have expired.
    stopped = replace(SWITCHED, is_live=False, key_id="old", seen_s_ago=40.0)
    assert refusals(replace(FACTS, daemons=[SWITCHED, stopped])) == []


@pytest.mark.parametrize(
    ("key_id", "obstacle"),
    [
        ("old", Obstacle.DAEMON_SIGNS_WITH_PREVIOUS),
        ("other", Obstacle.DAEMON_SIGNS_WITH_ANOTHER),
        (None, Obstacle.DAEMON_DOES_NOT_TELL),
    ],
)
def test_every_running_daemon_must_sign_with_the_active_key(key_id: str | None, obstacle: Obstacle) -> None:
    late = replace(SWITCHED, instance="host-2", key_id=key_id, signs_for_s=900.0)
    assert obstacles(replace(FACTS, daemons=[SWITCHED, late])) == [(obstacle, "host-2")]


@pytest.mark.parametrize(
    ("facts", "wait_s"),
    [
        (replace(FACTS, activated_s_ago=11.0), 20.0),
        # A daemon that was reloaded later signed with the old key until then.
        (replace(FACTS, daemons=[SWITCHED, replace(SWITCHED, instance="host-2", signs_for_s=5.0)]), 26.0),
        # So did one that crashed, until its last share had lapsed.
        (replace(FACTS, daemons=[SWITCHED, replace(SWITCHED, is_live=False, key_id="old", seen_s_ago=10.0)]), 23.5),
        (replace(FACTS, daemons=[SWITCHED, replace(SWITCHED, is_live=False, key_id=None, seen_s_ago=10.0)]), 23.5),
        (replace(FACTS, token_ttl_s=60.0), 21.0),
    ],
)
def test_the_last_tokens_must_have_expired(facts: RetirementFacts, wait_s: float) -> None:
    [refusal] = refusals(facts)
    assert (refusal.obstacle, refusal.wait_s) == (Obstacle.TOKENS_UNDER_WAY, wait_s)


@pytest.mark.parametrize(
    ("operator", "obstacle"),
    [
        (None, Obstacle.UNKNOWN_OPERATOR),
        (replace(OPERATOR, last_ping=None), Obstacle.NO_PING),
        (replace(OPERATOR, last_ping=replace(PING, key_id="old")), Obstacle.NO_PING),
        (replace(OPERATOR, last_ping=replace(PING, key_id=None, state="exhausted")), Obstacle.NO_PING),
        (replace(OPERATOR, last_ping=replace(PING, state="in_flight")), Obstacle.PING_UNDER_WAY),
        (replace(OPERATOR, last_ping=replace(PING, state="exhausted")), Obstacle.PING_FAILED),
        (replace(OPERATOR, last_ping=replace(PING, state="rejected")), Obstacle.PING_FAILED),
        (replace(OPERATOR, is_paused=True), Obstacle.PAUSED),
        (replace(OPERATOR, enabled=False, last_ping=None), None),
    ],
)
def test_the_operator_must_have_confirmed_a_ping_with_the_active_key(
    operator: OperatorFacts | None, obstacle: Obstacle | None
) -> None:
    assert [one.obstacle for one in refusals(replace(FACTS, operator=operator))] == ([obstacle] if obstacle else [])


def test_without_a_running_daemon_nobody_knows_what_the_operator_accepts() -> None:
    assert obstacles(replace(FACTS, daemons=[])) == [(Obstacle.NO_DAEMON, None)]
    stopped = replace(SWITCHED, is_live=False, seen_s_ago=100.0)
    assert obstacles(replace(FACTS, daemons=[stopped])) == [(Obstacle.NO_DAEMON, None)]
