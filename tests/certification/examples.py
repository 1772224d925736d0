"""Results of runs, made without an operator."""

from collections.abc import Mapping
from datetime import UTC, datetime

from predictu_dispatch.certification.result import PlayerMoney, Reversal, RunResult, ScenarioResult
from predictu_dispatch.certification.scenario import Group, Scenario, ScenarioVerdict

RUN = "20261130-101502-3f2a"
STARTED_AT = datetime(2026, 11, 30, 10, 15, 2, tzinfo=UTC)


def scenario(scenario_id: str) -> Scenario:
    """A scenario without steps."""
    group = Group(scenario_id.partition("-")[0])
    return Scenario(id=scenario_id, group=group, title=scenario_id, why="", steps=(), expectations=())


def run_result(verdicts: Mapping[str, ScenarioVerdict], *, is_whole_suite: bool = True) -> RunResult:
    """The result of a run in which nobody lost or won anything."""
    return RunResult(
        run=RUN,
        operator_id="op_abc123",
        url="https://sandbox.example.com/predictu",
        kid="kid",
        algorithm="EdDSA",
        amount_format="subunits",
        currency="EUR",
        digits=2,
        players=("p-1",),
        started_at=STARTED_AT,
        ended_at=STARTED_AT,
        results=tuple(ScenarioResult(scenario=scenario(one), verdict=verdict) for one, verdict in verdicts.items()),
        reversal=Reversal(
            rolled_back=0,
            compensated=0,
            unresolved=(),
            players=(PlayerMoney(player_id="p-1", before=10_000, after=10_000),),
        ),
        requests_sent=100,
        is_whole_suite=is_whole_suite,
    )
