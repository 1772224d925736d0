"""The log's thread: no reader or disk stops the process, no line is torn, a lost line counts."""

import asyncio
import fcntl
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from predictu_dispatch.edge.telemetry.log_thread import QUEUE_BYTES_MAX, LineWriter
from tests.support.daemons import until

PADDING = "x" * 1000
_CONFIGURED = (
    "import logging, sys, warnings\n"
    "from predictu_dispatch.core.settings import LogSettings\n"
    "from predictu_dispatch.edge.telemetry.log import configure_log, lines_lost, log\n"
    "configure_log(LogSettings(format='json'))\n"
)


def notice(lost: int, error: str) -> bytes:
    return json.dumps({"lost": lost, "error": error}).encode() + b"\n"


def line(number: int) -> bytes:
    return json.dumps({"number": number, "padding": PADDING}).encode() + b"\n"


@contextmanager
def writing_to(descriptor: int) -> Iterator[LineWriter]:
    writer = LineWriter(descriptor, notice)
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def small_pipe(*, is_blocking: bool = True) -> Iterator[tuple[int, int]]:
    """A pipe that holds one page; its ends are closed at the end."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, is_blocking)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


class Reader:
    """Reads a pipe in pieces of this size."""

    def __init__(self, descriptor: int, *, piece: int = 777) -> None:
        self._descriptor = descriptor
        self._piece = piece
        self._received = b""
        os.set_blocking(descriptor, False)

    async def until_read(self, lines: int) -> list[dict[str, object]]:
        """Returns all complete lines so far, at least so many."""

        def has_them() -> bool:
            with suppress(BlockingIOError):
                self._received += os.read(self._descriptor, self._piece)
            return self._received.count(b"\n") >= lines

        await until(f"{lines} lines are read", has_them)
        return [json.loads(one) for one in self._received.splitlines(keepends=True) if one.endswith(b"\n")]


@pytest.mark.parametrize("mode", ["blocking", "non-blocking"])
async def test_a_slow_reader_gets_every_line_whole_and_in_order(mode: str) -> None:
    with small_pipe(is_blocking=mode == "blocking") as (reader, end), writing_to(end) as writer:
        for number in range(500):
            writer.write(line(number))
        read = await Reader(reader).until_read(500)
        assert [one["number"] for one in read] == list(range(500))
        assert writer.lines_lost == 0


async def test_lines_that_nobody_reads_are_lost_within_a_bound_and_their_number_is_logged_in_its_place() -> None:
    count = 4 * QUEUE_BYTES_MAX // len(line(0))
    with small_pipe() as (reader, end), writing_to(end) as writer:
        began_s = time.monotonic()
        for number in range(count):
            writer.write(line(number))
        assert time.monotonic() - began_s < 5.0, "nothing waits for the reader"
        assert writer.lines_lost >= count - 2 * QUEUE_BYTES_MAX // len(line(0))
        kept = count - writer.lines_lost
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 1 << 20)
        late = Reader(reader, piece=1 << 20)
        # Two notices if the thread took the first lines when some were lost already.
        place, notices = follow(await late.until_read(kept + 1))
        if place < count:
            place, notices = follow(await late.until_read(kept + 2))
        assert (place, notices) in {(count, 1), (count, 2)}
        writer.write(line(count))
        assert (await late.until_read(kept + notices + 1))[-1]["number"] == count


def follow(read: list[dict[str, object]]) -> tuple[int, int]:
    """Checks that each line, or else a notice, is at its place; returns place and notices."""
    place = notices = 0
    for one in read:
        if "lost" in one:
            assert one["error"] == "the log was not read in time"
            place += int(str(one["lost"]))
            notices += 1
        else:
            assert one["number"] == place
            place += 1
    return place, notices


async def test_a_reader_that_went_away_and_came_back_gets_whole_lines(tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    end = os.open(fifo, os.O_WRONLY)
    with writing_to(end) as writer:
        writer.write(line(0))
        await Reader(reader).until_read(1)
        os.close(reader)
        writer.write(line(1))
        writer.write(line(2))
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        assert [one["number"] for one in await Reader(reader).until_read(2)] == [1, 2]
    os.close(reader)
    os.close(end)


@pytest.mark.parametrize("repair", ["more room", "emptied"])
async def test_a_full_disk_tears_no_line(tmp_path: Path, repair: str) -> None:
    """A limit on the file's size fails like a full disk: after a part of a line was written."""
    log = tmp_path / "log"
    program = _CONFIGURED + (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
        "for number in range(100):\n"
        "    log.info('a.happened', number=number, padding='x' * 100)\n"
        "for request in sys.stdin:\n"
        "    log.info('b.happened', lost=lines_lost())\n"
    )
    with log.open("ab") as stderr:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stderr=stderr
        )
    try:
        await until("the disk is full", lambda: log.stat().st_size == 2000)
        assert not log.read_bytes().endswith(b"\n"), "a line is written in part"
        if repair == "emptied":
            os.truncate(log, 0)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await until("the rest is written", lambda: log.read_bytes().count(b"a.happened") >= 80)
        await child.communicate(b"\n")
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    lines = [json.loads(one) for one in log.read_bytes().splitlines()]
    numbers = [one["number"] for one in lines[:-1]]
    assert numbers == list(range(numbers[0], 100))
    assert (numbers[0] == 0) is (repair == "more room")
    assert (lines[-1]["event"], lines[-1]["lost"]) == ("b.happened", 0)


def run(program: str, *, stderr: int, within_s: float) -> int:
    began_s = time.monotonic()
    code = subprocess.run([sys.executable, "-c", _CONFIGURED + program], stderr=stderr, check=False).returncode
    assert time.monotonic() - began_s < within_s
    return code


def test_the_last_lines_are_written_before_the_process_ends_also_when_it_crashes(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as stderr:
        code = run(
            "for number in range(2000):\n"
            "    log.info('a.happened', number=number)\n"
            "warnings.warn('a warning')\n"
            "1 / 0\n",
            stderr=stderr.fileno(),
            within_s=60.0,
        )
    lines = (tmp_path / "log").read_text().splitlines()
    assert code == 1
    assert [json.loads(one)["number"] for one in lines[:2000]] == list(range(2000))
    assert json.loads(lines[2000])["library"] == "py.warnings"
    assert (lines[2001], lines[-1]) == (
        "Traceback (most recent call last):",
        "ZeroDivisionError: division by zero",
    )


def test_console_lines_take_the_same_way(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as stderr:
        program = "configure_log(LogSettings(format='console'))\nlog.info('a.happened', name='\u20ac')\nlog.info('b')\n"
        assert run(program, stderr=stderr.fileno(), within_s=60.0) == 0
    first, second = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert ("a.happened" in first, "\u20ac" in first, "b" in second) == (True, True, True)


@pytest.mark.parametrize(
    "ending",
    [
        "1 / 0",
        "print('x' * 100_000, file=sys.stderr)",
        "warnings.warn('y' * 100_000)",
        "logging.getLogger('asyncio').error('z' * 100_000)",
        "import threading\nthread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()",
        "class Broken:\n    def __del__(self):\n        1 / 0\nbroken = Broken()\ndel broken",
    ],
)
def test_a_process_ends_although_nobody_reads_its_stderr(ending: str) -> None:
    with small_pipe() as (_, stderr):
        code = run(
            f"for number in range(1000):\n    log.info('a.happened', padding='x' * 100)\n{ending}\n",
            stderr=stderr,
            within_s=30.0,
        )
        assert code == (1 if ending == "1 / 0" else 0)
