"""Chooses a temporary folder and a loopback port for an embedded Postgres."""

import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

from predictu_dispatch.embedded_postgres.binaries import PostgresUnavailableError

_PORTS = range(20_000, 32_000)
"""Below Linux's range for outgoing connections, which could take the port of a killed server."""
_TEMPORARY_PATH_MAX = 64
"""A Unix socket's path may have 103 bytes on macOS; 36 are added to this folder's."""

_MEMORY = Path("/dev/shm")  # noqa: S108 -- mkdtemp is safe there.
_MEMORY_FREE_BYTES_MIN = 2 << 30
"""A test run needs less than a tenth; the 64 MB of many containers are too little."""


def fresh_folder(*, in_memory: bool) -> Path:
    """Make a private folder with a short path; if we are root, `nobody` can pass through it.

    With `in_memory` it is in memory if there is room: a new database takes 15 ms there, and 300 ms
    on a slow disk.
    """
    parents = dict.fromkeys(map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")))  # noqa: S108 -- as above.
    for parent in (_MEMORY, *parents) if in_memory and _has_room(_MEMORY) else parents:
        path = parent.resolve()
        if len(os.fsencode(path)) > _TEMPORARY_PATH_MAX or not os.access(path, os.W_OK | os.X_OK):
            continue
        everyone_may_pass = all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
        if everyone_may_pass or os.geteuid() != 0:
            folder = Path(tempfile.mkdtemp(prefix="predictu-", dir=path))
            if os.geteuid() == 0:
                # Postgres passes through to its own folders as nobody, and cannot list this one.
                folder.chmod(0o711)
            return folder
    raise PostgresUnavailableError(
        f"no temporary folder whose path has at most {_TEMPORARY_PATH_MAX} bytes and which every user may enter; "
        "set TMPDIR to one"
    )


def _has_room(memory: Path) -> bool:
    # choose_launch may copy programs there.
    runs_programs = memory.is_dir() and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    return runs_programs and shutil.disk_usage(memory).free >= _MEMORY_FREE_BYTES_MIN


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now; another process may still take it."""
    while True:
        # Not `random`, which test tools seed alike in every process.
        port = secrets.choice(_PORTS)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
