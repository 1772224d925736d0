"""The reference operator as `reference-operator try` starts it, and command lines of `certify`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from predictu_dispatch.reference_operator.admin import read_ledger

PLAYERS = ("player-1", "player-2")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOperator:
    """A running operator; its keys and its wallet are in `folder`."""

    folder: Path
    url: str
    words: tuple[str, ...]
    """What `try` prints after `certify`, with absolute paths."""
    process: subprocess.Popen[bytes]

    @property
    def key_file(self) -> Path:
        return self.folder / "throwaway.pem"

    def balances(self) -> dict[str, int]:
        """Return the players' balances by the operator's own books."""
        rows = read_ledger(self.folder / "throwaway.db")["balances"]
        assert isinstance(rows, list)
        return {row["player_id"]: row["balance"] for row in rows}

    def stop_answering(self) -> None:
        """Stop the process; connections are still accepted, by the kernel."""
        self.process.send_signal(signal.SIGSTOP)

    def answer_again(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def trial_operator(folder: Path, *options: str) -> Iterator[TrialOperator]:
    """Run the operator with these further options; it ends with the block."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "predictu_dispatch.reference_operator", "try", "--folder", str(folder)]
    with (
        (folder / "operator.log").open("wb") as log,
        subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", *options], stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / "operator.log").read_text(encoding="utf-8")
            started = json.loads(line)
            yield TrialOperator(folder=folder, url=started["url"], words=tuple(started["certify"][2:]), process=process)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
