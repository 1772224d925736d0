"""What reconciling a large day takes, and what is left if it is killed: `make finance`.

    python -m tests.bench.reconcile --lines 1000000
    python -m tests.bench.reconcile --part kills --kills 40

Prints figures with what they must be; exit code 1 if one is not. It starts servers of its own, and
ends only what it started.
"""

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import aiohttp
import click

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from predictu_dispatch.embedded_postgres.watcher import Watcher
from tests.bench.bench import _open_to_all
from tests.bench.bench_environment import BenchEnvironment, Plan
from tests.bench.evidence import Figures
from tests.bench.machine import machine
from tests.bench.receiver import Receiver
from tests.bench.reconcile_beside import Beside, at_fixed_rate, at_full_speed
from tests.bench.reconcile_kills import kills
from tests.bench.reconcile_process import Ended
from tests.bench.reconcile_runs import ReconcileBench, yesterday

_RUN_S, _RUN_MB = 90.0, 200.0
_FAULTS = 20
"""Of each kind."""
_SETTINGS = {"max_wal_size": "4GB"}
_SHOWN = 5
_PARTS = ("kills", "run", "beside")


async def whole_run(bench: ReconcileBench, figures: Figures, runs: int) -> None:
    """The time, memory and result of whole runs, with nothing beside them."""
    assert bench.written is not None
    ended: list[Ended] = []
    for _ in range(runs):
        ended.append(await bench.run())
        if ended[-1].code not in (0, 1):
            raise RuntimeError(f"reconcile ended with {ended[-1].code}: {ended[-1].output[-2000:]}")
    best = min(ended, key=lambda one: one.took_s)
    click.echo(
        f"{bench.written.lines:,} lines, {len(bench.written.planted)} planted differences;"
        f" {runs} runs: {', '.join(f'{one.took_s:.1f}' for one in ended)} s"
    )
    figures.show("whole run, the fastest", best.took_s, _RUN_S, "s")
    click.echo(
        f"  reading and COPY {best.reading_s:.1f} s, classifying {best.classifying_s:.1f} s;"
        f" CPU of the command {best.command_s:.1f} s, of its session {best.session_s:.1f} s"
    )
    figures.show("memory of the command, at most", max(one.memory_mb for one in ended), _RUN_MB, "MB")
    click.echo(f"  temporary files of the server {best.temporary_mb:,.0f} MB")
    finished = await bench.finished()
    wrong = await bench.wrong(finished[-1])
    for line in wrong[:_SHOWN]:
        click.echo(f"  {line}")
    figures.show("differences missed, or found although not planted", len(wrong), 0, "")
    others = {await bench.digest(run) for run in finished}
    figures.show("results that differ from run to run", len(others) - 1, 0, "")


async def _measure(names: tuple[str, ...], plan: Plan, figures: Figures, sizes: Mapping[str, int]) -> None:
    """Run the parts on one server."""
    with (
        tempfile.TemporaryDirectory(prefix="predictu-bench-") as temporary,
        # Removes the folder if this process is killed.
        closing(Watcher(Path(temporary))),
        EmbeddedPostgres(fsync=True, settings=_SETTINGS) as postgres,
    ):
        folder = _open_to_all(Path(temporary))
        click.echo(f"{machine(postgres)}; fsync on")

        async def prepared(name: str, lines: int) -> ReconcileBench:
            bench = ReconcileBench(postgres, folder / name, database=f"day_{name}", day=yesterday())
            (folder / name).mkdir()
            await bench.prepare(lines=lines, faults=_FAULTS, seed=plan.seed)
            return bench

        if "kills" in names:
            click.echo("\nkills")
            small = await prepared("small", sizes["kill_lines"])
            await kills(small, figures, sizes["kills"], random.Random(plan.seed))
        if names == ("kills",) and not sizes["large_kills"]:
            return
        began_s = time.monotonic()
        large = await prepared("large", sizes["lines"])
        click.echo(f"\nthe day of {sizes['lines']:,} lines was written in {time.monotonic() - began_s:.0f} s")
        if "run" in names:
            click.echo("\nrun")
            await whole_run(large, figures, sizes["runs"])
        if "beside" in names:
            click.echo("\nbeside")
            await _beside(large, folder, plan, figures)
        if "kills" in names and sizes["large_kills"]:
            click.echo("\nkills of the large day")
            await kills(large, figures, sizes["large_kills"], random.Random(plan.seed))


async def _beside(bench: ReconcileBench, folder: Path, plan: Plan, figures: Figures) -> None:
    """The daemon with and without a reconciliation."""
    with Receiver(folder / "nginx") as receiver:
        async with aiohttp.ClientSession() as session:
            environment = BenchEnvironment(
                bench.postgres, receiver, folder=folder, session=session, plan=plan, say=click.echo
            )
            await environment.prepare()
            beside = Beside(environment=environment, bench=bench)
            for part in (at_fixed_rate, at_full_speed):
                for figure in await part(beside):
                    figures.add(figure)
            for note in beside.notes:
                click.echo(note)


@click.command()
@click.option("--part", "names", multiple=True, type=click.Choice(_PARTS), help="Only this part; repeatable.")
@click.option("--lines", default=1_000_000, show_default=True, help="Lines of the large ledger.")
@click.option("--runs", default=2, show_default=True, help="Whole runs in `run`.")
@click.option("--kills", default=30, show_default=True, help="Kills in `kills`, on a smaller ledger.")
@click.option("--kill-lines", default=60_000, show_default=True, help="Lines of the smaller ledger.")
@click.option("--large-kills", default=3, show_default=True, help="Kills on the large ledger.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of `beside`.")
@click.option("--scale", default=1.0, show_default=True, help="Multiplies the daemon's work in `beside`.")
@click.option("--seed", default=1, show_default=True)
def main(names: tuple[str, ...], *, rounds: int, scale: float, seed: int, **sizes: int) -> None:
    """Measure the reconciliation of a large day."""
    # Both signals stop everything in order, also in a background job whose shell ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    figures = Figures()
    plan = Plan(rounds=rounds, scale=scale, full=False, seed=seed)
    asyncio.run(_measure(names or _PARTS, plan, figures, sizes))
    click.echo("\nevery limit is kept" if figures.are_good else "\na limit is missed")
    sys.exit(0 if figures.are_good else 1)


if __name__ == "__main__":
    main()
