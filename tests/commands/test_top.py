"""`top` on a real terminal: problems first, hidden operators counted, outages survived."""

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
MAIN = "from predictu_dispatch.cli import main; main(prog_name='predictu-dispatch')"
COMMAND = (sys.executable, "-c", MAIN)


class Terminal:
    """A command on a terminal of 80 columns, and its output."""

    def __init__(self, *command: str, sigint: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.set_blocking(self._ours, False)
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.{sigint}); {MAIN}", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.written = ""

    def shows(self, text: str) -> bool:
        """True if the last screen has this text."""
        try:
            while octets := os.read(self._ours, 65_536):
                self.written += octets.decode("utf-8", "replace")
        except OSError:
            pass
        return text in self.text

    @property
    def text(self) -> str:
        """The last complete screen as plain text; each begins at the top left."""
        screens = self.written.split("\x1b[H")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screens[-2] if len(screens) > 2 else screens[-1])

    def close(self) -> None:
        """Kill the command if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def terminal(cli: CommandLine, *command: str, sigint: str = "default_int_handler") -> Iterator[Terminal]:
    opened = Terminal(*command, "--config", str(cli.config), sigint=sigint)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("sigint", ["default_int_handler", "SIG_IGN"])
async def test_it_follows_the_backlog_and_ends_with_ctrl_c(
    tmp_path: Path, database: Database, harness: Harness, sigint: str
) -> None:
    """Also if SIGINT is ignored at the start, as in a background job of a shell."""
    cli = command_line_for(tmp_path, database.support)
    with terminal(cli, "top", "--every", "0.2", sigint=sigint) as screen:
        await until("the first screen", lambda: screen.shows("0 not final"))
        assert "nothing needs review" in screen.text
        assert OPERATOR in screen.text
        for number in range(3):
            await harness.place(f"b{number}")
        await until("the backlog is shown", lambda: screen.shows("3 not final"))
        assert len(screen.text.splitlines()) <= ROWS
        screen.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(screen.process.wait, 20) == 0


@pytest.mark.usefixtures("harness")
async def test_an_outage_is_shown_and_does_not_end_it(tmp_path: Path, database: Database) -> None:
    async with proxied(database.support) as proxy:
        with terminal(command_line_for(tmp_path, proxy.dsn()), "top", "--every", "0.2") as screen:
            await until("the first screen", lambda: screen.shows("not final"))
            proxy.refuse_connections()
            await until("the outage is shown", lambda: screen.shows("can't be reached"))
            first, second = screen.text.splitlines()[:2]
            assert first.rstrip().endswith("retrying. Last answer:")
            assert "Error" in second
            assert OPERATOR in screen.text
            proxy.accept_connections()
            await until("it continues", lambda: screen.shows("not final") and "can't be reached" not in screen.text)


async def test_a_login_without_the_right_learns_which_role_has_it(tmp_path: Path, database: Database) -> None:
    with terminal(command_line_for(tmp_path, database.producer), "top") as screen:
        await until("the role is named", lambda: "predictu_support or predictu_operations" in read_all(screen))
        assert await asyncio.to_thread(screen.process.wait, 20) == 1


def read_all(screen: Terminal) -> str:
    screen.shows("")
    return screen.written


async def test_it_needs_a_terminal(tmp_path: Path, database: Database) -> None:
    code, text, stderr = await command_line_for(tmp_path, database.support).run("top")
    assert (code, text) == (2, "")
    assert "predictu-dispatch status --json" in stderr


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
        "last_failure_at": None,
        "unreachable_from": None,
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
def test_a_screen_fits_its_terminal_and_begins_with_problems(
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


@pytest.mark.parametrize(("before", "now", "text"), [(10, 30, "(+10/s)"), (30, 10, "(-10/s)"), (5, 5, "(+0/s)")])
def test_the_trend_of_the_backlog_is_in_callbacks_a_second(before: int, now: int, text: str) -> None:
    first, second = (
        Overview(at_s=at_s, at=AT, lanes=[lane("op_1", "interactive", ready=ready)])
        for at_s, ready in ((10.0, before), (12.0, now))
    )
    assert text in frame(second, first, height=ROWS)[0]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_verbs_and_options(shell: str) -> None:
    made = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, check=True)
    assert f"_PREDICTU_DISPATCH_COMPLETE={shell}_complete" in made.stdout
    environment = {**os.environ, "_PREDICTU_DISPATCH_COMPLETE": "bash_complete", "COMP_WORDS": "predictu-dispatch st"}
    text = subprocess.run(COMMAND, env={**environment, "COMP_CWORD": "1"}, capture_output=True, text=True, check=False)
    assert text.stdout.splitlines() == ["plain,status"]
