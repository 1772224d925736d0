"""The scenarios: the operators of both sides, the measured operators, and the limit."""

from dataclasses import dataclass, replace

ANSWER_S = 0.02
"""Answer time of a healthy operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator: its port's behaviour (see sink.py) and its backlog."""

    operator_id: str
    manner: str = "answer"
    settlements_due: int = 0
    interactive_due: int = 0
    circuit_opens: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Two sides that differ in one property; `measured` get `method` at the same rate on both."""

    name: str
    text: str
    method: str
    measured: tuple[str, ...]
    alone: tuple[Operator, ...]
    troubled: tuple[Operator, ...]
    # Limit of the ratio of the two p99; None for a scenario that is only for comparison.
    ratio_max: float | None


_B = Operator(operator_id="op_b")
_DEAD = Operator(operator_id="op_a", manner="never", settlements_due=100_000, interactive_due=1_000)
_HEALTHY = tuple(Operator(operator_id=f"op_good_{number:02}") for number in range(1, 14))
_MANNERS = ("never",) * 5 + ("drip", "reset")
_BROKEN = tuple(
    Operator(operator_id=f"op_bad_{number}", manner=manner, settlements_due=5_000, interactive_due=200)
    for number, manner in enumerate(_MANNERS, start=1)
)

SCENARIOS = (
    Scenario(
        name="dead",
        text="A never answers and has 100,000 settlements and 1,000 interactive callbacks due; B is measured",
        method="BALANCE",
        measured=("op_b",),
        alone=(_B,),
        troubled=(_B, _DEAD),
        ratio_max=1.3,
    ),
    Scenario(
        name="dead-uncut",
        text="the same, but A's circuit never opens, so that its slots stay taken",
        method="BALANCE",
        measured=("op_b",),
        alone=(_B,),
        troubled=(_B, replace(_DEAD, circuit_opens=False)),
        ratio_max=None,
    ),
    Scenario(
        name="many",
        text="20 operators: 5 never answer, 1 drips, 1 resets, each with 5,000 settlements due; 13 are measured",
        method="BALANCE",
        measured=tuple(operator.operator_id for operator in _HEALTHY),
        alone=_HEALTHY,
        troubled=(*_HEALTHY, *_BROKEN),
        ratio_max=1.3,
    ),
    Scenario(
        name="burst",
        text="placements at one operator, for which 50,000 settlements are due as well",
        method="BET_MAKE",
        measured=("op_b",),
        alone=(_B,),
        troubled=(replace(_B, settlements_due=50_000),),
        ratio_max=1.5,
    ),
)


def control_of(scenario: Scenario) -> Scenario:
    """Two sides without trouble, to measure the noise."""
    text = f"control: both sides of `{scenario.name}` without the trouble"
    return replace(scenario, name=f"{scenario.name}=", text=text, troubled=scenario.alone, ratio_max=None)
