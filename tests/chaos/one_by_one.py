"""Holds one fault at a time against a fleet, and measures what is delivered meanwhile and after it.

.venv/bin/python -m tests.chaos.one_by_one
.venv/bin/python -m tests.chaos.one_by_one "a full notification queue"
"""

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import click

from tests.chaos.chaos import drain, judged, sealed
from tests.chaos.database_faults import KINDS as DATABASE_KINDS
from tests.chaos.environment import NO_FAULTS, ChaosEnvironment, open_environment
from tests.chaos.fault_injector import KINDS
from tests.chaos.traffic import Producers

_BEFORE_S = 6.0
_FAULT_S = 6.0
"""Some kinds last twice as long; see their functions."""
_DRAIN_S = 120.0
_BETS_PER_S = 12.0
_DAEMONS = 2
_DELIVERED = ("delivered", "rejected")


class Figures(NamedTuple):
    """Callbacks that producers enqueued while the fault lasted."""

    kind: str
    lasted_s: float
    enqueued: int
    delivered_meanwhile: int
    rest_left_after_s: float
    faults: list[str]

    @property
    def line(self) -> str:
        share = self.delivered_meanwhile / max(1, self.enqueued)
        return (
            f"| {self.kind} | {self.lasted_s:.1f} s | {self.enqueued} | {self.delivered_meanwhile} ({share:.0%})"
            f" | {self.rest_left_after_s:.1f} s | {len(self.faults)} |"
        )


async def hold(kind: str, seed: int) -> Figures:
    """Run a fleet in an environment of its own, and hold the fault against it."""
    with tempfile.TemporaryDirectory(prefix="predictu-chaos-") as name:
        folder = Path(name) / "environment"
        folder.mkdir()
        async with open_environment(folder, seed=seed) as environment:
            return await _hold_in(environment, kind, seed)


async def _hold_in(environment: ChaosEnvironment, kind: str, seed: int) -> Figures:
    producers = Producers(
        dsn=environment.dsn("chaos_producer", environment.producers_proxy),
        operator_ids=tuple(operator.operator_id for operator in environment.operators),
        seed=seed,
    )
    for operator in environment.operators:
        await operator.set_fault_rates(NO_FAULTS)
    for _ in range(_DAEMONS):
        await (await environment.start_daemon()).ready()
    await producers.connect()
    _, inject = KINDS[kind]
    async with asyncio.TaskGroup() as tasks:
        traffic = tasks.create_task(producers.play(seconds=600, bets_per_s=_BETS_PER_S))
        await asyncio.sleep(_BEFORE_S)
        before, began_s = await _callbacks(environment), time.monotonic()
        await inject(environment, random.Random(seed), _FAULT_S)
        after, ended_s = await _callbacks(environment), time.monotonic()
        traffic.cancel()
    await drain(environment, producers, within_s=_DRAIN_S)
    rest_left_after_s = time.monotonic() - ended_s
    sealed_s = await sealed(environment)
    await environment.stop_daemons()
    await producers.close()
    _, verdict, _ = await judged(environment, producers, sealed_s)
    enqueued = after.keys() - before.keys()
    return Figures(
        kind=kind,
        lasted_s=ended_s - began_s,
        enqueued=len(enqueued),
        delivered_meanwhile=sum(after[request_id] in _DELIVERED for request_id in enqueued),
        rest_left_after_s=rest_left_after_s,
        faults=verdict.faults,
    )


async def _callbacks(environment: ChaosEnvironment) -> dict[UUID, str]:
    """The state of each callback that a producer has enqueued so far."""
    owner = await environment.owner()
    try:
        rows = await owner.fetch("select request_id, state from predictu_dispatch.callback where method <> 'PING'")
    finally:
        owner.terminate()
    return {row["request_id"]: row["state"] for row in rows}


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(list(KINDS)))
@click.option("--seed", default=1, show_default=True, type=int)
def main(*, kinds: tuple[str, ...], seed: int) -> None:
    """Exit with 0 if every check of the books holds, 1 if one fails."""
    click.echo("| fault | lasted | enqueued meanwhile | delivered meanwhile | the rest left after | failed checks |")
    click.echo("|---|---|---|---|---|---|")
    failed = 0
    for kind in kinds or DATABASE_KINDS:
        figures = asyncio.run(hold(kind, seed))
        click.echo(figures.line)
        for fault in figures.faults:
            click.echo(fault, err=True)
        failed += len(figures.faults)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
