"""Decides whether an operator's previous signing key may be retired.

It may once every running daemon signs with the active key, the last token of the previous key has
expired, and the operator has confirmed a PING that was signed with the active key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from predictu_dispatch.core.fleet import SHARE_VALID_S

_MARGIN_S: Final = 1.0
"""A token's `exp` is a whole second."""


class Obstacle(StrEnum):
    """Why a key is not retired now."""

    UNKNOWN_OPERATOR = "unknown_operator"
    DAEMON_SIGNS_WITH_PREVIOUS = "daemon_signs_with_previous"
    DAEMON_SIGNS_WITH_ANOTHER = "daemon_signs_with_another"
    DAEMON_DOES_NOT_TELL = "daemon_does_not_tell"
    TOKENS_UNDER_WAY = "tokens_under_way"
    NO_DAEMON = "no_daemon"
    PAUSED = "paused"
    NO_PING = "no_ping"
    PING_UNDER_WAY = "ping_under_way"
    PING_FAILED = "ping_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningDaemon:
    """A daemon that serves the operator, or has served it within a day."""

    instance: str
    is_live: bool
    key_id: str | None
    """None if it is of an earlier release, which does not report it."""
    signs_for_s: float
    """For how long it has signed with this key."""
    seen_s_ago: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LastPing:
    """The last PING. `key_id` and `instance` are None if it was never attempted."""

    state: str
    key_id: str | None
    instance: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts:
    """The operator's row."""

    enabled: bool
    is_paused: bool
    last_ping: LastPing | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetirementFacts:
    """What the decision needs."""

    active_key_id: str
    previous_key_id: str
    activated_s_ago: float
    token_ttl_s: float
    operator: OperatorFacts | None
    """None if no daemon ever had its file."""
    daemons: Sequence[SigningDaemon]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason to refuse. `instance` is the daemon that it is about."""

    obstacle: Obstacle
    instance: str | None = None
    wait_s: float | None = None
    """When this obstacle ends by itself; None if it does not."""


def refusals(facts: RetirementFacts) -> list[Refusal]:
    """Returns every reason not to retire the previous key now; empty if it may be retired."""
    if facts.operator is None:
        return [Refusal(obstacle=Obstacle.UNKNOWN_OPERATOR)]
    live = [daemon for daemon in facts.daemons if daemon.is_live]
    found = [refusal for daemon in live if (refusal := _of_daemon(daemon, facts)) is not None]
    wait_s = _tokens_valid_for_s(facts)
    # A daemon that signs with the previous key goes on making tokens of it.
    if not found and wait_s > 0:
        found.append(Refusal(obstacle=Obstacle.TOKENS_UNDER_WAY, wait_s=wait_s))
    # Nothing is sent to a disabled operator, so it needs to accept nothing.
    if facts.operator.enabled and not found and (ping := _of_ping(facts, facts.operator, live)) is not None:
        found.append(ping)
    return found


def _of_daemon(daemon: SigningDaemon, facts: RetirementFacts) -> Refusal | None:
    if daemon.key_id == facts.active_key_id:
        return None
    if daemon.key_id is None:
        obstacle = Obstacle.DAEMON_DOES_NOT_TELL
    elif daemon.key_id == facts.previous_key_id:
        obstacle = Obstacle.DAEMON_SIGNS_WITH_PREVIOUS
    else:
        obstacle = Obstacle.DAEMON_SIGNS_WITH_ANOTHER
    return Refusal(obstacle=obstacle, instance=daemon.instance)


def _tokens_valid_for_s(facts: RetirementFacts) -> float:
    """Returns for how long a token of the previous key may still be valid."""
    # Without heartbeats a daemon signs nothing after SHARE_VALID_S.
    ages_s = [
        daemon.signs_for_s if daemon.key_id == facts.active_key_id else daemon.seen_s_ago - SHARE_VALID_S
        for daemon in facts.daemons
    ]
    return facts.token_ttl_s + _MARGIN_S - min([facts.activated_s_ago, *ages_s])


def _of_ping(facts: RetirementFacts, operator: OperatorFacts, live: Sequence[SigningDaemon]) -> Refusal | None:
    if not live:
        return Refusal(obstacle=Obstacle.NO_DAEMON)
    if operator.is_paused:
        return Refusal(obstacle=Obstacle.PAUSED)
    ping = operator.last_ping
    if ping is not None and ping.state in {"ready", "in_flight"}:
        return Refusal(obstacle=Obstacle.PING_UNDER_WAY)
    if ping is None or ping.key_id != facts.active_key_id:
        return Refusal(obstacle=Obstacle.NO_PING)
    if ping.state != "delivered":
        return Refusal(obstacle=Obstacle.PING_FAILED, instance=ping.instance)
    return None
