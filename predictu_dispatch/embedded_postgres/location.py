"""Where an embedded Postgres lives: a folder of its own below a temporary one, and a port of the loopback address."""

import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

from predictu_dispatch.embedded_postgres.binaries import PostgresUnavailableError

_PORTS = range(20_000, 32_000)
"""Below Linux's range for outgoing connections, or one of those could take our port between a kill and a restart."""
_TEMPORARY_PATH_MAX = 64
"""A Unix socket's path may have 107 bytes on Linux and 103 on macOS; ours adds 36 to the temporary folder's."""

_MEMORY = Path("/dev/shm")  # noqa: S108 -- mkdtemp is safe there.
_MEMORY_FREE_BYTES_MIN = 2 << 30
"""A test run's databases and their log stay below a tenth of it; containers often get 64 MB, which is too little."""


def fresh_folder(*, in_memory: bool) -> Path:
    """A folder that only we can read, where a socket's path is short enough and, if we are root, `nobody` may pass.

    With `in_memory` it is in memory where the system has enough: on a slow disk a database costs 300 ms, there 15 ms.
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
                # Postgres passes through to its own folders, as nobody, and sees nothing else.
                folder.chmod(0o711)
            return folder
    raise PostgresUnavailableError(
        f"no temporary folder whose path has at most {_TEMPORARY_PATH_MAX} bytes and which every user may enter; "
        "set TMPDIR to one"
    )


def _has_room(memory: Path) -> bool:
    # Programs may have to be copied there: see choose_launch.
    runs_programs = memory.is_dir() and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    return runs_programs and shutil.disk_usage(memory).free >= _MEMORY_FREE_BYTES_MIN


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody holds at this moment; whoever binds it later must be ready to lose it."""
    while True:
        # Scattered, so that two starts seldom meet; and not by `random`, which test tools seed alike in every process.
        port = secrets.choice(_PORTS)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
