"""A loop of the daemon survives whatever fails in it."""

from __future__ import annotations

import asyncio

import pytest

from predictu_dispatch.core.database import DatabaseUnavailable, Refused
from predictu_dispatch.flow.loops import keep_running, run_chore


class RecordingObserver:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def chore_failed(self, chore: str, error: Exception) -> None:
        self.seen.append(f"{chore} failed: {type(error).__name__}")

    def chore_succeeded(self, chore: str) -> None:
        self.seen.append(f"{chore} succeeded")


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (None, ["count succeeded"]),
        (Refused("42501", "permission denied"), ["count failed: Refused"]),
        (KeyError("a value of a newer release"), ["count failed: KeyError"]),
        # The database edge logs an outage once for all loops.
        (DatabaseUnavailable("gone"), []),
    ],
)
async def test_a_chore_that_fails_is_reported_and_ends_nothing(error: Exception | None, seen: list[str]) -> None:
    async def work() -> int:
        if error is not None:
            raise error
        return 7

    observer = RecordingObserver()
    assert await run_chore("count", work(), observer) == (7 if error is None else None)
    assert observer.seen == seen


async def test_a_loop_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predictu_dispatch.flow.loops._RESTART_S", 0.0)
    left = [ValueError(), RuntimeError()]

    async def loop() -> None:
        if left:
            raise left.pop(0)

    observer = RecordingObserver()
    async with asyncio.timeout(10):
        await keep_running("monitor", loop, observer)
    assert observer.seen == ["monitor failed: ValueError", "monitor failed: RuntimeError"]
