"""Whole runs as real processes, with a real operator, daemon and database; killed and run again."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from predictu_dispatch.reconciliation.loading import BATCH_LINES
from tests.support.daemons import WAIT_S, until
from tests.support.default_signals import default_signals
from tests.support.harness import Connection, connected
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Database
from tests.support.reconciled_operator import ReconciledOperator, Row, reconciled_operator

BETS = [f"bet-{number}" for number in range(6)]
LINES_LEFT = "select count(*) from predictu_dispatch.reconciliation_line"


@pytest.fixture
async def books(tmp_path: Path, database: Database) -> AsyncIterator[ReconciledOperator]:
    async with reconciled_operator(tmp_path, database) as books:
        await books.play(*BETS)
        yield books


def result_of(stdout: str) -> dict[str, Any]:
    """What a run printed as JSON, without what differs from run to run."""
    found: dict[str, Any] = json.loads(stdout)
    for name in ("run_id", "cut_at", "given_until", "changes"):
        del found[name]
    return found


def report_of(books: ReconciledOperator, stdout: str) -> str:
    """What a run printed, without the dates."""
    text = re.sub(r"\d{4}-\d\d-\d\d( \d\d:00| to|T[\d:]+Z)?", "DAY", stdout)
    text = re.sub(r"\d\d-\d\d \d\d:00", "DAY", text).replace(books.sandbox.url, "URL")
    assert max(map(len, text.splitlines())) <= 80
    return text


AGREED = """\
op_abc123, DAY UTC (DAY to DAY UTC)
The period has not ended: compared up to DAY.
{source}: 9 lines, 9 read
EUR, effect on players    rows   ours  theirs  difference
agreed                       9  -3.09   -3.09        0.00
EUR: ours -3.09 + differences 0.00 = theirs -3.09: holds
9 rows of ours and 9 lines of theirs: each in exactly one class
No difference to settle.{more}
"""
LATE = """\
op_abc123, DAY UTC (DAY to DAY UTC)
The period has not ended: compared up to DAY.
early.csv: 7 lines, 7 read
EUR, effect on players    rows   ours  theirs  difference
agreed                       7  -5.11   -5.11        0.00
missing there                2  +2.02       -       -2.02  owed
owed 2.02 EUR: the operator's ledger gives players less than it confirmed
EUR: ours -3.09 + differences -2.02 = theirs -5.11: holds
9 rows of ours and 7 lines of theirs: each in exactly one class
2 differences, 2.02 EUR. New since the last run: 2; closed by it: 0.
Next: predictu-dispatch reconcile list op_abc123, then reconcile show ID
"""


async def test_a_ledger_agrees_pulled_or_as_files_and_a_late_file_closes_the_differences(
    books: ReconciledOperator, database: Database
) -> None:
    ended = await asyncio.to_thread(
        subprocess.run, books.process(), capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert report_of(books, ended.stdout) == AGREED.format(source="URL/ledger", more="")
    rows = books.rows()
    wins = [row for row in rows if row["method"] == "BET_WIN" and row["bet_id"] != "bet-4"]
    early, late = books.write("early.csv", [row for row in rows if row not in wins]), books.write("late.csv", wins)
    code, stdout, _ = await books.reconcile(early)
    assert (code, report_of(books, stdout)) == (1, LATE)
    code, stdout, _ = await books.reconcile(early, late)
    assert code == 0
    assert stdout.endswith("No difference to settle. New since the last run: 0; closed by it: 2.\n")
    # Not one line may count twice, although no file is the same.
    code, stdout, _ = await books.reconcile(books.write("all.csv", rows), late, "--unreadable")
    assert code == 1
    assert "late.csv: 2 lines, 0 read, 2 unreadable\n" in stdout
    assert re.search(r"late\.csv, line 2: repeats line [0-9]+ of all\.csv\n", stdout)
    # Each transaction gets another session, which has not our settings.
    pooler = PgBouncer(database.reconciler, sessions=2)
    await asyncio.to_thread(pooler.start)
    try:
        books.use_database(pooler.through(database.reconciler))
        code, stdout, stderr = await books.reconcile(early, late)
    finally:
        await asyncio.to_thread(pooler.stop)
    assert (code, stderr) == (0, "")


def long_ledger(books: ReconciledOperator) -> list[Row]:
    """More than one batch: the operator's ledger, and bookings of the day before."""
    rows = books.rows()
    day_before = books.days.start_of(books.today) - timedelta(hours=1)
    older = {**rows[0], "booked_at": day_before.isoformat(timespec="seconds"), "method": "BET_MAKE", "request_id": ""}
    return [*rows[1:], *({**older, "transaction_id": f"old-{n}", "bet_id": f"old-{n}"} for n in range(BATCH_LINES))]


@asynccontextmanager
async def holding_the_second_batch(owner: Connection) -> AsyncIterator[None]:
    """Lets COPY wait inside the second batch until the block ends."""
    await owner.execute(
        "create function public.wait_for_the_test() returns trigger language plpgsql security definer as $$"
        " begin perform pg_catalog.pg_advisory_xact_lock(4711); return new; end $$;"
        "create trigger wait_for_the_test before insert on predictu_dispatch.reconciliation_line for each row"
        f" when (new.line > {BATCH_LINES + 1}) execute function public.wait_for_the_test();"
        "select pg_advisory_lock(4711)"
    )
    yield
    await owner.execute(
        "select pg_advisory_unlock(4711);"
        "drop trigger wait_for_the_test on predictu_dispatch.reconciliation_line;"
        "drop function public.wait_for_the_test()"
    )


@asynccontextmanager
async def holding_the_classification(owner: Connection) -> AsyncIterator[None]:
    """Lets the classification wait when it stores what it has found, until the block ends."""
    async with owner.transaction():
        await owner.execute("lock table predictu_dispatch.reconciliation_total in share mode")
        yield


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    with default_signals():
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def killed_while_waiting(
    books: ReconciledOperator, watcher: Connection, ledger: Path, how: signal.Signals
) -> int:
    """Runs on the ledger until the database waits, and ends the process; returns its exit code."""
    process = _started(books.process(ledger))

    async def is_waiting() -> bool:
        waiting: bool = await watcher.fetchval(
            "select exists(select from pg_stat_activity where application_name = 'predictu-dispatch reconcile'"
            " and cardinality(pg_blocking_pids(pid)) > 0)"
        )
        assert process.poll() is None
        return waiting

    await until("the run waits for the test", is_waiting)
    os.kill(process.pid, how)
    return await asyncio.to_thread(process.wait, WAIT_S)


async def test_a_run_that_is_killed_anywhere_counts_for_nothing_and_the_next_one_has_the_same_result(
    books: ReconciledOperator, database: Database
) -> None:
    owner = books.environment.harness.owner
    ledger = books.write("long.csv", long_ledger(books))
    code, stdout, _ = await books.reconcile(ledger, "--json")
    expected = result_of(stdout)
    assert (code, expected["open_differences"]) == (1, 1)
    async with connected(database.owner, 1) as [watcher]:

        async def until_gone() -> None:
            async def is_gone() -> bool:
                return not await watcher.fetchval(
                    "select count(*) from pg_stat_activity where application_name = 'predictu-dispatch reconcile'"
                )

            await until("the session of the killed run has ended", is_gone)

        # Ctrl-C removes what was copied at once.
        async with holding_the_second_batch(owner):
            assert await killed_while_waiting(books, watcher, ledger, signal.SIGINT) == 1
            await until_gone()
            assert await watcher.fetchval(LINES_LEFT) == 0
        async with holding_the_second_batch(owner):
            assert await killed_while_waiting(books, watcher, ledger, signal.SIGKILL) == -signal.SIGKILL
        await until_gone()
        # The server may have got the second batch whole.
        assert await watcher.fetchval(LINES_LEFT) >= BATCH_LINES
        async with holding_the_classification(owner):
            assert await killed_while_waiting(books, watcher, ledger, signal.SIGKILL) == -signal.SIGKILL
        await until_gone()
    # The server may have finished the last one: then it counts, as a whole.
    finished = "select count(*) from predictu_dispatch.reconciliation_run where finished_at is not null"
    assert await owner.fetchval(finished) in (1, 2)
    # A run of today may still be under way, so only older ones are removed.
    await owner.execute("update predictu_dispatch.reconciliation_run set started_at = started_at - interval '2 days'")
    code, stdout, _ = await books.reconcile(ledger, "--json")
    assert (code, result_of(stdout)) == (1, expected)
    assert await owner.fetchval(LINES_LEFT) == 0
    assert json.loads(stdout)["changes"] == {"new": 0, "closed": 0}
