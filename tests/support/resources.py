"""A small disk, a limit on descriptors, and a daemon's resource usage."""

import asyncio
import contextlib
import errno
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from typing_extensions import override

from tests.support.daemons import Daemon
from tests.support.harness import Connection

_MOUNT_TIMEOUT_S = 20.0
_PIECE = bytes(1 << 20)
_ANSWER_BODY = b'{"status":"OK","balance":100000,"transaction_id":"op-tx-1"}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_ANSWER_BODY),
    _ANSWER_BODY,
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    """A tmpfs mounted at `path`, which every user may enter."""

    path: Path

    def fill(self) -> None:
        """Fills the disk to the last page."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            try:
                while filler.write(_PIECE):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self) -> None:
        """Frees what fill() took."""
        (self.path / "filler").unlink()


def why_no_small_disk() -> str | None:
    """Returns why no small disk can be mounted here, None if it can."""
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    if shutil.which("mount") is None:
        return "mounting a small disk needs `mount`"
    try:
        with small_disk(size_mb=1):
            return None
    except subprocess.CalledProcessError as error:
        return f"nothing can be mounted here: {error.stderr.strip()}"


@contextmanager
def small_disk(*, size_mb: int) -> Iterator[SmallDisk]:
    """Mounts a tmpfs of this size.

    After a kill -9 an empty folder stays, with our pid in its name.
    """
    # In /tmp, because a socket's path must be short and Postgres's user must be able to enter.
    path = Path(tempfile.mkdtemp(prefix=f"predictu-disk-{os.getpid()}-", dir="/tmp"))
    try:
        _system("mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0755", "predictu-disk", str(path))
        try:
            path.chmod(0o755)
            yield SmallDisk(path=path)
        finally:
            # Lazy: a file there may still be open.
            _system("umount", "--lazy", str(path))
    finally:
        path.rmdir()


def _system(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MOUNT_TIMEOUT_S)


@contextmanager
def few_descriptors(pid: int, *, more: int) -> Iterator[None]:
    """Lets the process open only `more` descriptors above those it has now.

    Restores the limit afterwards.
    """
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    has = descriptors(pid)
    # The limit is on descriptor numbers, and the kernel gives the lowest free one first.
    free = [number for number in range(max(has) + more + 2) if number not in has]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[more], before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def descriptors(pid: int) -> set[int]:
    """Returns the process's open descriptors."""
    return {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


def status(pid: int, name: str) -> int:
    """Returns a number of /proc/PID/status: `RssAnon` in kilobytes, `Threads`."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@dataclass(slots=True)
class MinimalOperator:
    """An operator that counts requests and answers OK, with as little work as possible."""

    url: str = ""
    answered: int = 0


class _Connection(asyncio.Protocol):
    def __init__(self, operator: MinimalOperator) -> None:
        self._operator = operator
        self._received = b""
        self._transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        # No pipelining: a client sends nothing more until it has its answer.
        if end and length is not None and len(body) >= int(length[1]) and self._transport is not None:
            self._received = b""
            self._operator.answered += 1
            self._transport.write(_ANSWER)


@asynccontextmanager
async def minimal_operator() -> AsyncIterator[MinimalOperator]:
    """Serves a MinimalOperator on a free port."""
    operator = MinimalOperator()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(operator), "127.0.0.1", 0)
    operator.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callback"
    try:
        yield operator
    finally:
        server.close()
        await server.wait_closed()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUsage:
    """A daemon's resources at one time, and the size of its log."""

    delivered: int
    resident_kb: int
    threads: int
    descriptors: int
    connections: int
    series: int
    log_lines: int
    log_bytes: int


async def resource_usage(daemon: Daemon, connection: Connection, operator: MinimalOperator) -> ResourceUsage:
    """Measures the daemon's resources from outside."""
    figures = await daemon.metrics()
    log = daemon.log.read_bytes()
    return ResourceUsage(
        delivered=operator.answered,
        resident_kb=status(daemon.process.pid, "RssAnon"),
        threads=status(daemon.process.pid, "Threads"),
        descriptors=len(descriptors(daemon.process.pid)),
        connections=await connection.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() and usename = 'test_dispatcher'"
        ),
        series=sum(len(samples) for samples in figures.values()),
        log_lines=log.count(b"\n"),
        log_bytes=len(log),
    )
