"""A process of the demo, which ends with the demo, also if the demo is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from predictu_dispatch.edge.config.loader import VARIABLES
from predictu_dispatch.embedded_postgres.watcher import Watcher

_STOP_TIMEOUT_S = 15.0
"""Longer than the daemon's drain_s and an operator's own time to stop."""
_FIRST_LINE_TIMEOUT_S = 30.0
_LOG_TAIL_LINES = 12
_NOT_INHERITED = (*VARIABLES.values(), "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET")
"""The caller's database, credentials and service manager must not reach the demo."""


class DemoError(Exception):
    """The demo cannot go on; the message says what failed and where to look."""


class Process:
    """One process that can be started again; its output is in `<folder>/<name>.log`.

    With `prints_first_line` its stdout has only that line, for first_line(), when it is ready.
    """

    def __init__(self, name: str, command: Sequence[str], *, folder: Path, prints_first_line: bool) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._prints_first_line = prints_first_line
        self._process: asyncio.subprocess.Process | None = None
        # Ends the process if the demo is killed; the watcher needs a folder that it may remove.
        guarded = folder / f".{name}"
        guarded.mkdir()
        self._watcher = Watcher(guarded)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; it may not be ready yet."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._prints_first_line else log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name not in _NOT_INHERITED},
                # Ctrl-C reaches the demo only, which stops its processes in order.
                start_new_session=True,
            )
        self._watcher.watch(self._process.pid)

    async def first_line(self) -> bytes:
        """The first line on stdout. Raises DemoError with the end of the log if there is none."""
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018 -- called after start().
        with contextlib.suppress(TimeoutError):
            if line := await asyncio.wait_for(self._process.stdout.readline(), _FIRST_LINE_TIMEOUT_S):
                return line
        raise self.failure("did not start")

    def failure(self, what: str) -> DemoError:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return DemoError(f"{self.name} {what}; the end of {self.log}:\n" + "\n".join(lines[-_LOG_TAIL_LINES:]))

    async def kill(self) -> None:
        """End the process by kill -9, so it cannot finish anything."""
        if self._process is not None:
            self._send(self._process, signal.SIGKILL)
            await self._process.wait()
        self._watcher.forget()

    async def stop(self) -> int:
        """End the process by SIGTERM, or kill -9 after a timeout; returns the exit code."""
        if self._process is None:
            return 0
        self._send(self._process, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            self._send(self._process, signal.SIGKILL)
        code = await self._process.wait()
        self._watcher.forget()
        return code

    @staticmethod
    def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        """Send a signal unless the process has ended, also if asyncio has not noticed it yet.

        Its own send_signal() would then take the exit code from the thread that waits for it.
        """
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    async def close(self) -> None:
        """End the process at once: the demo needs nothing that it has not finished."""
        try:
            await self.kill()
        finally:
            self._watcher.close()


def reference_operator(
    operator_id: str, *, folder: Path, port: int, public_key: bytes, algorithm: str, amount_format: str, fault_seed: int
) -> Process:
    """A reference operator with its wallet in `<folder>/<operator_id>.sqlite`."""
    key_file = folder / f"{operator_id}.public.pem"
    key_file.write_bytes(public_key)
    command = [
        *(sys.executable, "-m", "predictu_dispatch.reference_operator", "--operator-id", operator_id),
        *("--database", str(folder / f"{operator_id}.sqlite"), "--public-key", str(key_file)),
        *("--algorithm", algorithm, "--amount-format", amount_format),
        *("--listen", f"127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0"),
        *("--fault-seed", str(fault_seed), "--log", "json"),
    ]
    return Process(operator_id, command, folder=folder, prints_first_line=True)
