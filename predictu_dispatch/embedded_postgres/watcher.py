"""Ends a process and removes a folder when their owner ends, also by kill -9.

`Watcher` is the owner's end of a pipe; the other is this file as a program in its own session. The
end of input means that the owner ended. Lines on the pipe name the process to end: `watch PID` and
`forget`.

PR_SET_PDEATHSIG is not enough: it needs code between fork and exec, which is unsafe with threads;
it acts when the starting thread ends; a change of user clears it; and it removes no folder. One
limit: a child forked without exec (multiprocessing's "fork") holds the pipe open too.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_GRACE_S = 8.0
"""In an immediate shutdown Postgres kills its children after 5 s."""


class Watcher:
    """A process that outlives us to end the watched process and to remove the folder."""

    def __init__(self, folder: Path) -> None:
        self._program = subprocess.Popen(  # noqa: S603 -- the command is made of our own parts.
            [sys.executable, "-I", "-S", __file__, str(folder)],
            bufsize=0,
            stdin=subprocess.PIPE,
            # A reader of our output must not wait for the watcher.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._program.pid

    def watch(self, pid: int) -> None:
        """End this process with us. Raises BrokenPipeError if the watcher was killed."""
        self._write(f"watch {pid}\n")

    def forget(self) -> None:
        """Watch no process. Call it before waiting for the process, whose id may be reused."""
        with contextlib.suppress(BrokenPipeError):
            self._write("forget\n")

    def close(self) -> None:
        """End the watcher, the process it still watches, and the folder."""
        self._program.communicate()

    def _write(self, line: str) -> None:
        assert self._program.stdin is not None  # noqa: S101 -- Popen opened the pipe.
        self._program.stdin.write(line.encode())


def ended_within(pidfd: int, *, timeout_s: float) -> bool:
    """Whether the process ends within the time."""
    end = select.poll()
    end.register(pidfd, select.POLLIN)
    return bool(end.poll(timeout_s * 1000))


def _end(pid: int) -> None:
    """End the process: by SIGQUIT, which is Postgres's immediate shutdown, then by kill -9."""
    if sys.platform != "linux":
        os.kill(pid, signal.SIGQUIT)
        return
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGQUIT)
    if not ended_within(process, timeout_s=_GRACE_S):
        signal.pidfd_send_signal(process, signal.SIGKILL)
        ended_within(process, timeout_s=_GRACE_S)


def _outlive_owner(folder: Path) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        # A stop of the owner's whole service must not end the watcher before the owner.
        signal.signal(number, signal.SIG_IGN)
    watched: int | None = None
    for line in sys.stdin:
        words = line.split()
        watched = int(words[1]) if words[0] == "watch" else None
    if watched is not None:
        with contextlib.suppress(ProcessLookupError):
            _end(watched)
    # A Postgres that could not be ended stops within a minute of losing its folder.
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _outlive_owner(Path(sys.argv[1]))
