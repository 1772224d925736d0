"""Measure isolation between operators: time from the commit of enqueue_callback() to the arrival.

    make bench-isolation ARGS="--scenario dead --pairs 3"

Each scenario alternates between alone and troubled in one run, and compares the two p99.
"""

import asyncio
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import click

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.figures import HEADER, TABLE_HEAD, Comparison
from tests.bench.isolation_environment import IsolationEnvironment, Pace, open_isolation_environment
from tests.bench.machine import machine
from tests.bench.scenarios import SCENARIOS, Scenario, control_of

_README = Path(__file__).with_name("README.md")
_TABLE_FROM, _TABLE_TO = "<!-- measured -->\n", "<!-- end -->\n"
_NAMES = tuple(scenario.name for scenario in SCENARIOS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure, and the time limit."""

    scenarios: tuple[Scenario, ...]
    pairs: int
    pace: Pace
    limit_s: float


@dataclass(kw_only=True)
class Results:
    machine: str = ""
    comparisons: list[Comparison] = field(default_factory=list)


@click.command()
@click.option(
    "--scenario", "names", multiple=True, type=click.Choice(_NAMES), help="Run only this scenario; repeatable."
)
@click.option("--control", is_flag=True, help="Leave out the trouble, to measure the noise.")
@click.option("--pairs", default=5, show_default=True, type=click.IntRange(3, 50))
@click.option("--segment-s", default=10.0, show_default=True, type=click.FloatRange(1, 120))
@click.option("--warm-up-s", default=3.0, show_default=True, type=click.FloatRange(0, 60))
@click.option("--rate", default=100.0, show_default=True, type=click.FloatRange(1, 1000), help="Arrivals a second.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--limit-s", default=1500.0, show_default=True, help="Time limit for all scenarios; exit code 1 when exceeded."
)
@click.option("--write", is_flag=True, help="Update the table in tests/bench/README.md.")
def main(
    *,
    names: tuple[str, ...],
    control: bool,
    pairs: int,
    segment_s: float,
    warm_up_s: float,
    rate: float,
    seed: int,
    limit_s: float,
    write: bool,
) -> None:
    chosen = [scenario for scenario in SCENARIOS if scenario.name in (names or _NAMES)]
    plan = Plan(
        scenarios=tuple(map(control_of, chosen) if control else chosen),
        pairs=pairs,
        pace=Pace(rate=rate, warm_up_s=warm_up_s, segment_s=segment_s, seed=seed),
        limit_s=limit_s,
    )
    results = Results()
    # Both signals stop everything in order, also in a background job whose shell ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        asyncio.run(_play(plan, results))
    except TimeoutError:
        click.echo(f"not complete after {limit_s:g} s (--limit-s)", err=True)
        sys.exit(1)
    if write:
        _write_table(results)
    sys.exit(0 if all(comparison.is_kept for comparison in results.comparisons) else 1)


async def _play(plan: Plan, results: Results) -> None:
    """Run and print every scenario. Raises TimeoutError after the time limit."""
    # The time limit does not include starting and stopping the server.
    with tempfile.TemporaryDirectory(prefix="predictu-bench-") as folder, EmbeddedPostgres(fsync=True) as postgres:
        results.machine = machine(postgres)
        click.echo(results.machine)
        async with asyncio.timeout(plan.limit_s), open_isolation_environment(postgres, Path(folder)) as environment:
            for scenario in plan.scenarios:
                results.comparisons.append(await _compare(environment, scenario, plan))


async def _compare(environment: IsolationEnvironment, scenario: Scenario, plan: Plan) -> Comparison:
    click.echo(f"\n{scenario.name}: {scenario.text}")
    pace = plan.pace
    click.echo(f"{pace.rate:g} {scenario.method} a second for {pace.segment_s:g} s; ms from commit to arrival")
    click.echo(HEADER)
    segments = []
    async with environment.sides(scenario, pace) as sides:
        for pair in range(1, plan.pairs + 1):
            for side in sides:
                segments.append(await environment.measure(scenario, side, pair, pace))
                click.echo(segments[-1].line())
    comparison = Comparison(scenario=scenario, segments=segments)
    for line in comparison.lines():
        click.echo(line)
    return comparison


def _write_table(results: Results) -> None:
    before, _, rest = _README.read_text(encoding="utf-8").partition(_TABLE_FROM)
    _, _, after = rest.partition(_TABLE_TO)
    rows = "\n".join(comparison.row() for comparison in results.comparisons)
    table = f"{results.machine}\n\n{TABLE_HEAD}\n{rows}\n"
    _README.write_text(f"{before}{_TABLE_FROM}{table}{_TABLE_TO}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
