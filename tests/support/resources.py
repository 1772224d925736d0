"""A disk that can be filled, a process that is short of descriptors, and what a daemon holds while it delivers."""

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
    """A file system of its own, in memory, at `path`, which every user may pass."""

    path: Path

    def fill(self) -> None:
        """Not one page is left."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            try:
                while filler.write(_PIECE):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self) -> None:
        """What fill() took is free again."""
        (self.path / "filler").unlink()


def why_no_small_disk() -> str | None:
    """Why no small disk can be had, in words; None where it can."""
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
    """A disk of so many megabytes, gone afterwards. After a kill -9 an empty one stays, and its name tells whose."""
    # The system's own folder for this, because a socket's path must be short and Postgres's user must get there.
    path = Path(tempfile.mkdtemp(prefix=f"predictu-disk-{os.getpid()}-", dir="/tmp"))
    try:
        _system("mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0755", "predictu-disk", str(path))
        try:
            path.chmod(0o755)
            yield SmallDisk(path=path)
        finally:
            # Also where something still has a file open there.
            _system("umount", "--lazy", str(path))
    finally:
        path.rmdir()


def _system(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MOUNT_TIMEOUT_S)


@contextmanager
def few_descriptors(pid: int, *, more: int) -> Iterator[None]:
    """The process gets no more than so many descriptors above those it has now; afterwards as many as ever."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    has = descriptors(pid)
    # The limit is one of numbers, and the lowest free one is given first.
    free = [number for number in range(max(has) + more + 2) if number not in has]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[more], before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def descriptors(pid: int) -> set[int]:
    """The process's open descriptors."""
    return {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


def status(pid: int, name: str) -> int:
    """A number of /proc/PID/status: `RssAnon` in kilobytes, `Threads`."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@dataclass(slots=True)
class MinimalOperator:
    """An operator that costs next to nothing: it counts requests and says yes to each."""

    url: str = ""
    answered: int = 0


class _Connection(asyncio.Protocol):
    def __init__(self, answerer: MinimalOperator) -> None:
        self._answerer = answerer
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
        # A client that waits for its answer sends nothing behind the request.
        if end and length is not None and len(body) >= int(length[1]) and self._transport is not None:
            self._received = b""
            self._answerer.answered += 1
            self._transport.write(_ANSWER)


@asynccontextmanager
async def minimal_operator() -> AsyncIterator[MinimalOperator]:
    """It answers, on a port of its own."""
    answerer = MinimalOperator()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(answerer), "127.0.0.1", 0)
    answerer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callback"
    try:
        yield answerer
    finally:
        server.close()
        await server.wait_closed()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUsage:
    """What a daemon holds at one moment, and has written."""

    delivered: int
    resident_kb: int
    threads: int
    descriptors: int
    connections: int
    series: int
    log_lines: int
    log_bytes: int


async def resource_usage(daemon: Daemon, connection: Connection, answerer: MinimalOperator) -> ResourceUsage:
    """As of now, counted from outside."""
    figures = await daemon.metrics()
    log = daemon.log.read_bytes()
    return ResourceUsage(
        delivered=answerer.answered,
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
