"""Plays scenarios against a sandbox of the tests, in this process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from predictu_dispatch.certification.result import RunResult
from predictu_dispatch.certification.reversal import AFTER_RUN, Patience
from predictu_dispatch.certification.runner import play
from predictu_dispatch.certification.scenario import Scenario, ScenarioVerdict
from predictu_dispatch.certification.scenarios import ALL
from predictu_dispatch.certification.steps import Pause, Step
from tests.certification.mutants import Mutant
from tests.certification.sandbox import Sandbox, changed_operator

SCENARIOS = {scenario.id: scenario for scenario in ALL}


def new_run() -> str:
    """Return a run id, as the command makes it."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


async def played(sandbox: Sandbox, scenarios: Sequence[Scenario] = ALL, *, patience: Patience = AFTER_RUN) -> RunResult:
    """Play the scenarios; the run's folder is in the sandbox's."""
    run = new_run()
    return await play(
        sandbox.target(),
        scenarios,
        sandbox.folder / "reports" / run,
        run=run,
        is_whole_suite=len(scenarios) == len(ALL),
        patience=patience,
    )


@asynccontextmanager
async def mutant_running(mutant: Mutant, folder: Path, *, speed: float = 1.0) -> AsyncIterator[Sandbox]:
    """Run the mutant. With a speed it forgets that much earlier: see `hastened`."""
    variables = {"SPEED": f"{speed:g}"}
    async with changed_operator(
        folder,
        mutant.changes,
        amount_format=mutant.amount_format,
        certificate=mutant.certificate,
        variables=variables,
    ) as sandbox:
        yield replace(sandbox, timeout_s=mutant.timeout_s)


def hastened(scenario: Scenario, speed: float) -> Scenario:
    """Return the scenario with its pauses divided by the speed."""
    steps: Iterable[Step] = (
        replace(step, seconds=step.seconds / speed) if isinstance(step, Pause) else step for step in scenario.steps
    )
    return replace(scenario, steps=tuple(steps))


def scenarios_for(mutant: Mutant, *, speed: float) -> list[Scenario]:
    """Return what must be played to find the mutant, hastened."""
    return [hastened(SCENARIOS[name], speed) for name in (*mutant.played_before, mutant.scenario)]


def verdicts(result: RunResult) -> dict[str, ScenarioVerdict]:
    """Return the verdict on each scenario by its id."""
    return {one.scenario.id: one.verdict for one in result.results}


def described(result: RunResult) -> str:
    """Return every finding of the run and what it left, for a test that fails."""
    lines = [
        f"{one.scenario.id} {one.verdict}: {finding.verdict}, expected: {finding.expected}; {finding.observed}"
        for one in result.results
        for finding in one.findings
    ]
    players = [f"{player.player_id}: {player.before} -> {player.after}" for player in result.reversal.players]
    return "\n".join([*lines, *result.reversal.unresolved, *players, result.stopped])
