"""A process of the demo's own: started, killed, stopped, and gone with us whatever ends us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from predictu_dispatch.edge.config.dispatcher_file import VARIABLES
from predictu_dispatch.embedded_postgres.watcher import Watcher

_STOP_TIMEOUT_S = 15.0
"""Above the daemon's drain_s and the operator's own time for a stop."""
_FIRST_LINE_TIMEOUT_S = 30.0
"""A start takes half a second; several of them on a machine on its knees take longer."""
_LOG_TAIL_LINES = 12
_NOT_OURS = (*VARIABLES.values(), "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET")
"""The caller's own database, credentials and service manager must not reach into a demo."""


class DemoError(Exception):
    """The demo cannot go on; the message says what failed and where to look."""


class Child:
    """One process, also over several lives; what it says is in `<folder>/<name>.log`.

    One that `announces_itself` prints a line on stdout when it is ready, for first_line(), and nothing after it.
    """

    def __init__(self, name: str, command: Sequence[str], *, folder: Path, announces_itself: bool) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._announces_itself = announces_itself
        self._process: asyncio.subprocess.Process | None = None
        # Ends the process if we are killed ourselves and can end nothing. Its folder is only there to be removed by it.
        guarded = folder / f".{name}"
        guarded.mkdir()
        self._watcher = Watcher(guarded)

    @property
    def is_running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """The process has been started; whether it is ready is for its owner to find out."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._announces_itself else log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name not in _NOT_OURS},
                # Ctrl-C is for us, who then stop everything in order.
                start_new_session=True,
            )
        self._watcher.watch(self._process.pid)

    async def first_line(self) -> bytes:
        """The first line on stdout. Raises DemoError with the end of the log where there is none."""
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018 -- asked after start().
        with contextlib.suppress(TimeoutError):
            if line := await asyncio.wait_for(self._process.stdout.readline(), _FIRST_LINE_TIMEOUT_S):
                return line
        raise self.failure("did not start")

    def failure(self, what: str) -> DemoError:
        """An error that shows what the process said last."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return DemoError(f"{self.name} {what}; the end of {self.log}:\n" + "\n".join(lines[-_LOG_TAIL_LINES:]))

    async def kill(self) -> None:
        """Gone by kill -9: it had no chance to finish anything."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
        self._watcher.forget()

    async def stop(self) -> int:
        """Ended by SIGTERM, by kill -9 if it does not obey; returns the exit code, 0 where it never ran."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
        code = await self._process.wait()
        self._watcher.forget()
        return code

    async def close(self) -> None:
        """Nothing is left of the process, in whatever state it was."""
        try:
            await self.stop()
        finally:
            self._watcher.close()
