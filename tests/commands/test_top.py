"""`top` on a real terminal: what needs a person comes first, nothing is left out unsaid, an outage does not end it."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.commands.top import Overview, frame
from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import until
from tests.support.harness import OPERATOR, Harness
from tests.support.postgres import Database
from tests.support.postgres_proxy import proxied

ROWS, COLUMNS = 24, 80
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COMMAND = (sys.executable, "-c", "from predictu_dispatch.cli import main; main(prog_name='predictu-dispatch')")


class Terminal:
    """A terminal of 80 columns, and all that was written on it."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.set_blocking(self._ours, False)
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [*COMMAND, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.written = ""

    def shows(self, text: str) -> bool:
        """True once this stands in the last picture."""
        try:
            while octets := os.read(self._ours, 65_536):
                self.written += octets.decode("utf-8", "replace")
        except OSError:
            pass
        return text in self.picture

    @property
    def picture(self) -> str:
        """The last whole picture, in plain text; each begins at the top left."""
        pictures = self.written.split("\x1b[H")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", pictures[-2] if len(pictures) > 2 else pictures[-1])

    def close(self) -> None:
        """The command is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def terminal(desk: CommandLine, *command: str) -> Iterator[Terminal]:
    opened = Terminal(*command, "--config", str(desk.config))
    try:
        yield opened
    finally:
        opened.close()


async def test_it_follows_what_happens_and_ends_with_ctrl_c(
    tmp_path: Path, database: Database, harness: Harness
) -> None:
    with terminal(command_line_for(tmp_path, database.support), "top", "--every", "0.2") as screen:
        await until("the first picture", lambda: screen.shows("0 not final"))
        assert "nothing needs review" in screen.picture
        assert OPERATOR in screen.picture
        for number in range(3):
            await harness.place(f"b{number}")
        await until("what was enqueued shows", lambda: screen.shows("3 not final"))
        assert len(screen.picture.splitlines()) <= ROWS
        screen.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(screen.process.wait, 20) == 0


@pytest.mark.usefixtures("harness")
async def test_an_outage_is_said_and_does_not_end_it(tmp_path: Path, database: Database) -> None:
    async with proxied(database.support) as proxy:
        with terminal(command_line_for(tmp_path, proxy.dsn()), "top", "--every", "0.2") as screen:
            await until("the first picture", lambda: screen.shows("not final"))
            proxy.refuse_connections()
            await until("it says so", lambda: screen.shows("can't be reached"))
            first, second = screen.picture.splitlines()[:2]
            assert first.rstrip().endswith("below is what it said last")
            assert "Error" in second
            # What is below is what was known last.
            assert OPERATOR in screen.picture
            proxy.accept_connections()
            await until("it goes on", lambda: screen.shows("UTC") and "can't be reached" not in screen.picture)


async def test_it_draws_only_on_a_terminal(tmp_path: Path, database: Database) -> None:
    code, said, complaint = await command_line_for(tmp_path, database.support).run("top")
    assert (code, said) == (2, "")
    assert "predictu-dispatch status --json" in complaint


def lane(operator_id: str, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "operator_id": operator_id,
        "lane": name,
        "waiting": 0,
        "ready": 0,
        "in_flight": 0,
        "slots": 16,
        "oldest_due_s": None,
        "unknown_effect": 0,
        "enabled": True,
        "paused_at": None,
        "circuit": "closed",
        "circuit_for_s": None,
        "backoff_for_s": 0,
        "health": "healthy",
        "consecutive_failures": 0,
        "ping_in_s": None,
        "daemons": 1,
        **changes,
    }


def lanes_of(number: int, **changes: Any) -> list[dict[str, Any]]:
    return [lane(f"op_{number:03}", name, **changes) for name in ("interactive", "settlement")]


@given(
    ill=st.sets(st.integers(0, 60)),
    count=st.integers(1, 60),
    height=st.integers(12, 60),
    backlogs=st.lists(st.integers(0, 10**7), min_size=60, max_size=60),
)
def test_a_picture_fits_its_terminal_and_begins_with_what_needs_a_person(
    ill: set[int], count: int, height: int, backlogs: list[int]
) -> None:
    broken = {"circuit": "open", "health": "down", "consecutive_failures": 7}
    lanes = [
        row
        for number in range(count)
        for row in lanes_of(number, ready=backlogs[number], **(broken if number in ill else {}))
    ]
    lines = [click.unstyle(line) for line in frame(Overview(at_s=1.0, at=AT, lanes=lanes), None, height=height)]
    assert len(lines) <= height
    assert all(len(line) <= COLUMNS for line in lines)
    shown = list(dict.fromkeys(line.split()[0] for line in lines if line.startswith("op_") and ":" not in line))
    needs = sorted(range(count), key=lambda number: (number not in ill, -backlogs[number], number))
    assert shown == [f"op_{number:03}" for number in needs[: len(shown)]]
    assert shown
    left = count - len(shown)
    assert any(f"{left} more operator" in line for line in lines) == (left > 0)


@pytest.mark.parametrize(("before", "now", "said"), [(10, 30, "(+10/s)"), (30, 10, "(-10/s)"), (5, 5, "(+0/s)")])
def test_how_the_backlog_moves_is_said_in_callbacks_a_second(before: int, now: int, said: str) -> None:
    first, second = (
        Overview(at_s=at_s, at=AT, lanes=[lane("op_1", "interactive", ready=ready)])
        for at_s, ready in ((10.0, before), (12.0, now))
    )
    assert said in frame(second, first, height=ROWS)[0]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_verbs_and_options(shell: str) -> None:
    made = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, check=True)
    assert f"_PREDICTU_DISPATCH_COMPLETE={shell}_complete" in made.stdout
    asked = {**os.environ, "_PREDICTU_DISPATCH_COMPLETE": "bash_complete", "COMP_WORDS": "predictu-dispatch st"}
    said = subprocess.run(
        COMMAND,
        env={**asked, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout.splitlines() == ["plain,status"]
