"""What is wrong with an operator: every combination of facts, and the decisive problem first."""

from itertools import product
from typing import Any

import pytest

from predictu_dispatch.core.breaker import Circuit, Health
from predictu_dispatch.core.operator_problems import LATE_S, OperatorView, Problem, by_severity, problems, severity

WELL: dict[str, Any] = {
    "enabled": True,
    "is_paused": False,
    "circuit": Circuit.CLOSED,
    "health": Health.HEALTHY,
    "is_fleet_live": True,
    "is_served": True,
    "is_unreachable": False,
    "is_backing_off": False,
    "oldest_due_s": None,
    "unknown_effect": 0,
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "enabled": (True, False),
    "is_paused": (False, True),
    "circuit": tuple(Circuit),
    "health": tuple(Health),
    "is_fleet_live": (True, False),
    "is_served": (True, False),
    "is_unreachable": (False, True),
    "is_backing_off": (False, True),
    "oldest_due_s": (None, LATE_S, LATE_S + 1),
    "unknown_effect": (0, 3),
}


def test_an_operator_is_well_only_if_nothing_at_all_is_wrong_and_a_daemon_has_seen_it() -> None:
    for values in product(*CHOICES.values()):
        facts = dict(zip(CHOICES, values, strict=True))
        is_well = facts in (WELL, {**WELL, "oldest_due_s": LATE_S})
        assert (problems(OperatorView(**facts)) == ()) == is_well, facts


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"health": Health.DEGRADED}, [Problem.DEGRADED]),
        ({"health": Health.UNKNOWN}, [Problem.NEVER_ANSWERED]),
        ({"is_served": False}, [Problem.NOT_SERVED]),
        ({"is_served": False, "is_fleet_live": False, "health": Health.UNKNOWN}, [Problem.NO_DAEMON]),
        ({"circuit": Circuit.OPEN, "health": Health.DOWN, "unknown_effect": 9}, [Problem.CIRCUIT_OPEN]),
        ({"circuit": Circuit.HALF_OPEN, "health": Health.DOWN}, [Problem.CIRCUIT_HALF_OPEN]),
        ({"is_paused": True, "circuit": Circuit.OPEN}, [Problem.PAUSED, Problem.CIRCUIT_OPEN]),
        ({"enabled": False, "is_served": False}, [Problem.DISABLED, Problem.NOT_SERVED]),
        ({"enabled": False, "circuit": Circuit.OPEN, "health": Health.DOWN}, [Problem.DISABLED]),
        ({"oldest_due_s": LATE_S + 1, "unknown_effect": 1}, [Problem.LATE, Problem.UNKNOWN_EFFECT]),
        ({"oldest_due_s": LATE_S + 1, "is_backing_off": True}, [Problem.BACKING_OFF]),
    ],
)
def test_the_decisive_problem_comes_first_and_what_it_explains_is_left_out(
    changes: dict[str, Any], expected: list[Problem]
) -> None:
    assert list(problems(OperatorView(**{**WELL, **changes}))) == expected


def test_a_screen_begins_with_what_fails_and_ends_with_what_a_person_decided() -> None:
    assert by_severity(Problem)[-2:] == [Problem.PAUSED, Problem.DISABLED]
    ranks = [severity((problem,)) for problem in by_severity(Problem)]
    assert ranks == sorted(ranks)
    assert severity(()) > max(ranks)
