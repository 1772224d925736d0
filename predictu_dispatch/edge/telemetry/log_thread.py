"""Writes the log from a thread: nothing that reads the log can stop the event loop.

A pipe without a reader, a slow reader, a full disk or a stopped terminal blocks the thread only.
Lines wait in a bounded queue. If it is full, new lines are lost and counted.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TextIO

from typing_extensions import Buffer, override

from predictu_dispatch.core.printable import printable_lines

QUEUE_BYTES_MAX = 4 * 1024 * 1024
"""Lines that wait, about 10,000; as many again are with the thread that writes them."""
_GATHER_S = 0.025
"""The thread waits this long before it writes, so that it writes many lines at once."""
_RETRY_S = 1.0
_CLOSE_S = 1.0
"""How long the end of the process waits for a reader."""
_TOO_SLOW = "the log was not read in time"


class LineWriter:
    """A logger that queues lines for its thread.

    Order is kept. A line that was written in part is completed before the next one. Nothing here
    logs, except one line after a loss, which `lines_lost_notice` makes of the number and the cause.
    """

    def __init__(self, descriptor: int, lines_lost_notice: Callable[[int, str], bytes]) -> None:
        self._descriptor = descriptor
        self._lines_lost_notice = lines_lost_notice
        # Reentrant: the garbage collector may run a destructor that logs inside write().
        self._lock = threading.RLock()
        self._lines: list[bytes] = []
        self._bytes = 0
        self.lines_lost = 0
        self._unreported = 0
        self._fault = _TOO_SLOW
        # Reentrant too, unlike threading.Event.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closing = threading.Event()
        # A daemon thread, because it may be blocked forever when the process ends.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, line: bytes) -> None:
        """Queues whole lines; never waits. They are lost if the queue is full."""
        with self._lock:
            if self._bytes + len(line) > QUEUE_BYTES_MAX:
                self.lines_lost += 1
                self._unreported += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            if len(self._lines) == 1:
                self._wake.put(None)

    debug = info = warning = error = critical = write

    def close(self) -> None:
        """Writes what is queued if the reader takes it within _CLOSE_S."""
        self._closing.set()
        self._wake.put(None)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._closing.is_set() or self._lines:
            self._wake.get()
            self._closing.wait(_GATHER_S)
            self._write_all(self._taken())

    def _taken(self) -> bytes:
        with self._lock:
            lines, self._lines, self._bytes = self._lines, [], 0
            lost, self._unreported = self._unreported, 0
        fault, self._fault = self._fault, _TOO_SLOW
        if lost:
            lines.append(self._lines_lost_notice(lost, fault))
        return b"".join(lines)

    def _write_all(self, lines: bytes) -> None:
        done = 0
        while done < len(lines):
            try:
                done += os.write(self._descriptor, memoryview(lines)[done:])
            except BlockingIOError:
                # Another process made the pipe non-blocking.
                select.select([], [self._descriptor], [], _RETRY_S)
            except OSError as error:
                self._fault = error.strerror or str(error)
                if self._closing.is_set():
                    return
                size = self._size()
                self._closing.wait(_RETRY_S)
                if self._size() < size:
                    # The file was truncated: write the line again from its beginning.
                    done = lines.rfind(b"\n", 0, done) + 1

    def _size(self) -> int:
        with contextlib.suppress(OSError):
            return os.fstat(self._descriptor).st_size
        return 0


def redirect_stderr(writer: LineWriter) -> None:
    """Sends what Python prints on stderr (tracebacks, warnings, messages) through the writer."""
    stream = _QueuedStream(writer, sys.stderr)
    sys.stderr = io.TextIOWrapper(stream, encoding=sys.stderr.encoding, errors="backslashreplace", line_buffering=True)


class _QueuedStream(io.RawIOBase):
    """A binary stream that queues what is written to it."""

    def __init__(self, writer: LineWriter, stream: TextIO) -> None:
        super().__init__()
        self._writer = writer
        self._stream = stream

    @override
    def write(self, data: Buffer, /) -> int:
        written = bytes(data)
        shown = printable_lines(written.decode(self._stream.encoding, "backslashreplace"))
        self._writer.write(shown.encode(self._stream.encoding, "backslashreplace"))
        return len(written)

    @override
    def writable(self) -> bool:
        return True

    @override
    def isatty(self) -> bool:
        return self._stream.isatty()

    @override
    def fileno(self) -> int:
        return self._stream.fileno()
