"""Counts the addresses to which a process connects or sends, whatever library it uses.

connections.c is compiled with the system's C compiler and preloaded.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_suffix(".c")
_COMPILER = shutil.which("cc") or shutil.which("gcc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """What the processes that are started with `environment` connect to."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.folder / "connections.so"), "CONNECTIONS_FILE": str(self.folder / "connections")}

    def counted(self) -> Counter[tuple[str, int]]:
        """Return how often each host and port was connected or sent to."""
        file = self.folder / "connections"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return Counter((host, int(port)) for host, port in (line.split() for line in lines))


def count_connections(folder: Path) -> Connections:
    """Prepare counting in this folder. Skips the test if no C compiler is installed."""
    if _COMPILER is None:
        pytest.skip("counting connections needs a C compiler (cc)")
    subprocess.run(
        [_COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", folder / "connections.so", _SOURCE, "-ldl"],
        check=True,
    )
    return Connections(folder=folder)
