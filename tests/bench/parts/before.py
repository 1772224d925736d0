"""`before`: the cost of a callback in this tree and in an earlier commit, in turn.

The earlier commit is checked out into a temporary folder with its own environment. Run as a script,
this file measures the tree in whose folder it is run, with the tests.bench of that tree.
"""

import asyncio
import json
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import aiohttp

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.bench_environment import BenchEnvironment, Plan
from tests.bench.contenders import Ours
from tests.bench.findings import Figure, Findings, ratios
from tests.bench.json_lines import JsonLinesProcess
from tests.bench.meter import BrokenRoundError, Reading
from tests.bench.peers import run
from tests.bench.receiver import Receiver
from tests.bench.rounds import in_turn

_CPU_AT_MOST = 0.52
"""Required ratio of the worker's CPU time."""
_ROOT = Path(__file__).parents[3]
_THIS, _BEFORE = "this", "before"


async def measure(environment: BenchEnvironment) -> Findings:
    plan = environment.plan
    commit = run("git", "-C", str(_ROOT), "rev-parse", "--short", "--verify", f"{plan.before}^{{commit}}").strip()
    tree = environment.folder / "before"
    environment.say(f"preparing the environment of {commit}")
    await asyncio.to_thread(_check_out, commit, tree)
    script = (str(tree / ".venv/bin/python"), "-P", __file__, str(tree), str(plan.scale), str(plan.seed))
    earlier = await JsonLinesProcess.start_command(*script, cwd=tree)

    async def before() -> Reading:
        answer = await earlier.ask(do="measure")
        if "broken" in answer:
            raise BrokenRoundError(answer["broken"])
        return Reading(**answer)

    try:
        ours = Ours(environment)
        await ours.prepare()
        rounds = await in_turn(environment, {_BEFORE: before, _THIS: ours.measure}, base=_BEFORE)
    finally:
        await earlier.close()

    def ratio(name: str, of: Callable[[Reading], float], at_most: float | None = None) -> Figure:
        values = ratios(rounds.values(_THIS, of), rounds.values(_BEFORE, of))
        return Figure(name=f"{name}, this / before", values=values, at_most=at_most)

    return Findings(
        part="before",
        title=f"this tree and commit {commit} on the same work",
        figures=[
            ratio("worker CPU", lambda reading: reading.worker_s, at_most=_CPU_AT_MOST),
            ratio("store CPU", lambda reading: reading.store_s),
            ratio("WAL", lambda reading: reading.wal_bytes),
            ratio("throughput", lambda reading: reading.rate),
        ],
        rates=rounds.rows(),
        notes=rounds.all_notes,
    )


def _check_out(commit: str, tree: Path) -> None:
    """Write the files of the commit and create its environment. Raises PeersUnavailableError."""
    archive = tree.with_suffix(".tar")
    run("git", "-C", str(_ROOT), "archive", f"--output={archive}", commit)
    with tarfile.open(archive) as files:
        files.extractall(tree, filter="data")
    run("make", "--no-print-directory", "-C", str(tree), ".venv/.stamp")


async def _answer(tree: str, scale: str, seed: str) -> None:
    """Run in the checkout: measure a round for each line of stdin, and print it as JSON."""
    assert Path(sys.modules[Ours.__module__].__file__ or "").is_relative_to(tree)
    plan = Plan(rounds=1, scale=float(scale), full=False, seed=int(seed))
    # The parent removes this folder.
    folder = Path(tree)
    with EmbeddedPostgres(fsync=True) as postgres, Receiver(folder / "nginx") as receiver:
        async with aiohttp.ClientSession() as session:
            environment = BenchEnvironment(
                postgres, receiver, folder=folder, session=session, plan=plan, say=lambda _: None
            )
            await environment.prepare()
            ours = Ours(environment)
            await ours.prepare()
            while await asyncio.to_thread(sys.stdin.readline):
                answer: dict[str, Any]
                try:
                    answer = asdict(replace(await ours.measure(), metrics={}))
                except BrokenRoundError as broken:
                    answer = {"broken": str(broken)}
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_answer(*sys.argv[1:]))
