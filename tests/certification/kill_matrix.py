"""Plays the whole suite against every mutant and every correct operator: `make certification`.

    .venv/bin/python -m tests.certification.kill_matrix --parallel 4

Writes kill_matrix.json, from which `python -m tests.support.certification_documents` makes the
table in predictu_dispatch/certification/README.md. A run mostly waits for a pause of 70 s, so
several run at once; more than four for each core would delay answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import click

from predictu_dispatch.certification.result import RunResult
from predictu_dispatch.certification.run_verdict import why_not_passed
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.certification.scenarios import ALL
from tests.certification.mutants import MUTANTS, Mutant
from tests.certification.operators import (
    DIFFERENT,
    EXAMPLES,
    REFERENCE,
    CorrectOperator,
    wrongly_found,
)
from tests.certification.playing import described, hastened, mutant_running, played, scenarios_for, verdicts

FILE = Path(__file__).with_name("kill_matrix.json")
_RUN_S = 1800.0
CORRECT = (REFERENCE, *DIFFERENT, *EXAMPLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the whole suite finds in one mutant; the names are those of kill_matrix.json."""

    mutant: str
    bug: str
    scenario: str
    verdict: str
    also: tuple[str, ...]

    @classmethod
    def of(cls, mutant: Mutant, result: RunResult) -> Row:
        found = verdicts(result)
        failed = [name for name, verdict in found.items() if verdict is ScenarioVerdict.FAILED]
        return cls(
            mutant=mutant.name,
            bug=mutant.wrong,
            scenario=mutant.scenario,
            verdict=found[mutant.scenario],
            also=tuple(name for name in failed if name != mutant.scenario),
        )

    def as_json(self) -> dict[str, object]:
        names = ("mutant", "bug", "scenario", "verdict", "also")
        return {name: getattr(self, name) for name in names}


def _row(name: str) -> Row:
    """Play the whole suite against a mutant; each in a process, so that none delays another."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    with tempfile.TemporaryDirectory(prefix="certification-") as folder:
        return asyncio.run(asyncio.wait_for(_row_of(mutant, Path(folder)), _RUN_S))


async def _row_of(mutant: Mutant, folder: Path) -> Row:
    whole, alone = folder / "whole", folder / "alone"
    whole.mkdir()
    async with mutant_running(mutant, whole) as sandbox:
        row = Row.of(mutant, await played(sandbox))
    if row.verdict == ScenarioVerdict.SKIPPED:
        # The run was stopped before it, because an earlier scenario found the mutant.
        alone.mkdir()
        async with mutant_running(mutant, alone) as sandbox:
            result = await played(sandbox, scenarios_for(mutant, speed=1.0))
        row = replace(row, verdict=verdicts(result)[mutant.scenario])
    return row


def _wrong_findings(name: str) -> list[str]:
    """Play the whole suite against a correct operator."""
    operator = next(operator for operator in CORRECT if operator.name == name)
    with tempfile.TemporaryDirectory(prefix="certification-") as folder:
        result = asyncio.run(asyncio.wait_for(_result_of(operator, Path(folder)), _RUN_S))
    found = [*wrongly_found(operator, result), *why_not_passed(result)]
    return [f"{operator.name}: {each}\n{described(result)}" for each in found]


async def _result_of(operator: CorrectOperator, folder: Path) -> RunResult:
    async with operator.start(folder) as sandbox:
        return await played(sandbox)


def _repeated(runs: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="certification-") as folder:
        return asyncio.run(_runs_that_differ(runs, Path(folder)))


async def _runs_that_differ(runs: int, folder: Path) -> list[str]:
    """Play the suite again and again on one sandbox; return the runs that differ from the first.

    Only the first one has pauses of full length.
    """
    short = [hastened(scenario, 20.0) for scenario in ALL]
    different: list[str] = []
    async with REFERENCE.start(folder) as sandbox:
        first = verdicts(await played(sandbox))
        for number in range(2, runs + 1):
            result = await played(sandbox, short)
            if verdicts(result) != first or why_not_passed(result):
                different.append(f"run {number} of {runs} differs from the first:\n{described(result)}")
            click.echo(f"run {number} of {runs} on one sandbox: {len(different)} differ")
    return different


def _write(row: Row) -> None:
    """Replace this row; keep those of other mutants that still exist."""
    new = row.as_json()
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    by_name = {one["mutant"]: one for one in [*kept, new]}
    written = [by_name[mutant.name] for mutant in MUTANTS if mutant.name in by_name]
    FILE.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


@click.command()
@click.option("--parallel", default=3 * (os.cpu_count() or 1), show_default=True, type=click.IntRange(1, 64))
@click.option("--runs", default=50, show_default=True, help="Runs on one sandbox; 0 for none.")
@click.option("--only", multiple=True, help="Only mutants whose name contains this.")
@click.option("--operators/--no-operators", default=True, help="Also play against the correct operators.")
def main(*, parallel: int, runs: int, only: tuple[str, ...], operators: bool) -> None:
    """Exit with 0 if every mutant is found, and nothing is found in a correct operator."""
    chosen = [mutant.name for mutant in MUTANTS if not only or any(word in mutant.name for word in only)]
    began_s = time.monotonic()
    faults: list[str] = []
    found = 0
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn")) as processes:
        # The 50 runs take longest, so they begin first.
        repeated = processes.submit(_repeated, runs) if runs else None
        correct = {processes.submit(_wrong_findings, operator.name): operator.name for operator in CORRECT * operators}
        rows = {processes.submit(_row, name): name for name in chosen}
        for playing in as_completed(rows):
            if error := playing.exception():
                faults.append(f"{rows[playing]}: {type(error).__name__}: {error}")
                continue
            row = playing.result()
            # At once: an interrupted run keeps its rows.
            _write(row)
            click.echo(f"| {row.mutant} | {row.scenario} | {row.verdict} | {len(row.also) + 1} |")
            found += row.verdict == ScenarioVerdict.FAILED
            if row.verdict != ScenarioVerdict.FAILED:
                faults.append(f"{row.mutant} is {row.verdict} in {row.scenario}, which was made for it")
        for findings in (*correct, *([repeated] if repeated else [])):
            error = findings.exception()
            name = correct.get(findings, "runs on one sandbox")
            faults += [f"{name}: {type(error).__name__}: {error}"] if error else findings.result()
    click.echo(f"{found} of {len(chosen)} mutants, {len(correct)} operators, {time.monotonic() - began_s:.0f} s")
    for fault in faults:
        click.echo(fault, err=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
