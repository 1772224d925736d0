"""What is wrong with an operator, as a screen says it: every problem, the decisive one first.

Theory of operation. A person reads the first problem and acts on it, so what explains the others
comes first: somebody has disabled or paused the operator; no daemon could send; the operator fails;
callbacks are slow or uncertain. An operator is well only if nothing at all is wrong and a daemon
has seen it answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from predictu_dispatch.core.breaker import Circuit, Health

LATE_S: Final = 30.0
"""A callback that has been due for longer, with nothing else wrong, is a problem of its own."""


class Problem(StrEnum):
    """What may be wrong with an operator; the value is its name on a screen."""

    DISABLED = "disabled"
    PAUSED = "paused"
    NO_DAEMON = "no daemon"
    NOT_SERVED = "not served"
    CIRCUIT_OPEN = "circuit open"
    CIRCUIT_HALF_OPEN = "circuit half open"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"
    BACKING_OFF = "backoff"
    LATE = "late"
    UNKNOWN_EFFECT = "unknown effect"
    NEVER_ANSWERED = "health unknown"


FAILING: Final = (Problem.CIRCUIT_OPEN, Problem.CIRCUIT_HALF_OPEN, Problem.DEGRADED, Problem.UNREACHABLE)
"""Problems that the operator's last failure explains."""
_INTENDED: Final = (Problem.PAUSED, Problem.DISABLED)
"""What a person decided; on a screen it comes after all other problems."""
_SEVERITY: Final = {
    problem: rank for rank, problem in enumerate((*[p for p in Problem if p not in _INTENDED], *_INTENDED))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorView:
    """The facts about one operator that a screen has."""

    enabled: bool
    is_paused: bool
    circuit: Circuit
    health: Health
    is_fleet_live: bool
    """True if any daemon runs."""
    is_served: bool
    """True if a running daemon has the operator's file."""
    is_unreachable: bool
    """True if a running daemon cannot connect to it."""
    is_backing_off: bool
    oldest_due_s: float | None
    unknown_effect: int


def problems(operator: OperatorView) -> tuple[Problem, ...]:
    """Every problem, the decisive one first; empty only if the operator is well."""
    return tuple(_problems(operator))


def severity(found: tuple[Problem, ...]) -> int:
    """The rank of an operator on a screen: 0 comes first, an operator without problems last."""
    return _SEVERITY[found[0]] if found else len(_SEVERITY)


def is_urgent(found: tuple[Problem, ...]) -> bool:
    """True unless the operator is well, or somebody has paused or disabled it."""
    return bool(found) and found[0] not in _INTENDED


def by_severity(found: Iterable[Problem]) -> list[Problem]:
    """The same problems in the order in which a screen lists operators."""
    return sorted(found, key=_SEVERITY.__getitem__)


def _problems(operator: OperatorView) -> Iterator[Problem]:
    if not operator.enabled:
        yield Problem.DISABLED
    if operator.is_paused:
        yield Problem.PAUSED
    if not operator.is_fleet_live:
        yield Problem.NO_DAEMON
    elif not operator.is_served:
        yield Problem.NOT_SERVED
    # Nothing is sent to a disabled operator, so its last failures say nothing.
    failing = tuple(_failures(operator)) if operator.enabled else ()
    yield from failing
    if operator.is_backing_off:
        yield Problem.BACKING_OFF
    is_stopped = not operator.enabled or operator.is_paused or not operator.is_served
    if failing or is_stopped:
        # They explain the rest.
        return
    if operator.oldest_due_s is not None and operator.oldest_due_s > LATE_S and not operator.is_backing_off:
        yield Problem.LATE
    if operator.unknown_effect:
        yield Problem.UNKNOWN_EFFECT
    if operator.health is Health.UNKNOWN:
        yield Problem.NEVER_ANSWERED


def _failures(operator: OperatorView) -> Iterator[Problem]:
    match operator.circuit:
        case Circuit.OPEN:
            yield Problem.CIRCUIT_OPEN
        case Circuit.HALF_OPEN:
            yield Problem.CIRCUIT_HALF_OPEN
        case Circuit.CLOSED if operator.health in (Health.DEGRADED, Health.DOWN):
            yield Problem.DEGRADED
        case Circuit.CLOSED:
            pass
    if operator.is_unreachable:
        yield Problem.UNREACHABLE
