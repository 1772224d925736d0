"""Runs that are killed at any moment and then cleaned: by the operator's books, nothing moved."""

import asyncio
import faulthandler
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from predictu_dispatch.certification.result import Reversal
from predictu_dispatch.certification.reversal import clean
from predictu_dispatch.reference_operator.admin import read_ledger
from tests.certification.sandbox import UNTOUCHED, Sandbox, changed_operator

IS_FULL = os.environ.get("TEST_SIZE") == "full"
"""TEST_SIZE=full kills at every write and at every request."""
ROOT = Path(__file__).parents[2]
_LIMIT_S = 60.0


@dataclass(kw_only=True)
class Processes:
    """Processes that play or clean a run, and are killed at a chosen moment."""

    server: asyncio.subprocess.Process

    async def killed(self, folder: Path, what: str, kind: str, number: int) -> bool:
        """Run one; return whether it was killed, and did not end by itself."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(f"{folder} {what} {kind} {number}\n".encode())
        async with asyncio.timeout(_LIMIT_S):
            code = int(await self.server.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return code != 0


@asynccontextmanager
async def processes(folder: Path) -> AsyncIterator[tuple[Sandbox, Processes]]:
    """Run an operator and what starts the processes against it."""
    async with changed_operator(folder) as sandbox:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.certification.killed_run", sandbox.url, str(sandbox.folder)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield sandbox, Processes(server=server)
        finally:
            assert server.stdin is not None
            server.stdin.close()
            async with asyncio.timeout(_LIMIT_S):
                await server.wait()


def bookings(sandbox: Sandbox) -> object:
    return read_ledger(sandbox.folder / "wallet.db")["transactions"]


def players_of(reversal: Reversal) -> dict[str, tuple[int | None, int | None]]:
    return {player.player_id: (player.before, player.net) for player in reversal.players}


async def assert_is_undone(sandbox: Sandbox, folder: Path) -> None:
    """Clean twice: the first time undoes everything, the second time books nothing."""
    first = await clean(sandbox.target(), folder, run=folder.name)
    assert first.unresolved == ()
    assert sandbox.balances() == UNTOUCHED
    assert all(player.net in (0, None) for player in first.players)
    booked = bookings(sandbox)
    second = await clean(sandbox.target(), folder, run=folder.name)
    assert (second.rolled_back, second.compensated, second.unresolved) == (0, 0, ())
    assert players_of(second) == players_of(first)
    assert bookings(sandbox) == booked


@pytest.fixture(autouse=IS_FULL)
def no_time_limit() -> None:
    # The limit is for tests that hang; TEST_SIZE=full runs for minutes.
    faulthandler.cancel_dump_traceback_later()


async def test_a_run_that_is_killed_at_any_write_is_undone_to_the_cent(tmp_path: Path) -> None:
    numbers = range(1, 1_000) if IS_FULL else (2, 11, 24, 37, 52, 61, 75, 88, 99, 109)
    async with processes(tmp_path) as (sandbox, started):
        for kind in ("torn", "written"):
            for number in numbers if IS_FULL else numbers[kind == "torn" :: 2]:
                folder = tmp_path / f"{kind}-{number}"
                if not await started.killed(folder, "play", kind, number):
                    assert IS_FULL, "the run has fewer writes: choose smaller numbers"
                    break
                if (folder / "journal.ndjson").exists() and b"\n" in (folder / "journal.ndjson").read_bytes():
                    await assert_is_undone(sandbox, folder)
                assert sandbox.balances() == UNTOUCHED


async def test_a_run_that_is_killed_with_a_request_on_its_way_is_undone_to_the_cent(tmp_path: Path) -> None:
    async with processes(tmp_path) as (sandbox, started):
        for number in range(1, 1_000) if IS_FULL else (6, 17, 31, 44, 55):
            folder = tmp_path / f"sent-{number}"
            if not await started.killed(folder, "play", "sent", number):
                assert IS_FULL, "the run has fewer requests: choose smaller numbers"
                break
            await assert_is_undone(sandbox, folder)


async def test_a_reversal_that_is_killed_again_and_again_is_continued_and_does_nothing_twice(tmp_path: Path) -> None:
    async with processes(tmp_path) as (sandbox, started):
        for kind in ("sent", "torn", "written") if IS_FULL else ("sent",):
            folder = tmp_path / f"reversal-{kind}"
            assert await started.killed(folder, "play", "sent", 27)
            # Every process gets further than the one before it.
            number = 1
            while await started.killed(folder, "clean", kind, number):
                number += 1 if IS_FULL else 4
            assert number > 1
            await assert_is_undone(sandbox, folder)
