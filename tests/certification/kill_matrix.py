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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

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
from tests.certification.playing import hastened, mutant_running, played, scenarios_for, told, verdicts

FILE = Path(__file__).with_name("kill_matrix.json")
_RUN_S = 1800.0
_T = TypeVar("_T")


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


@dataclass(kw_only=True)
class Parallel:
    """Runs at most `at_once` of the given runs, each within a time limit and in a new folder."""

    at_once: int
    faults: list[str] = field(default_factory=list)

    async def all(self, runs: Iterable[tuple[str, Callable[[Path], Awaitable[_T]]]]) -> list[_T]:
        """Return the results in the order of the runs; what cannot be played is a fault."""
        permits = asyncio.Semaphore(self.at_once)

        async def one(name: str, run: Callable[[Path], Awaitable[_T]]) -> _T | None:
            async with permits:
                began_s = time.monotonic()
                with tempfile.TemporaryDirectory(prefix="certification-") as folder:
                    try:
                        async with asyncio.timeout(_RUN_S):
                            result = await run(Path(folder))
                    except Exception as error:  # noqa: BLE001 - the others are played all the same
                        self.faults.append(f"{name}: {type(error).__name__}: {error}")
                        click.echo(self.faults[-1])
                        return None
                click.echo(f"{name}: {time.monotonic() - began_s:.0f} s")
                return result

        results = await asyncio.gather(*(one(name, run) for name, run in runs))
        return [result for result in results if result is not None]


async def _row(mutant: Mutant, folder: Path) -> Row:
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
    # At once: an interrupted run keeps its rows.
    _write([row])
    return row


async def _wrong_findings(operator: CorrectOperator, folder: Path) -> list[str]:
    async with operator.start(folder) as sandbox:
        result = await played(sandbox)
    found = [*wrongly_found(operator, result), *why_not_passed(result)]
    return [f"{operator.name}: {each}\n{told(result)}" for each in found]


async def _repeated(runs: int, folder: Path) -> list[str]:
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
                different.append(f"run {number} of {runs} differs from the first:\n{told(result)}")
            click.echo(f"run {number} of {runs} on one sandbox: {len(different)} differ")
    return different


@click.command()
@click.option("--parallel", default=3 * (os.cpu_count() or 1), show_default=True, type=click.IntRange(1, 64))
@click.option("--runs", default=50, show_default=True, help="Runs on one sandbox; 0 for none.")
@click.option("--only", multiple=True, help="Only mutants whose name contains this.")
@click.option("--operators/--no-operators", default=True, help="Also play against the correct operators.")
def main(*, parallel: int, runs: int, only: tuple[str, ...], operators: bool) -> None:
    """Exit with 0 if every mutant is found, and nothing is found in a correct operator."""
    chosen = [mutant for mutant in MUTANTS if not only or any(word in mutant.name for word in only)]
    correct = (REFERENCE, *DIFFERENT, *EXAMPLES) if operators else ()
    began_s = time.monotonic()
    rows, faults = asyncio.run(_all(chosen, correct, runs=runs, parallel=parallel))
    for row in rows:
        click.echo(f"| {row.mutant} | {row.scenario} | {row.verdict} | {len(row.also) + 1} |")
    survivors = [row for row in rows if row.verdict != ScenarioVerdict.FAILED]
    faults += [f"{row.mutant} is {row.verdict} in {row.scenario}, which was made for it" for row in survivors]
    click.echo(f"{len(rows) - len(survivors)} of {len(rows)} mutants, {time.monotonic() - began_s:.0f} s")
    for fault in faults:
        click.echo(fault, err=True)
    sys.exit(1 if faults else 0)


def _write(rows: Sequence[Row]) -> None:
    """Replace these rows; keep those of other mutants that still exist."""
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    by_name = {row["mutant"]: row for row in [*kept, *(row.as_json() for row in rows)]}
    written = [by_name[mutant.name] for mutant in MUTANTS if mutant.name in by_name]
    FILE.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


async def _all(
    mutants: Sequence[Mutant], correct: Sequence[CorrectOperator], *, runs: int, parallel: int
) -> tuple[list[Row], list[str]]:
    playing, repeated = Parallel(at_once=parallel), Parallel(at_once=1)
    rows, wrong, different = await asyncio.gather(
        playing.all((mutant.name, partial(_row, mutant)) for mutant in mutants),
        playing.all((operator.name, partial(_wrong_findings, operator)) for operator in correct),
        repeated.all([("runs on one sandbox", partial(_repeated, runs))] if runs else []),
    )
    return rows, [*playing.faults, *repeated.faults, *chain(*wrong, *different)]


if __name__ == "__main__":
    main()
