"""Measure `statement` over a month of movements: time and memory of the command.

python -m tests.bench.statement 10000000    # 10 GB of disk

Exit code 1 if the CSV is not whole or the command needs more than MEMORY_MAX_MB.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click

from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import OPERATOR, connected, know_operators
from tests.support.movements import add_many

MEMORY_MAX_MB = 100.0
_MAY = (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC))
_PERIOD = ("statement", OPERATOR, "--currency", "EUR", "--from", "2024-05-01", "--until", "2024-05-31")
_BLOCK_BYTES = 1 << 20


class Measured(NamedTuple):
    """What one run of the command took."""

    lines: int
    took_s: float
    cpu_s: float
    memory_mb: float


def measure(command: list[str]) -> Measured:
    """Run the command and read what it prints, as fast as it prints it."""
    began_s = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = 0
        while block := process.stdout.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise click.ClickException(f"exit code {process.returncode}")
    took_s = time.monotonic() - began_s
    return Measured(lines, took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


async def _write(dsn: str, rows: int) -> None:
    await migrate(dsn)
    async with connected(dsn, 1) as [owner]:
        await know_operators(owner)
        await owner.execute("set synchronous_commit = off")
        began_s = time.monotonic()
        await add_many(owner, rows, *_MAY)
        click.echo(f"{rows:,} movements written in {time.monotonic() - began_s:.0f} s")
        await owner.execute("vacuum analyze predictu_dispatch.callback, predictu_dispatch.bet", timeout=3600)
        bytes_of = "select pg_total_relation_size('predictu_dispatch.callback')"
        click.echo(f"callback with its indexes: {await owner.fetchval(bytes_of) / 1e9:.1f} GB")


def _run(cli: CommandLine, rows: int) -> bool:
    is_good = True
    for name, more in (("--csv", ("--csv",)), ("sums by day", ("--json",))):
        found = measure(cli.process(*_PERIOD, *more))
        is_whole = found.lines == rows + 1 or name != "--csv"
        is_good &= is_whole and found.memory_mb <= MEMORY_MAX_MB
        click.echo(
            f"{name:12} {found.took_s:7.1f} s  CPU of the command {found.cpu_s:6.1f} s  {found.memory_mb:5.1f} MB"
            f" (at most {MEMORY_MAX_MB:g}){'' if is_whole else f'  FAILED: {found.lines - 1:,} rows'}"
        )
    return is_good


@click.command()
@click.argument("rows", type=click.IntRange(2), default=10_000_000)
def main(rows: int) -> None:
    """Write this number of movements into a Postgres of its own, and print their statement."""
    with tempfile.TemporaryDirectory(prefix="predictu-bench-") as name, EmbeddedPostgres(fsync=False) as postgres:
        cli = command_line_for(Path(name), postgres.dsn())
        asyncio.run(_write(postgres.dsn(), rows - rows % 2))
        if not _run(cli, rows - rows % 2):
            sys.exit(1)


if __name__ == "__main__":
    main()
