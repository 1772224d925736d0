"""Kills reconciliations at random moments and runs them again: the result is always the same."""

import asyncio
import random
from collections import Counter

import click

from tests.bench.backlog import owner_of
from tests.bench.evidence import Figures
from tests.bench.ledger_day import OPERATOR
from tests.bench.reconcile_process import Ended
from tests.bench.reconcile_runs import ReconcileBench

PHASES = ("beginning", "reading", "comparing", "classifying", "ending")
_MEANS = ("command", "session", "server")
_WAITING = 0.5
"""In the other cases the next run is beside what the session of the killed command still does."""
_CODES_OF_KILLED = (-9, 3)
_LEFT = """
    select count(*) as lines, count(*) filter (where r.finished_at is not null) as of_finished
      from predictu_dispatch.reconciliation_line l
      join predictu_dispatch.reconciliation_run r using (operator_id, run_id) where operator_id = $1
"""
_MAKE_OLD = """
    update predictu_dispatch.reconciliation_run set started_at = started_at - interval '2 days'
     where operator_id = $1 and finished_at is null
"""


async def kills(bench: ReconcileBench, figures: Figures, count: int, chance: random.Random) -> None:
    """Kills the command, its session or the server; runs again after each kill."""
    whole = await bench.run()
    [*_, first] = await bench.finished()
    expected, open_at_first = await bench.digest(first), await bench.open_digest()
    for line in (await bench.wrong(first))[:5]:
        click.echo(f"  {line}")
    hit: Counter[str] = Counter()
    others = unnoticed = 0
    for number in range(count):
        means = _MEANS[number % len(_MEANS)]
        before = {run["run_id"] for run in await bench.finished()}
        phase, code = await _kill(bench, means, *_moment(whole, chance), waits=chance.random() < _WAITING)
        unnoticed += phase in PHASES and code not in _CODES_OF_KILLED
        hit[f"{phase}, {means}"] += 1
        again = await bench.run()
        # What the killed run has stored counts too, if it came to an end.
        runs = [run for run in await bench.finished() if run["run_id"] not in before]
        digests = {await bench.digest(run) for run in runs}
        if again.code != whole.code or digests != {expected} or await bench.open_digest() != open_at_first:
            others += 1
            click.echo(f"  kill {number} of the {means} while {phase}: exit code {again.code}; {again.output[-300:]}")
    click.echo(f"{count} kills: {', '.join(f'{number} {what}' for what, number in sorted(hit.items()))}")
    figures.show("kills with another result afterwards", others, 0, "")
    figures.show("commands that did not report that they had been ended", unnoticed, 0, "")
    # A server that is killed loses the lines, and a session that goes on removes them.
    await _kill(bench, "command", "reading", whole.reading_s / 2)
    async with owner_of(bench.postgres, bench.database) as owner:
        left = await owner.fetchrow(_LEFT, OPERATOR)
        assert left is not None
        figures.show("lines left of finished runs", left["of_finished"], 0, "")
        await owner.execute(_MAKE_OLD, OPERATOR)
        await bench.run()
        kept = await owner.fetchval("select count(*) from predictu_dispatch.reconciliation_line")
    figures.show(f"of {left['lines']:,} lines of killed runs, left after a day", kept, 0, "")


def _moment(whole: Ended, chance: random.Random) -> tuple[str, float]:
    """A phase, and seconds after its beginning. The phases have the same probability."""
    phase = chance.choice([phase for phase in PHASES if phase in whole.seen_s])
    first_s, last_s = whole.seen_s[phase]
    # Every second kill is near the end of the phase, where something is stored.
    return phase, (last_s - first_s) * chance.choice((chance.random(), chance.uniform(0.9, 1.1)))


async def _kill(
    bench: ReconcileBench, means: str, wanted: str, after_s: float, *, waits: bool = True
) -> tuple[str, int]:
    """Kill a run this long after a phase begins; the phase that was hit, and the exit code."""
    running = await bench.start()
    async with owner_of(bench.postgres, bench.database) as owner:
        await running.reached(wanted, owner)
        await running.watched_for(after_s, owner)
        row = await running.session(owner)
        phase = row["phase"] if row is not None else "no session"
        match means:
            case "command":
                await running.killed()
                if waits:
                    await running.session_gone(owner)
                return phase, -9
            case "session":
                if row is not None:
                    await owner.fetchval("select pg_terminate_backend($1, 5000)", row["pid"])
            case _:
                await asyncio.to_thread(bench.postgres.kill)
                await asyncio.to_thread(bench.postgres.restart)
    return phase, await running.ended_by_itself()
