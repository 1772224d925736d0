"""Kills, freezes and cuts everything while bets flow, heals it, and proves from the books that the money is right.

    make chaos ARGS="--minutes 30 --seeds 20"
    make chaos ARGS="--seed 4711 --minutes 2"

What is done follows from the seed, so the same seed does the same again; what comes of it also depends on timing.
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

from predictu_dispatch.books_check.ledgers import PredictuLedger, read_predictu
from tests.chaos.fault_injector import FaultInjector
from tests.chaos.plan import plan
from tests.chaos.report import Report
from tests.chaos.traffic import PLAYERS, Bet, Producers
from tests.chaos.verdict import Verdict, history, judge, operator_ledger
from tests.chaos.world import DATABASE, World, open_world

_DRAIN_S = 120.0
"""Once all is well: leases of 6 s run out, retries come every second, and thousands may be waiting."""
_LEFT = (
    # A health check is always due again, but one that a killed daemon held must be reaped.
    "select count(*) filter (where state = 'in_flight'"
    "                           or (state in ('waiting', 'ready') and method <> 'PING')) as callbacks,"
    "       (select count(*) from predictu_dispatch.bet where state not in ('closed', 'void')) as bets"
    "  from predictu_dispatch.callback"
)
_OPEN = (
    "select operator_id, bet_id, player_id, amount, placement_request_id as placement_id"
    "  from predictu_dispatch.bet where state = 'open'"
)
_HISTORIES_MOST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one seed is played."""

    seed: int
    seconds: float
    bets_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one seed: the books' verdict, what was done, and what faults look like from near."""

    run: Run
    verdict: Verdict
    done: Counter[str]
    asked_again: int
    drained_s: float
    histories: tuple[str, ...]


async def play(run: Run, say: Callable[[str], None]) -> Outcome:
    """One seed from beginning to end, in a world of its own that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="predictu-chaos-") as name:
        folder = Path(name)
        (folder / "world").mkdir()
        async with open_world(folder / "world", seed=run.seed) as world:
            return await _played(world, run, say)


async def _played(world: World, run: Run, say: Callable[[str], None]) -> Outcome:
    fault_injector = FaultInjector(world=world, say=say)
    producers = Producers(
        dsn=world.dsn("chaos_producer", world.producers_line),
        operator_ids=tuple(operator.operator_id for operator in world.operators),
        seed=run.seed,
    )
    # Operators enter the database when a daemon starts.
    for _ in range(2):
        await (await world.start_daemon()).ready()
    await producers.connect()
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(producers.play(seconds=run.seconds, bets_per_s=run.bets_per_s))
            both.create_task(fault_injector.play(plan(run.seed, run.seconds)))
        say("healed")
        await fault_injector.heal()
        began_s = time.monotonic()
        await _drained(world, producers, within_s=_DRAIN_S)
        drained_s = time.monotonic() - began_s
        # A health check that is just under way would be missing in the audit.
        await world.stop_daemons()
    finally:
        await producers.close()
    for operator in world.operators:
        await operator.child.stop()
    predictu = await read_predictu(world.postgres.dsn(DATABASE))
    ledgers = [operator_ledger(operator.operator_id, operator.wallet) for operator in world.operators]
    verdict = judge(predictu, ledgers, opening=PLAYERS, acknowledged=producers.acknowledged)
    return Outcome(
        run=run,
        verdict=verdict,
        done=fault_injector.done,
        asked_again=producers.asked_again,
        drained_s=drained_s,
        histories=tuple(_histories(predictu, verdict)),
    )


async def _drained(world: World, producers: Producers, *, within_s: float) -> None:
    """Every bet has its end; what still has none when the time is up shows in the books."""
    give_up_at_s = time.monotonic() + within_s
    owner: asyncpg.Connection[asyncpg.Record] = await world.owner()
    try:
        while time.monotonic() < give_up_at_s:
            # A placement may still be confirmed, and then its bet waits for its end.
            for row in await owner.fetch(_OPEN):
                await producers.end(Bet(**dict(row)))
            left = await owner.fetchrow(_LEFT)
            assert left is not None
            if left["callbacks"] == left["bets"] == 0:
                return
            await asyncio.sleep(0.25)
    finally:
        owner.terminate()


def _histories(predictu: PredictuLedger, verdict: Verdict) -> list[str]:
    return [line for fault in verdict.faults[:_HISTORIES_MOST] for line in (fault, *history(predictu, fault))]


@click.command()
@click.option("--seed", type=int, help="The first seed; drawn and printed if not given.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 1000), help="So many, one after another.")
@click.option(
    "--minutes", default=2.0, show_default=True, type=click.FloatRange(0.2, 600), help="Of all seeds together."
)
@click.option("--bets-per-s", default=12.0, show_default=True, type=click.FloatRange(0.1, 200))
@click.option("--quiet", is_flag=True, help="Only the results, not what is done.")
def main(*, seed: int | None, seeds: int, minutes: float, bets_per_s: float, quiet: bool) -> None:
    """Exit code 0 where every invariant held in every run, 1 where one was broken."""
    first = secrets.randbelow(1_000_000) if seed is None else seed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    report = Report()
    for one in range(first, first + seeds):
        run = Run(seed=one, seconds=minutes * 60 / seeds, bets_per_s=bets_per_s)
        click.echo(f"seed {one}, {run.seconds:.0f} s, {bets_per_s:g} bets a second")
        outcome = asyncio.run(play(run, (lambda _: None) if quiet else click.echo))
        report.add(outcome.verdict, outcome.done, outcome.asked_again)
        for line in outcome.histories:
            click.echo(line, err=True)
        if outcome.verdict.faults:
            click.echo(f"seed {one}: {len(outcome.verdict.faults)} faults; --seed {one} does the same again", err=True)
        click.echo(f"seed {one}: {outcome.verdict.sentence}, drained in {outcome.drained_s:.1f} s")
    click.echo("\n".join(report.lines()))
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
