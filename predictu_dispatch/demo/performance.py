"""The demo from curtain to proof: who goes on stage when, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import asyncpg

from predictu_dispatch.demo.acts import ACTS, DIRECTED_BETS, Trouble
from predictu_dispatch.demo.books import read_operator, read_predictu
from predictu_dispatch.demo.cast import CALM, FLAKY, ROLES
from predictu_dispatch.demo.child import DemoError
from predictu_dispatch.demo.inside import how_to_look_inside, stuck_lines
from predictu_dispatch.demo.platform import Platform
from predictu_dispatch.demo.proof import Proof, prove
from predictu_dispatch.demo.snapshot import unfinished
from predictu_dispatch.demo.stage import Stage, open_stage
from predictu_dispatch.demo.table import View
from predictu_dispatch.demo.traffic import ask_balances, play_traffic
from predictu_dispatch.embedded_postgres.binaries import PostgresUnavailableError
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from predictu_dispatch.embedded_postgres.watcher import Watcher

EXIT_FINE, EXIT_FAILED, EXIT_NO_DATABASE, EXIT_INTERRUPTED = 0, 1, 3, 130
"""Source: DESIGN.md 8; 130 is what shells know as the end by Ctrl-C."""

_BETS_FOR_EACH_REPEAT: Final = 100
"""Directed bets are played once more for each hundred."""
_TIME_BASE_S: Final = 120.0
_TIME_BY_BET_S: Final = 0.3
"""Four times what a slow machine takes: whatever is not over by then is stuck."""
_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for."""

    bets: int
    seed: int
    keep: bool
    as_json: bool


def run_demo(options: Options) -> int:
    """The exit code: 0 where every check of the proof holds. All that was started is stopped, whatever happened."""
    view = View(sys.stderr if options.as_json else sys.stdout)
    view.say(f"{options.bets} bets; --seed {options.seed} draws the same again")
    try:
        with _folder(kept=options.keep) as folder, EmbeddedPostgres() as postgres:
            view.say(f"Postgres {postgres.version} runs in {postgres.folder}, everything else in {folder}")
            return asyncio.run(_run(options, folder, postgres, view))
    except PostgresUnavailableError as error:
        view.say(str(error))
        return EXIT_NO_DATABASE
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.say("Interrupted. Everything that was started is stopped.")
        return EXIT_INTERRUPTED


@contextmanager
def _folder(*, kept: bool) -> Iterator[Path]:
    """A folder of the demo's own; if it is not to be kept, it goes even when we are killed."""
    folder = Path(tempfile.mkdtemp(prefix="predictu-demo-"))
    if kept:
        yield folder
        return
    watcher = Watcher(folder)
    try:
        yield folder
    finally:
        watcher.close()


async def _run(options: Options, folder: Path, postgres: EmbeddedPostgres, view: View) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 -- a coroutine runs in a task.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with open_stage(folder, postgres, fault_seed=options.seed) as stage:
            proof = await _play(stage, options, view)
            if options.as_json:
                sys.stdout.write(_summary(options, stage, proof) + "\n")
                sys.stdout.flush()
            if options.keep:
                await _keep(stage, view)
            code = EXIT_FINE if proof is not None and proof.holds else EXIT_FAILED
    except* DemoError as failures:
        for failure in _leaves(failures):
            view.say(str(failure))
        code = EXIT_FAILED
    return code


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _play(stage: Stage, options: Options, view: View) -> Proof | None:
    """The proof, shown; None where the demo did not come to its end, which is explained then."""
    try:
        async with (
            asyncio.timeout(_TIME_BASE_S + options.bets * _TIME_BY_BET_S),
            Platform.connected(stage.dsn("demo_platform"), seed=options.seed) as platform,
            view.following(stage),
        ):
            await _play_all(stage, platform, options.bets)
    except TimeoutError:
        for line in stuck_lines(stage, await read_predictu(stage.dsn("demo_support"))):
            view.say(line)
        if not options.keep:
            view.say(f"To look inside, run it again with --seed {options.seed} --keep.")
        return None
    # Not even a health check moves any more: what is compared now is what is left.
    await stage.stop_all()
    proof = await read_and_prove(stage, platform)
    view.show_proof(proof)
    if options.keep:
        await stage.start_again()
    return proof


async def _play_all(stage: Stage, platform: Platform, bets: int) -> None:
    """All bets are at their end, and every player's balance was asked for after the last."""
    repeats = max(1, bets // _BETS_FOR_EACH_REPEAT)
    async with asyncio.TaskGroup() as tasks:
        trouble = Trouble(stage=stage, platform=platform, repeats=repeats, tasks=tasks)
        tasks.create_task(play_traffic(platform, bets - repeats * DIRECTED_BETS), name="traffic")
        for act in ACTS:
            await act(trouble)
    await stage.change_weather(FLAKY, CALM)
    support = await asyncpg.connect(stage.dsn("demo_support"))
    try:
        while await unfinished(support):  # noqa: ASYNC110 -- what ends is in Postgres, which tells nobody of credits.
            await asyncio.sleep(_LOOK_S)
    finally:
        await support.close()
    await ask_balances(platform)
    stage.note("all bets are over")


async def read_and_prove(stage: Stage, platform: Platform) -> Proof:
    """Both sides' books of this moment, held against each other."""
    predictu = await read_predictu(stage.dsn("demo_support"))
    operators = [
        await asyncio.to_thread(read_operator, operator_id, operator.wallet)
        for operator_id, operator in stage.operators.items()
    ]
    opening = {role.operator_id: role.players for role in ROLES}
    return prove(predictu, operators, opening=opening, witnessed=platform.witnessed)


async def _keep(stage: Stage, view: View) -> None:
    """Returns at Ctrl-C."""
    for line in how_to_look_inside(stage, await read_predictu(stage.dsn("demo_support"))):
        view.say(line)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        view.say(f"Stopped. The files stay in {stage.folder}")


def _summary(options: Options, stage: Stage, proof: Proof | None) -> str:
    """The final summary for a program to read."""
    summary: dict[str, object] = {"ok": proof is not None and proof.holds, "seed": options.seed}
    summary["elapsed_s"] = round(stage.elapsed_s, 1)
    if options.keep:
        summary["inside"] = {
            "config": str(stage.config),
            "database": stage.dsn("demo_support"),
            "metrics": f"http://127.0.0.1:{stage.http_port}/metrics",
            "wallets": {operator_id: str(operator.wallet) for operator_id, operator in stage.operators.items()},
            "ledgers": {operator_id: f"{o.admin_url}/_admin/ledger" for operator_id, o in stage.operators.items()},
        }
    if proof is not None:
        summary |= {"bets": proof.bets, "callbacks": proof.callbacks, "attempts": proof.attempts}
        summary |= {"proof": proof.sentence, "paths": dict(proof.paths)}
        summary["checks"] = [{"holds": check.holds, **asdict(check)} for check in proof.checks]
        summary["needs_review"] = [asdict(review) for review in proof.reviews]
    return json.dumps(summary, indent=2, ensure_ascii=False)
