"""A child process that ends when this process ends, also if this process is killed."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from predictu_dispatch.embedded_postgres.watcher import Watcher

_END_TIMEOUT_S = 15.0
"""Time for a worker to finish its running jobs."""


class ChildProcess:
    """Starts at once and appends its output to `log`."""

    def __init__(self, command: Sequence[str], *, log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        # If this process is killed, the watcher ends the child and removes this folder.
        self._watcher = Watcher(Path(tempfile.mkdtemp(prefix="watched-", dir=log.parent)))
        self._watcher.watch(self._process.pid)
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def end(self) -> int:
        """Terminate the process, or kill it after a timeout; returns the exit code."""
        self._process.terminate()
        self._watcher.forget()
        try:
            return self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._watcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
