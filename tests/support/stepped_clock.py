"""A wall clock that a test steps while the processes run: Postgres's, or a daemon's.

    with stepped_clock() as clock, clock.postgres() as server:
        clock.step(-3600)

stepped_clock.c is compiled with the system's C compiler and preloaded. Monotonic clocks keep their
time, as in a real step.
"""

import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from typing_extensions import override

from predictu_dispatch.core.clock import ClockReading, DatabaseClock
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres

_SOURCE = Path(__file__).with_suffix(".c")
_COMPILER = shutil.which("cc") or shutil.which("gcc")


@dataclass(kw_only=True)
class SteppedClock:
    """One shifted clock; `environment` shifts the clock of a process that is started with it."""

    folder: Path
    offset_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.folder / "clock.so"), "CLOCK_OFFSET_FILE": str(self.folder / "offset")}

    def step(self, seconds: float) -> None:
        """Steps the clock of every running process of this clock."""
        self.offset_s += seconds
        self._write()

    def postgres(self, settings: Mapping[str, str] | None = None) -> EmbeddedPostgres:
        """A server of the test's own with this clock, also after a restart."""
        return _SteppedPostgres(clock=self, settings=settings)

    def _write(self) -> None:
        # In place: the processes have mapped this file. Eight bytes are written at once.
        file = os.open(self.folder / "offset", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(file, struct.pack("=q", round(self.offset_s * 1e9)))
        os.close(file)


class _SteppedPostgres(EmbeddedPostgres):
    def __init__(self, *, clock: SteppedClock, settings: Mapping[str, str] | None) -> None:
        super().__init__(fsync=False, settings=settings)
        self._clock = clock

    @override
    def _spawn(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        # Only this process and its children: the daemons of the test keep their clock.
        with mock.patch.dict(os.environ, self._clock.environment):
            return super()._spawn(program, *arguments)


def steady_clock() -> DatabaseClock:
    """What a daemon knows of a database on this machine after an hour."""
    clock, now_s, host_at_s = DatabaseClock(), time.monotonic(), time.time()
    for ago_s in range(3600, -1, -10):
        clock.observe(ClockReading(host_at_s - ago_s, now_s - ago_s, now_s - ago_s))
    return clock


@contextlib.contextmanager
def stepped_clock() -> Iterator[SteppedClock]:
    """A clock without a shift. Skips the test if no C compiler is installed."""
    if _COMPILER is None:
        pytest.skip("stepping a clock needs a C compiler (cc)")
    folder = Path(tempfile.mkdtemp(prefix="predictu-clock-"))
    try:
        # Postgres runs as another user than the tests, if they run as root.
        folder.chmod(0o755)
        subprocess.run(
            [_COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", folder / "clock.so", _SOURCE, "-ldl"],
            check=True,
        )
        yield SteppedClock(folder=folder)
    finally:
        shutil.rmtree(folder)
