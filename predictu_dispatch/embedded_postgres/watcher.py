"""Ends an embedded Postgres whose owner is gone, and removes its folder: both ends of one pipe.

`Watcher` is the owner's end. The other end is this file run as a program, in a session of its own. Only the owner holds
the pipe open, so the end of input means that the owner ended, whatever ended it: also kill -9, which leaves nobody else
to clean up. Lines on the pipe say which process is to be ended then: `watch PID` and `forget`.

Why not PR_SET_PDEATHSIG: it needs code between fork and exec, which is not safe with threads; it fires when the thread
that started the child ends, not the process; a change of user clears it; and nobody would remove the folder. The one
limit here: a child forked without exec (multiprocessing's "fork") holds the pipe open too, so nothing ends before it.
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
"""In an immediate shutdown Postgres kills children that do not obey after 5 s; three more for a busy machine."""


class Watcher:
    """A process that outlives us only to clean up: it ends what it watches, removes the folder, once we are gone."""

    def __init__(self, folder: Path) -> None:
        self._program = subprocess.Popen(  # noqa: S603 -- the command is made of our own parts.
            [sys.executable, "-I", "-S", __file__, str(folder)],
            bufsize=0,
            stdin=subprocess.PIPE,
            # Whoever reads our output to its end must not wait for the watcher as well.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The watcher's own process."""
        return self._program.pid

    def watch(self, pid: int) -> None:
        """From now on this process is ended with us. Raises BrokenPipeError where somebody has killed the watcher."""
        self._tell(f"watch {pid}\n")

    def forget(self) -> None:
        """No process is watched. To be said before its end is waited for: after that, its number may be another's."""
        with contextlib.suppress(BrokenPipeError):
            self._tell("forget\n")

    def close(self) -> None:
        """The watcher has done its work and ended; what it still watched is gone, and so is the folder."""
        self._program.communicate()

    def _tell(self, line: str) -> None:
        assert self._program.stdin is not None  # noqa: S101 -- Popen was asked for the pipe.
        self._program.stdin.write(line.encode())


def ended_within(pidfd: int, *, timeout_s: float) -> bool:
    """Whether the process behind the descriptor has ended, and let go of all it held, by then."""
    end = select.poll()
    end.register(pidfd, select.POLLIN)
    return bool(end.poll(timeout_s * 1000))


def _end(pid: int) -> None:
    """The process is gone: by an immediate shutdown where it obeys, by kill -9 where it does not."""
    if sys.platform != "linux":
        os.kill(pid, signal.SIGQUIT)
        return
    # From here on the process is meant, not its number.
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGQUIT)
    if not ended_within(process, timeout_s=_GRACE_S):
        signal.pidfd_send_signal(process, signal.SIGKILL)
        ended_within(process, timeout_s=_GRACE_S)


def _outlive_owner(folder: Path) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        # Whoever ends the owner's whole service ends us too early; we end right after the owner anyway.
        signal.signal(number, signal.SIG_IGN)
    watched: int | None = None
    for line in sys.stdin:
        words = line.split()
        watched = int(words[1]) if words[0] == "watch" else None
    if watched is not None:
        # It may have ended by itself.
        with contextlib.suppress(ProcessLookupError):
            _end(watched)
    # Postgres itself ends within a minute of its folder's going, so even one that could not be ended does not stay.
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _outlive_owner(Path(sys.argv[1]))
