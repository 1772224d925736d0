"""Measure throughput, latency and cost of the daemon and of other job queues. See README.md.

make bench ARGS="--part throughput --rounds 3"
"""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg
import click

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from predictu_dispatch.embedded_postgres.watcher import Watcher
from tests.bench.bench_environment import BenchEnvironment, Plan
from tests.bench.findings import Figure, Findings
from tests.bench.machine import machine
from tests.bench.parts import before, cores, enqueue, flat, latency, memory, rs256, throughput, tls
from tests.bench.peers import PeersUnavailableError
from tests.bench.picture import draw
from tests.bench.readme import PICTURE, keep
from tests.bench.receiver import Receiver

_DRAWN = {"rates", "latencies"}
PARTS: dict[str, Callable[[BenchEnvironment], Awaitable[Findings]]] = {
    "throughput": throughput.measure,
    "latency": latency.measure,
    "enqueue": enqueue.measure,
    "tls": tls.measure,
    "flat-dead": flat.dead_backlog,
    "flat-history": flat.history,
    "flat-snapshot": flat.snapshot,
    "flat-operators": flat.many_operators,
    "cores": cores.measure,
    "rs256": rs256.measure,
    "memory": memory.measure,
    "before": before.measure,
}


@dataclass(kw_only=True)
class Results:
    machine: str = ""
    findings: list[Findings] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        return [f"{one.part}: {f.line()}" for one in self.findings for f in one.figures if not f.is_kept]


@click.command()
@click.option("--part", "names", multiple=True, type=click.Choice(tuple(PARTS)), help="Run only this part; repeatable.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 50))
@click.option("--full", is_flag=True, help="Full sizes in flat-* and memory instead of a tenth; takes hours.")
@click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.01, 10),
    help="Multiply the amount of work; for trying it out.",
)
@click.option("--seed", default=1, show_default=True)
@click.option("--before", "commit", default="", metavar="COMMIT", help="Compare with this commit in the part `before`.")
@click.option(
    "--limit-s", default=7200.0, show_default=True, help="Time limit for all parts; exit code 1 when exceeded."
)
@click.option("--write", is_flag=True, help="Update the results in tests/bench/README.md.")
def main(
    *,
    names: tuple[str, ...],
    rounds: int,
    full: bool,
    scale: float,
    seed: int,
    commit: str,
    limit_s: float,
    write: bool,
) -> None:
    if "before" in names and not commit:
        raise click.UsageError("--part before needs --before COMMIT")
    chosen = [name for name in PARTS if name in (names or PARTS)]
    if not names and not commit:
        click.echo("before: left out; --before COMMIT compares with an earlier commit")
        chosen.remove("before")
    results = Results()
    plan = Plan(rounds=rounds, scale=scale, full=full, seed=seed, before=commit)
    # Both signals stop everything in order, also in a background job whose shell ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        asyncio.run(_play(chosen, plan, limit_s, results))
        is_complete = True
    except (TimeoutError, RuntimeError) as error:
        is_complete = False
        in_words = f"not complete after {limit_s:g} s (--limit-s)" if isinstance(error, TimeoutError) else str(error)
        click.echo(in_words, err=True)
    if write and results.findings:
        # Also written if a part is missing; the table shows which parts were measured.
        _write(results)
    click.echo(f"\n{len(results.missed)} figures missed" if results.missed else "\nevery limit is kept")
    for line in results.missed:
        click.echo(line)
    sys.exit(0 if is_complete and not results.missed else 1)


async def _play(names: list[str], plan: Plan, limit_s: float, results: Results) -> None:
    """Run and print every part.

    Raises TimeoutError after `limit_s`, and RuntimeError with a message.
    """
    # The time limit does not include starting and stopping the servers.
    with (
        tempfile.TemporaryDirectory(prefix="predictu-bench-") as temporary,
        # Removes the folder if this process is killed.
        closing(Watcher(Path(temporary))),
        EmbeddedPostgres(fsync=True) as postgres,
        Receiver(_open_to_all(Path(temporary)) / "nginx") as receiver,
    ):
        results.machine = f"{machine(postgres)}; fsync on; {plan.rounds} rounds"
        click.echo(results.machine)
        async with asyncio.timeout(limit_s), aiohttp.ClientSession() as session:
            environment = BenchEnvironment(
                postgres, receiver, folder=Path(temporary), session=session, plan=plan, say=click.echo
            )
            await environment.prepare()
            for name in names:
                click.echo(f"\n{name}")
                try:
                    findings = await PARTS[name](environment)
                except (RuntimeError, AssertionError, asyncpg.PostgresError, PeersUnavailableError) as error:
                    # The other parts still run.
                    findings = Findings(part=name, title="", figures=[Figure(name="all of it", values=())])
                    findings.notes.append(f"BROKEN: {error}")
                await environment.clear()
                results.findings.append(findings)
                click.echo()
                for line in findings.lines():
                    click.echo(f"  {line}")


def _open_to_all(folder: Path) -> Path:
    """The folder, readable by nginx's worker, which is another user if we are root."""
    folder.chmod(0o755)
    return folder


def _write(results: Results) -> None:
    """Update README.md, and the picture if everything in it was measured."""
    bars = {name: bar for findings in results.findings for name, bar in findings.bars.items()}
    if bars.keys() >= _DRAWN:
        try:
            draw({"machine": results.machine, **bars}, PICTURE)
        except PeersUnavailableError as unavailable:
            click.echo(f"no picture: {unavailable}", err=True)
    keep(results.findings, machine=results.machine, order=tuple(PARTS))


if __name__ == "__main__":
    main()
