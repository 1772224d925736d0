"""Injects faults everywhere while bets flow, removes them, and checks the books.

    make chaos ARGS="--minutes 30 --seeds 20"
    make chaos ARGS="--seed 4711 --minutes 2"

The injected faults follow from the seed; their consequences also depend on timing.
"""

import asyncio
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import click

from predictu_dispatch.books_check.check import Check
from predictu_dispatch.books_check.ledgers import PredictuLedger, read_predictu
from predictu_dispatch.demo.producer import Bet
from tests.chaos.environment import DATABASE, ChaosEnvironment, open_environment
from tests.chaos.fault_injector import FaultInjector, plan
from tests.chaos.report import Report
from tests.chaos.sealing import SEALED_WITHIN_S, SealedAudit, check_logs, wait_until_sealed
from tests.chaos.traffic import PLAYERS, Producers
from tests.chaos.verdict import Verdict, history, interrupted_bodies, judge, operator_ledger
from tests.support.statement_books import statement_check

_DRAIN_S = 120.0
"""Leases of 6 s expire, retries come every second, and thousands of callbacks may be waiting."""
_UNFINISHED = (
    # A health check is always due again, but one of a killed daemon must be reaped.
    "select count(*) filter (where state = 'in_flight'"
    "                           or (state in ('waiting', 'ready') and method <> 'PING')) as callbacks,"
    "       (select count(*) from predictu_dispatch.bet where state not in ('closed', 'void')) as bets"
    "  from predictu_dispatch.callback"
)
_OPEN = (
    "select operator_id, bet_id, player_id, amount, placement_request_id as placement_id"
    "  from predictu_dispatch.bet where state = 'open'"
)
_HISTORIES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    seed: int
    seconds: float
    bets_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one run; `histories` are those of the bets that faults name."""

    run: Run
    verdict: Verdict
    audit: SealedAudit
    injected: Counter[str]
    repeated: int
    drained_s: float
    histories: tuple[str, ...]


async def play(run: Run, log: Callable[[str], None]) -> Outcome:
    """Play one run in an environment of its own."""
    with tempfile.TemporaryDirectory(prefix="predictu-chaos-") as name:
        folder = Path(name) / "environment"
        folder.mkdir()
        async with open_environment(folder, seed=run.seed) as environment:
            return await _play_in(environment, run, log)


async def _play_in(environment: ChaosEnvironment, run: Run, log: Callable[[str], None]) -> Outcome:
    fault_injector = FaultInjector(environment=environment, log=log)
    producers = Producers(
        dsn=environment.dsn("chaos_producer", environment.producers_proxy),
        operator_ids=tuple(operator.operator_id for operator in environment.operators),
        seed=run.seed,
    )
    # Operators are registered when a daemon starts.
    for _ in range(2):
        await (await environment.start_daemon()).ready()
    await producers.connect()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(producers.play(seconds=run.seconds, bets_per_s=run.bets_per_s))
            tasks.create_task(fault_injector.run(plan(run.seed, run.seconds)))
        log("removing all faults")
        await fault_injector.heal()
        healed_s = time.monotonic()
        await drain(environment, producers, within_s=_DRAIN_S)
        drained_s = time.monotonic() - healed_s
        sealed_s = await sealed(environment)
        # A health check in flight would be missing in the audit.
        await environment.stop_daemons()
    finally:
        await producers.close()
    predictu, verdict, audit = await judged(environment, producers, sealed_s)
    return Outcome(
        run=run,
        verdict=verdict,
        audit=audit,
        injected=fault_injector.injected,
        repeated=producers.repeated,
        drained_s=drained_s,
        histories=tuple(_histories(predictu, verdict)),
    )


async def sealed(environment: ChaosEnvironment) -> float | None:
    """Seconds until the daemons have sealed what there is now; None if they have not in time."""
    owner = await environment.owner()
    try:
        return await wait_until_sealed(owner)
    finally:
        owner.terminate()


async def judged(
    environment: ChaosEnvironment, producers: Producers, sealed_s: float | None
) -> tuple[PredictuLedger, Verdict, SealedAudit]:
    """The books and logs of a run whose daemons have stopped, and the verdict on them.

    `sealed_s` is what sealed() returned.
    """
    for operator in environment.operators:
        await operator.process.stop()
    predictu = await read_predictu(environment.postgres.dsn(DATABASE))
    owner = await environment.owner()
    try:
        interrupted = await interrupted_bodies(owner)
    finally:
        owner.terminate()
    ledgers = [
        operator_ledger(operator.operator_id, operator.wallet, predictu, interrupted)
        for operator in environment.operators
    ]
    verdict = judge(
        predictu,
        ledgers,
        opening=PLAYERS,
        acknowledged=producers.acknowledged,
        answers={operator.operator_id: operator.answers for operator in environment.operators},
        ended_early=environment.ended_early,
    )
    owner = await environment.owner()
    try:
        audit = await check_logs(
            owner,
            environment.folder,
            seed=producers.seed,
            daemon_dsn=environment.postgres.dsn(DATABASE, "chaos_daemon"),
            auditor_dsn=environment.postgres.dsn(DATABASE, "chaos_auditor"),
        )
    finally:
        owner.terminate()
    in_time = Check(
        name="the daemons sealed everything",
        rows=audit.entries,
        figures=f"{audit.entries} entries",
        faults=() if sealed_s is not None else (f"not within {SEALED_WITHIN_S:g} s",),
    )
    statements = await statement_check(environment.postgres.dsn(DATABASE), predictu, ledgers)
    return predictu, verdict._replace(checks=(*verdict.checks, in_time, statements, *audit.checks)), audit


async def drain(environment: ChaosEnvironment, producers: Producers, *, within_s: float) -> None:
    """Wait until every bet has ended; what has not ended in time is a fault of the books."""
    give_up_at_s = time.monotonic() + within_s
    owner: asyncpg.Connection[asyncpg.Record] = await environment.owner()
    try:
        while time.monotonic() < give_up_at_s:
            # A placement may be confirmed late, and then its bet needs a terminal.
            for row in await owner.fetch(_OPEN):
                await producers.end(Bet(**dict(row)))
            unfinished = await owner.fetchrow(_UNFINISHED)
            assert unfinished is not None
            if unfinished["callbacks"] == unfinished["bets"] == 0:
                return
            await asyncio.sleep(0.25)
    finally:
        owner.terminate()


def _histories(predictu: PredictuLedger, verdict: Verdict) -> list[str]:
    return [line for fault in verdict.faults[:_HISTORIES_MAX] for line in (fault, *history(predictu, fault))]


@click.command()
@click.option("--seed", type=int, help="The first seed. Default: random, and printed.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 1000), help="Number of runs.")
@click.option(
    "--minutes", default=2.0, show_default=True, type=click.FloatRange(0.2, 600), help="Duration of all runs together."
)
@click.option("--bets-per-s", default=12.0, show_default=True, type=click.FloatRange(0.1, 200))
@click.option("--quiet", is_flag=True, help="Print only the results.")
def main(*, seed: int | None, seeds: int, minutes: float, bets_per_s: float, quiet: bool) -> None:
    """Exit with 0 if every check holds in every run, 1 if one fails."""
    first = secrets.randbelow(1_000_000) if seed is None else seed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    report = Report()
    for one in range(first, first + seeds):
        run = Run(seed=one, seconds=minutes * 60 / seeds, bets_per_s=bets_per_s)
        click.echo(f"seed {one}, {run.seconds:.0f} s, {bets_per_s:g} bets a second")
        outcome = asyncio.run(play(run, (lambda _: None) if quiet else click.echo))
        report.add(outcome.verdict, outcome.audit, outcome.injected, outcome.repeated)
        for line in outcome.histories:
            click.echo(line, err=True)
        if outcome.verdict.faults:
            click.echo(
                f"seed {one}: {len(outcome.verdict.faults)} faults; --seed {one} injects the same faults again",
                err=True,
            )
        click.echo(f"seed {one}: {outcome.verdict.sentence}, drained in {outcome.drained_s:.1f} s")
        click.echo(f"seed {one}: {outcome.audit.sentence}")
    click.echo("\n".join(report.lines()))
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
