"""Plays the small scenarios, or cleans a run, in a process that kills itself at a chosen moment.

Arguments: URL, folder of the keys, folder of the run, `play` or `clean`, and the moment: a
kind and a number. `torn N`: in the middle of the Nth write to the journal. `written N`: after it,
before its sync. `sent N`: when the Nth request is in the kernel's buffer.
`never 0`: not at all.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
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


async def _main(url: str, keys: str, folder: str, what: str, moment: tuple[str, str]) -> None:
    key_file = Path(keys) / "sandbox.pem"
    key = SigningKey.from_pem(key_file.read_bytes(), "EdDSA")
    target = Sandbox(url=url, folder=Path(keys), key=key).target()
    kill_at(moment[0], int(moment[1]))
    run = Path(folder).name
    if what == "play":
        await play(target, SMALL, Path(folder), run=run)
    else:
        await clean(target, Path(folder), run=run)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], (sys.argv[5], sys.argv[6])))
