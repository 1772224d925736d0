"""Measure which relations and record types the WAL of a delivered callback consists of.

.venv/bin/python -m tests.bench.wal_records [--callbacks 15000]

Delivers callbacks with the real daemon, then reads the server's WAL with pg_walinspect.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import aiohttp

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from predictu_dispatch.embedded_postgres.watcher import Watcher
from tests.bench.backlog import Connection
from tests.bench.bench import _open_to_all
from tests.bench.bench_environment import BenchEnvironment, Plan
from tests.bench.receiver import Receiver
from tests.bench.workload import CALLBACKS_PER_BET

# A record belongs to the relation of its first block. Commits, for example, have none.
_RECORDS = """
    with block as (
        select i.start_lsn, min(i.block_id) as block_id, sum(i.block_fpi_length) as fpi_bytes
          from pg_get_wal_block_info($1, $2, false) i group by i.start_lsn
    ), record as (
        select r.start_lsn, r.resource_manager || ' ' || r.record_type as kind, r.record_length,
               coalesce(block.fpi_bytes, 0) as fpi_bytes, first.relfilenode
          from pg_get_wal_records_info($1, $2) r
          left join block on block.start_lsn = r.start_lsn
          left join pg_get_wal_block_info($1, $2, false) first
            on first.start_lsn = block.start_lsn and first.block_id = block.block_id
    )
    select coalesce(c.relname, case when r.relfilenode is null then '' else 'catalogs' end) as relation, r.kind,
           count(*) as records, sum(r.record_length - r.fpi_bytes) as bytes, sum(r.fpi_bytes) as fpi_bytes
      from record r
      left join pg_class c
        on c.relfilenode = r.relfilenode and c.relnamespace = 'predictu_dispatch'::regnamespace
     group by 1, 2 order by sum(r.record_length) desc
"""


async def records(owner: Connection, since: int, until: int, *, callbacks: int) -> list[str]:
    """The lines of the table, largest first, with a total for each relation."""
    rows = await owner.fetch(_RECORDS, since, until)
    totals: dict[str, list[float]] = {}
    for row in rows:
        total = totals.setdefault(row["relation"], [0.0, 0.0, 0.0])
        for n, name in enumerate(("records", "bytes", "fpi_bytes")):
            total[n] += float(row[name]) / callbacks
    lines = [f"{'for each callback':52} {'records':>8} {'bytes':>8} {'full pages':>10}"]
    lines += [
        _line(f"{row['relation'] or '(no relation)'}: {row['kind']}", *(float(row[name]) / callbacks for name in names))
        for names in [("records", "bytes", "fpi_bytes")]
        for row in rows
        if row["bytes"] + row["fpi_bytes"] >= callbacks
    ]
    lines.append("")
    lines += [_line(name or "(no relation)", *total) for name, total in sorted(totals.items(), key=_largest)]
    return [*lines, _line("all", *(sum(column) for column in zip(*totals.values(), strict=True)))]


def _largest(relation: tuple[str, list[float]]) -> float:
    return -sum(relation[1][1:])


def _line(name: str, count: float, size: float, full_pages: float) -> str:
    return f"{name:52} {count:8.2f} {size:8.0f} {full_pages:10.0f}"


async def measure(callbacks: int) -> list[str]:
    plan = Plan(rounds=1, scale=1.0, full=False, seed=1)
    with (
        tempfile.TemporaryDirectory(prefix="predictu-bench-") as temporary,
        # Removes the folder if this process is killed.
        closing(Watcher(Path(temporary))),
        EmbeddedPostgres(fsync=True) as postgres,
        Receiver(_open_to_all(Path(temporary)) / "nginx") as receiver,
    ):
        async with aiohttp.ClientSession() as session:
            environment = BenchEnvironment(
                postgres, receiver, folder=Path(temporary), session=session, plan=plan, say=lambda _: None
            )
            await environment.prepare()
            bets = callbacks // CALLBACKS_PER_BET
            full = await environment.filled("wal_full", bets=bets)
            async with environment.copy(full, "wal_round") as database, environment.owner(database) as owner:
                await owner.execute("create extension pg_walinspect")
                since = await owner.fetchval("select pg_current_wal_insert_lsn()")
                await environment.deliver(environment.files("work", receiver.url), database, bets)
                until = await owner.fetchval("select pg_current_wal_flush_lsn()")
                return await records(owner, since, until, callbacks=bets * CALLBACKS_PER_BET)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--callbacks", type=int, default=15_000)
    sys.stdout.write("\n".join(asyncio.run(measure(arguments.parse_args().callbacks))) + "\n")


if __name__ == "__main__":
    main()
