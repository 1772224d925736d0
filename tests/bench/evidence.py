"""What sealing costs, and one history whatever is killed, in full size: `make evidence`.

Prints figures with what they must be; exit code 1 if one is not. It starts a Postgres of its own
and ends only what it started. Takes about five minutes.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import click

from predictu_dispatch.core.sealing import GrownLog
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.cpu_clock import CpuClock, own_s
from tests.bench.findings import Figure
from tests.support.harness import Connection, connected, know_operators
from tests.support.postgres import Database, cloned_database, create_template, server_of
from tests.support.sealing import TestSealer, check_logs, insert_attempts, open_sealer, terminate_sealers
from tests.verifier.test_archive import wrongly_answered_flips

OPERATORS = ("op_abc123", "op_two", "op_three", "op_four")
ROWS_PER_TRANSACTION = 20
ROWS_PER_S = 4000
"""More than one daemon settles on two cores (README.md)."""
CHILD = "--seal"


class Figures:
    """Prints each figure; remembers whether one misses its limit."""

    def __init__(self) -> None:
        self.are_good = True

    def show(self, what: str, value: float, limit: float, unit: str) -> None:
        is_good = value <= limit
        self.are_good &= is_good
        click.echo(f"{what:<58} {value:>10.2f} {unit:<8} (at most {limit:g}){'' if is_good else '  FAILED'}")

    def add(self, figure: Figure) -> None:
        self.are_good &= figure.is_kept
        click.echo(figure.line())


@asynccontextmanager
async def fresh_database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    server = server_of(postgres)
    template = await create_template(server)
    async with cloned_database(server, template) as database, connected(database.dispatcher, 1) as [daemon]:
        await know_operators(daemon)
        yield database


async def write_rows(connection: Connection, rows: int) -> None:
    """Writes rows of four operators, as settles do: many small transactions."""
    for number in range(rows // ROWS_PER_TRANSACTION):
        await insert_attempts(connection, ROWS_PER_TRANSACTION, OPERATORS[number % len(OPERATORS)])


async def cost(postgres: EmbeddedPostgres, figures: Figures, rows: int) -> None:
    """CPU and space for each row, Python and Postgres, with nothing else running."""
    async with (
        fresh_database(postgres) as database,
        connected(database.owner, 2) as owners,
        open_sealer(database.dispatcher) as sealer,
    ):
        await sealer.seal_all()
        await asyncio.gather(*(write_rows(owner, rows // 2) for owner in owners))
        await owners[0].execute("vacuum analyze predictu_dispatch.attempt_record")
        await owners[0].execute("checkpoint")
        grown_s = await count_growing(sealer)
        await sealer.store.summarize()
        clock, python_s, began_s = CpuClock(postgres=[postgres.pid or 0]), own_s(), time.monotonic()
        await sealer.seal_all()
        elapsed_s = time.monotonic() - began_s
        python_s, postgres_s = own_s() - python_s, clock.cores()["postgres"] * elapsed_s
        sizes = await check_logs(owners[0])
    total = sum(sizes.values())
    click.echo(f"{total} rows sealed in {elapsed_s:.1f} s")
    figures.show("CPU of Python", python_s / total * 1e6, 30, "µs/row")
    figures.show("  its part for the tree and signatures", grown_s() / total * 1e6, 30, "µs/row")
    figures.show("CPU of Postgres, its background processes included", postgres_s / total * 1e6, 30, "µs/row")
    figures.show("CPU in total", (python_s + postgres_s) / total * 1e6, 30, "µs/row")


async def count_growing(sealer: TestSealer) -> Callable[[], float]:
    """Counts the CPU of the pure part."""
    spent_s, grow = 0.0, sealer._grow

    async def counted(log: object) -> GrownLog:
        nonlocal spent_s
        began_s = time.process_time()
        grown = await grow(log)  # type: ignore[arg-type]
        spent_s += time.process_time() - began_s
        return grown

    sealer._grow = counted  # type: ignore[method-assign]
    return lambda: spent_s


async def delay(postgres: EmbeddedPostgres, figures: Figures, seconds: float) -> None:
    """How old the oldest unsealed row becomes at full load, and what is stored."""
    async with (
        fresh_database(postgres) as database,
        connected(database.owner, 3) as [watcher, *writers],
        open_sealer(database.dispatcher, seal_s=5.0) as sealer,
    ):
        await sealer.seal_all()
        stop = asyncio.Event()

        async def write(connection: Connection) -> None:
            rows, began_s = 0, time.monotonic()
            while not stop.is_set():
                await write_rows(connection, ROWS_PER_TRANSACTION * len(OPERATORS))
                rows += ROWS_PER_TRANSACTION * len(OPERATORS)
                await asyncio.sleep(began_s + rows / ROWS_PER_S * len(writers) - time.monotonic())

        oldest_s, began_s = 0.0, time.monotonic()
        sealing = asyncio.create_task(sealer.run())
        writing = [asyncio.create_task(write(one)) for one in writers]
        while time.monotonic() - began_s < seconds:
            await asyncio.sleep(0.2)
            age_s = await watcher.fetchval(
                "select extract(epoch from clock_timestamp() - sealed_at)::float8 from predictu_dispatch.audit_position"
            )
            oldest_s = max(oldest_s, age_s)
        stop.set()
        await asyncio.gather(*writing)
        sealing.cancel()
        await asyncio.gather(sealing, return_exceptions=True)
        assert not sealer.observer.failures, sealer.observer.failures
        await sealer.seal_all()
        rows = sum((await check_logs(watcher)).values())
        stored = await watcher.fetchval(
            "select sum(pg_total_relation_size(('predictu_dispatch.audit_' || name)::regclass))"
            "  from unnest(array['tile', 'head', 'checkpoint', 'position', 'log']) as name"
        )
    click.echo(f"{rows / seconds:.0f} rows a second written for {seconds:.0f} s")
    figures.show("longest time until everything visible was sealed", oldest_s, 10, "s")
    figures.show("stored", float(stored) / rows, 60, "bytes/row")


async def open_transactions(postgres: EmbeddedPostgres, figures: Figures, seconds: float) -> None:
    """A late commit is sealed; transactions that stay open delay nothing else."""
    async with (
        fresh_database(postgres) as database,
        connected(database.owner, 4) as [watcher, writer, late, producer],
        open_sealer(database.dispatcher, seal_s=5.0) as sealer,
    ):
        await sealer.seal_all()
        await late.execute("begin")
        await insert_attempts(late, 5)
        await producer.execute("begin; create temporary table t (n integer); insert into t values (1)")
        sealing = asyncio.create_task(sealer.run())
        began_s, oldest_s, rows = time.monotonic(), 0.0, 0
        while time.monotonic() - began_s < seconds:
            await write_rows(writer, 800)
            rows += 800
            await asyncio.sleep(0.5)
            age_s = await watcher.fetchval(
                "select extract(epoch from clock_timestamp() - sealed_at)::float8 from predictu_dispatch.audit_position"
            )
            oldest_s = max(oldest_s, age_s)
        sealing.cancel()
        await asyncio.gather(sealing, return_exceptions=True)
        await sealer.seal_all()
        sealed = sum((await check_logs(watcher)).values())
        await late.execute("commit")
        await sealer.seal_all()
        missing = sealed + 5 - sum((await check_logs(watcher)).values())
    click.echo(f"two transactions open for {seconds:.0f} s; {rows} rows sealed meanwhile")
    figures.show("longest time until everything visible was sealed", oldest_s, 10, "s")
    figures.show("rows of the late transaction that are not sealed", missing, 0, "")


async def kills(postgres: EmbeddedPostgres, figures: Figures, count: int) -> None:
    """Two processes seal while rows are written; sessions are terminated and processes killed."""
    chance, killed, terminated = random.Random(7), 0, 0
    async with fresh_database(postgres) as database, connected(database.owner, 2) as [owner, writer]:
        stop = asyncio.Event()

        async def write() -> None:
            while not stop.is_set():
                await insert_attempts(writer, chance.randint(1, 60), chance.choice(OPERATORS))

        children = [await start_child(database.dispatcher) for _ in range(2)]
        writing = asyncio.create_task(write())
        while killed + terminated < count:
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            if chance.random() < 0.5:
                terminated += await terminate_sealers(owner)
            else:
                child = children.pop(chance.randrange(2))
                child.kill()
                await child.wait()
                killed += 1
                children.append(await start_child(database.dispatcher))
        stop.set()
        await writing
        for child in children:
            child.kill()
            await child.wait()
        async with open_sealer(database.dispatcher) as sealer:
            await sealer.seal_all()
        rows = sum((await check_logs(owner)).values())
    click.echo(f"{killed} processes killed, {terminated} sessions terminated, {rows} rows: one history, each row once")
    figures.show("rows missing or double", 0, 0, "")


async def start_child(dsn: str) -> asyncio.subprocess.Process:
    """Starts a process that seals; returns once it has."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.evidence", CHILD, dsn),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    await child.stdout.readline()
    return child


async def seal_for_ever(dsn: str) -> None:
    """What a killed process was doing."""
    async with open_sealer(dsn) as sealer:
        await sealer.turn()
        click.echo("sealing")
        while True:
            try:
                await sealer.turn()
            except Exception:  # noqa: BLE001 - its session was terminated
                await asyncio.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--load-s", type=float, default=60)
    parser.add_argument("--open-s", type=float, default=60)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=2_000)
    parser.add_argument(CHILD, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seal:
        asyncio.run(seal_for_ever(arguments.seal))
    figures = Figures()
    # The attempts are vacuumed with or without logs.
    alone, beside = {"autovacuum": "off"}, {"autovacuum_naptime": "15s"}
    parts: list[tuple[dict[str, str], Callable[[EmbeddedPostgres], Awaitable[None]]]] = [
        (alone, lambda postgres: cost(postgres, figures, arguments.rows)),
        (beside, lambda postgres: delay(postgres, figures, arguments.load_s)),
        (beside, lambda postgres: open_transactions(postgres, figures, arguments.open_s)),
        (beside, lambda postgres: kills(postgres, figures, arguments.kills)),
    ]
    for settings, part in parts:
        with EmbeddedPostgres(fsync=False, settings={"max_wal_size": "4GB", **settings}) as postgres:
            asyncio.run(part(postgres))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        wrong = wrongly_answered_flips(Path(folder), arguments.flips)
        figures.show(f"of {arguments.flips} flipped bits of a bundle, not refused by file name", len(wrong), 0, "")
    return 0 if figures.are_good else 1


if __name__ == "__main__":
    sys.exit(main())
