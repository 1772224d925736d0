"""`statement --csv`: exact whatever the ids are, in flat memory, and quiet if nobody reads on."""

import asyncio
import csv
import io
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.edge.postgres.statement_reader import StatementReader, open_statement_reader
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import OPERATOR, WAIT_S, Harness
from tests.support.movements import Movement, add_many, add_movements
from tests.support.postgres import Database

MAY = (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC))
ROWS, FEWER_ROWS = 60_000, 6_000
MEMORY_MAX_BYTES = 25_000_000
"""More than the batches of a cursor take, and less than all rows."""
IDS = (
    "plain",
    '=HYPERLINK("http://evil")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    'a "quoted", one',
    "two\nlines",
    "a\rreturn",
    "both\r\n",
    "\\N",
    '"',
    ",",
    " spaces ",
    "\x1b[31m\u202eé→😀\ufeff",
    "NULL",
)


@pytest.fixture
def finance(tmp_path: Path, database: Database) -> CommandLine:
    return command_line_for(tmp_path, database.reconciler)


def words(*more: str, day: str = "2024-05-01", last: str = "2024-05-31") -> tuple[str, ...]:
    return ("statement", OPERATOR, "--currency", "EUR", "--from", day, "--until", last, *more)


async def test_every_value_is_exact_whatever_the_ids_are(harness: Harness, finance: CommandLine) -> None:
    movements = [
        Movement("BET_WIN", MAY[0] + timedelta(seconds=n), 10**n, f"{text}-{n}", player_id=text, transaction_id=text)
        for n, text in enumerate(IDS)
    ]
    await add_movements(harness.owner, movements)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = await asyncio.to_thread(
        subprocess.run, finance.process(*words("--csv")), capture_output=True, check=True, env=environment
    )
    # As a program of another make reads it: RFC 4180, line by line.
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline=""), strict=True))
    found = [(row["bet_id"], row["player_id"], row["operator_transaction_id"]) for row in rows]
    assert found == [(one.bet_id, one.player_id, one.transaction_id) for one in movements]
    assert [int(row["amount_subunits"]) for row in rows] == [one.amount for one in movements]
    assert [row["amount"] for row in rows][:4] == ["0.01", "0.10", "1.00", "10.00"]
    assert {(row["kind"], row["direction"], row["accounting_day"]) for row in rows} == {
        ("movement", "credit", "2024-05-01")
    }
    assert done.stdout.count(b"\r\n") == len(rows) + 1 + sum("\r\n" in text for text in IDS) * 3


async def test_a_long_statement_streams_in_flat_memory_and_adds_up(
    harness: Harness, database: Database, finance: CommandLine
) -> None:
    await add_many(harness.owner, ROWS, *MAY)
    nothing = await _read(finance, words("--csv", day="2024-06-01", last="2024-06-30"))
    everything = await _read(finance, words("--csv"))
    assert (nothing[1:], everything[1:]) == ((0, 0), (ROWS, ROWS // 2 * (900 - 500)))
    assert everything[0] - nothing[0] < MEMORY_MAX_BYTES
    _, found = await finance.run_json(*words())
    assert (found["total"]["rows"], found["total"]["net_for_players"]) == everything[1:]
    assert sum(day["rows"] for day in found["days"]) == ROWS
    await harness.owner.execute("analyze predictu_dispatch.callback, predictu_dispatch.bet")
    async with open_statement_reader(database.reconciler, application_name="test") as reader:
        movements = await _plan(reader, "statement_movements", *MAY)
        unknown = await _plan(reader, "statement_unknown", MAY[1] - timedelta(hours=1))
    assert "Index Scan using callback_finished" in movements
    assert "Sort" not in movements
    # It reads what was final since the moment, and of the time before it only what is unknown.
    assert "Seq Scan on callback" not in unknown


async def _plan(reader: StatementReader, name: str, *moments: datetime) -> str:
    rows = await reader._connection.fetch(f"explain {query(name)}", OPERATOR, "EUR", *moments)
    return "\n".join(row[0] for row in rows)


async def _read(finance: CommandLine, arguments: tuple[str, ...]) -> tuple[int, int, int]:
    """The most memory that the command used, its rows, and their sum."""
    return await asyncio.to_thread(read_csv, finance.process(*arguments))


def read_csv(command: list[str]) -> tuple[int, int, int]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        rows, net = 0, 0
        with io.TextIOWrapper(process.stdout, encoding="utf-8", newline="") as text:
            for row in csv.DictReader(text):
                rows += 1
                net += int(row["amount_subunits"]) * (1 if row["direction"] == "credit" else -1)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024, rows, net


async def test_a_reader_that_closes_the_pipe_ends_it_without_a_message(harness: Harness, finance: CommandLine) -> None:
    await add_many(harness.owner, FEWER_ROWS, *MAY)
    process = await asyncio.create_subprocess_exec(
        *finance.process(*words("--csv")), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert (await process.stdout.readline()).startswith(b"kind,")
    transport = process._transport.get_pipe_transport(1)  # type: ignore[attr-defined] # as `head` does
    transport.close()
    assert await asyncio.wait_for(process.stderr.read(), WAIT_S) == b""
    assert await asyncio.wait_for(process.wait(), WAIT_S) == 1
    count = "select count(*) from pg_stat_activity where application_name = 'predictu-dispatch statement'"
    while await harness.owner.fetchval(count):
        pass


async def test_a_full_disk_and_a_lost_database_say_that_the_csv_is_not_whole(
    harness: Harness, finance: CommandLine
) -> None:
    await add_many(harness.owner, FEWER_ROWS, *MAY)
    full = os.open("/dev/full", os.O_WRONLY)
    done = await asyncio.to_thread(
        subprocess.run, finance.process(*words("--csv")), stdout=full, stderr=subprocess.PIPE, check=False
    )
    os.close(full)
    assert (done.returncode, done.stderr) == (
        1,
        b"the CSV is not whole: it cannot be written: No space left on device\n",
    )
    process = await asyncio.create_subprocess_exec(
        *finance.process(*words("--csv")), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    # It waits for its reader, between two batches.
    await harness.owner.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'predictu-dispatch statement'"
    )
    _, stderr = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode == 3
    assert stderr.startswith(b"the CSV is not whole:\nthe database can't be reached")
