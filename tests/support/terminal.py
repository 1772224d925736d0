"""A command on a pseudo-terminal of a given size, and the screens that it shows."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.command_line import CommandLine

MAIN = "from predictu_dispatch.cli import main; main(prog_name='predictu-dispatch')"
ROWS, COLUMNS = 24, 80


class Terminal:
    """A command on a terminal, and its output."""

    def __init__(self, *command: str, sigint: str, rows: int, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.set_blocking(self._ours, False)
        environment = {**os.environ, "TERM": "xterm-256color"}
        for variable in ("NO_COLOR", "COLUMNS", "LINES"):
            environment.pop(variable, None)
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
def terminal(
    cli: CommandLine, *command: str, sigint: str = "default_int_handler", rows: int = ROWS, columns: int = COLUMNS
) -> Iterator[Terminal]:
    """Runs the command on a terminal, and kills it at the end."""
    opened = Terminal(*command, "--config", str(cli.config), sigint=sigint, rows=rows, columns=columns)
    try:
        yield opened
    finally:
        opened.close()
