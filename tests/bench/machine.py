"""One line that describes a measurement: time, commit, machine, versions."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres


def machine(postgres: EmbeddedPostgres) -> str:
    """The line above each table in README.md: time, commit, machine, versions and load."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}, {os.cpu_count()} cores ({_processor()}),"
        f" Python {platform.python_version()}, Postgres {postgres.version}, load {os.getloadavg()[0]:.2f}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    described = subprocess.run(
        [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"
