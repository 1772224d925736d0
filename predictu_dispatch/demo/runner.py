"""Runs the demo: starts the environment, plays bets and scenarios, and checks the books."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

from predictu_dispatch.books_check import check_books
from predictu_dispatch.books_check.check import Check
from predictu_dispatch.books_check.ledgers import OperatorLedger, PredictuLedger, read_operator, read_predictu
from predictu_dispatch.books_check.money_checks import WalletSums, wallet_sums
from predictu_dispatch.demo.environment import Environment, open_environment
from predictu_dispatch.demo.fixtures import FLAKY, NO_FAULTS, PLAYERS
from predictu_dispatch.demo.inside import trials, write_shell_file
from predictu_dispatch.demo.logs import is_sealed_soon, logs_check
from predictu_dispatch.demo.paths import count_paths, paths_check
from predictu_dispatch.demo.process import DemoError
from predictu_dispatch.demo.producer import Producer
from predictu_dispatch.demo.proof import show_proof
from predictu_dispatch.demo.scenarios import SCENARIO_BETS, SCENARIOS, ScenarioContext
from predictu_dispatch.demo.screen import Screen
from predictu_dispatch.demo.traffic import ask_balances, play_traffic
from predictu_dispatch.embedded_postgres.binaries import PostgresUnavailableError
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres

EXIT_SUCCESS, EXIT_FAILED, EXIT_NO_DATABASE, EXIT_INTERRUPTED = 0, 1, 3, 130
"""130 is the shells' code for Ctrl-C."""
_BETS_PER_REPEAT: Final = 100
"""The scenarios place each of their bets once for each hundred bets."""
_TIMEOUT_S: Final = 120.0
_TIMEOUT_PER_BET_S: Final = 0.3
_POLL_S: Final = 0.1
_UNFINISHED: Final = """
    select (select count(*) from predictu_dispatch.bet where state not in ('closed', 'void'))
         + (select count(*) from predictu_dispatch.callback
             where state in ('waiting', 'ready', 'in_flight') and method <> 'PING')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command's options."""

    bets: int
    seed: int
    keep: bool
    as_json: bool


class Result(NamedTuple):
    """The checked books, all checks, the money by operator, and how many bets took each path."""

    predictu: PredictuLedger
    checks: list[Check]
    sums: Mapping[str, WalletSums]
    paths: Mapping[str, int]

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)

    @property
    def sentence(self) -> str:
        bets, callbacks, attempts, _ = self.predictu
        rows = f"{len(bets)} bets, {len(callbacks)} callbacks, {len(attempts)} attempts"
        if self.holds:
            return f"proof: {rows}: wallets, bets and audit agree to the cent"
        failed = sum(not check.holds for check in self.checks)
        return f"FAILED: {rows}: {failed} of {len(self.checks)} checks do not hold"


def check_demo(
    predictu: PredictuLedger, operators: list[OperatorLedger], observed: Mapping[str, int], *others: Check
) -> Result:
    """Check the books of a finished demo; `observed` has the producer's counts, see paths.py."""
    paths = count_paths(predictu, observed)
    opening = {operator.operator_id: PLAYERS for operator in operators}
    return Result(
        predictu=predictu,
        checks=[*check_books(predictu, operators, opening=opening), paths_check(paths), *others],
        sums={operator.operator_id: wallet_sums(predictu, operator, PLAYERS) for operator in operators},
        paths=paths,
    )


def run_demo(options: Options, screen: Screen | None = None) -> int:
    """Run the demo, stop everything that was started, and return the exit code."""
    screen = screen or Screen(sys.stderr if options.as_json else sys.stdout)
    try:
        screen.introduce(bets=options.bets, seed=options.seed)
        with EmbeddedPostgres() as postgres:
            # What is in the server's folder is removed with it, also if the demo is killed.
            folder = Path(tempfile.mkdtemp(prefix="predictu-demo-", dir=None if options.keep else postgres.folder))
            screen.print(f"Postgres {postgres.version} in {postgres.folder}")
            if options.keep:
                screen.print(f"logs and wallets in {folder}")
            screen.print("")
            return asyncio.run(_run(options, folder, postgres, screen))
    except PostgresUnavailableError as error:
        screen.print(f"FAILED: {error}")
        return EXIT_NO_DATABASE
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.print("Interrupted; nothing of the demo is running any more.")
        return EXIT_INTERRUPTED


async def _run(options: Options, folder: Path, postgres: EmbeddedPostgres, screen: Screen) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 -- a coroutine runs in a task.
    # SIGINT too: a shell's background job inherits it as ignored.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, _stop, task, screen)
    code = EXIT_FAILED
    try:
        async with open_environment(folder, postgres, fault_seed=options.seed, announce=screen.announce) as environment:
            result = await _play_and_check(environment, options, screen)
            shell_file = write_shell_file(environment, result.predictu) if options.keep else None
            if options.as_json:
                summary = {"ok": result.holds, "seed": options.seed, "elapsed_s": round(screen.elapsed_s, 1)}
                inside = _inside(environment, result, shell_file) if shell_file else {}
                sys.stdout.write(json.dumps(summary | inside | _summary(result), indent=2, ensure_ascii=False) + "\n")
                sys.stdout.flush()
            if shell_file:
                await _wait_for_interrupt(environment, screen, result.predictu, shell_file)
            code = EXIT_SUCCESS if result.holds else EXIT_FAILED
    except* DemoError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        screen.print(f"FAILED: {error}")
    return code


def _stop(task: asyncio.Task[int], screen: Screen) -> None:
    """A second Ctrl-C must not cancel the clean-up of the first."""
    if not task.cancelling():
        task.cancel()
        # The terminal may be gone.
        with contextlib.suppress(OSError):
            screen.print("Stopping everything that was started.")


async def _play_and_check(environment: Environment, options: Options, screen: Screen) -> Result:
    """Play, and check the books; what does not end in time is a fault of the books."""
    async with Producer.connected(environment.dsn("demo_producer"), seed=options.seed) as producer:
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S + options.bets * _TIMEOUT_PER_BET_S),
                screen.following(environment, bets=options.bets),
            ):
                await _play(environment, producer, options.bets)
        except TimeoutError:
            screen.print(f"FAILED: not ended in time; to inspect it, run it again with --seed {options.seed} --keep")
    is_sealed = await is_sealed_soon(environment.dsn("demo_auditor"))
    # Nothing changes the books any more, not even a health check.
    await environment.stop_daemon()
    of_logs = await logs_check(environment.dsn("demo_auditor"), environment.audit_key, is_sealed=is_sealed)
    predictu = await read_predictu(environment.dsn("demo_support"))
    operators = [read_operator(operator_id, operator.wallet) for operator_id, operator in environment.operators.items()]
    result = check_demo(predictu, operators, producer.observed, of_logs)
    show_proof(screen, result.checks, result.sums, result.sentence)
    if options.keep:
        await environment.start_daemon()
    else:
        screen.print(f"It took {screen.elapsed_s:.0f} s. All processes and files of the demo are removed now.")
        screen.print("Next: run it with --keep, which leaves everything running to look into it;")
        screen.print("README.md says how to enqueue a callback and how to run the daemon.")
    return result


async def _play(environment: Environment, producer: Producer, bets: int) -> None:
    """Play all bets to their end, then ask for every player's balance."""
    repeats = max(1, bets // _BETS_PER_REPEAT)
    async with asyncio.TaskGroup() as tasks:
        context = ScenarioContext(environment=environment, producer=producer, repeats=repeats, tasks=tasks)
        tasks.create_task(play_traffic(producer, bets - repeats * SCENARIO_BETS), name="traffic")
        for scenario in SCENARIOS:
            await scenario(context)
    await environment.set_fault_rates(FLAKY, NO_FAULTS)
    support = await asyncpg.connect(environment.dsn("demo_support"))
    try:
        while await support.fetchval(_UNFINISHED):  # noqa: ASYNC110 -- credits send no notification.
            await asyncio.sleep(_POLL_S)
    finally:
        await support.close()
    await ask_balances(producer)
    environment.announce(f"all {bets} bets have ended; now wallets, bets and audit are compared")


async def _wait_for_interrupt(
    environment: Environment, screen: Screen, predictu: PredictuLedger, shell_file: Path
) -> None:
    screen.print(f"It took {screen.elapsed_s:.0f} s. Everything keeps running until Ctrl-C. In another terminal:")
    screen.print(f"  . {shlex.quote(str(shell_file))}")
    for trial in trials(predictu):
        screen.print(f"  {trial}")
    screen.print("The file lists these commands, and the addresses of database and metrics.")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        screen.print(f"The logs and wallets stay in {environment.folder}")


def _inside(environment: Environment, result: Result, shell_file: Path) -> dict[str, object]:
    """How to look into a kept demo."""
    operators = environment.operators.items()
    return {
        "inside": {
            "shell_file": str(shell_file),
            "commands": [trial.command for trial in trials(result.predictu)],
            "config": str(environment.config),
            "database": environment.dsn("demo_support"),
            "metrics": f"http://127.0.0.1:{environment.http_port}/metrics",
            "wallets": {operator_id: str(operator.wallet) for operator_id, operator in operators},
            "ledgers": {operator_id: f"{operator.admin_url}/_admin/ledger" for operator_id, operator in operators},
        }
    }


def _summary(result: Result) -> dict[str, object]:
    predictu = result.predictu
    return {
        "bets": len(predictu.bets),
        "callbacks": len(predictu.callbacks),
        "attempts": len(predictu.attempts),
        "proof": result.sentence,
        "paths": dict(result.paths),
        "checks": [{"holds": check.holds, **check._asdict()} for check in result.checks],
        "needs_review": [review._asdict() for review in predictu.reviews],
    }
