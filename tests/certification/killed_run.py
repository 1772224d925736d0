"""Plays the small scenarios, or cleans a run, in processes that kill themselves at chosen moments.

Arguments: URL and folder of the keys. Each line of the standard input starts a process, by a fork
because imports take a second: the run's folder, `play` or `clean`, and the moment, a kind and a
number. `torn N`: in the middle of the Nth write to the journal. `written N`: after it, before its
sync. `sent N`: when the Nth request is in the kernel's buffer. Its exit code is the line of output.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import traceback
from pathlib import Path

from typing_extensions import Buffer

from predictu_dispatch.certification.reversal import clean
from predictu_dispatch.certification.runner import play
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.http.connection import Connection
from tests.certification.sandbox import Sandbox
from tests.certification.small_scenarios import SMALL


def kill_at(kind: str, number: int) -> None:
    """Have this process killed at the moment."""
    writes, requests = itertools.count(1), itertools.count(1)
    write, send = os.write, Connection.send

    def write_or_die(descriptor: int, octets: Buffer) -> int:
        is_last = next(writes) == number
        if is_last and kind == "torn":
            write(descriptor, bytes(octets)[: len(bytes(octets)) // 2])
            _die()
        written = write(descriptor, octets)
        if is_last and kind == "written":
            _die()
        return written

    def send_and_die(self: Connection, request: bytes) -> None:
        send(self, request)
        if kind == "sent" and next(requests) == number:
            _die()

    os.write = write_or_die
    Connection.send = send_and_die  # type: ignore[method-assign]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _main(url: str, keys: Path, folder: Path, what: str) -> None:
    key = SigningKey.from_pem((keys / "sandbox.pem").read_bytes(), "EdDSA")
    target = Sandbox(url=url, folder=keys, key=key).target()
    if what == "play":
        await play(target, SMALL, folder, run=folder.name)
    else:
        await clean(target, folder, run=folder.name)


def _start_processes(url: str, keys: str) -> None:
    for line in sys.stdin:
        folder, what, kind, number = line.split()
        child = os.fork()
        if not child:
            kill_at(kind, int(number))
            try:
                asyncio.run(_main(url, Path(keys), Path(folder), what))
            except BaseException:  # noqa: BLE001 - the exit code says it
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _start_processes(*sys.argv[1:])
