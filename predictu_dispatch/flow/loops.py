"""What every loop of flow does: wait for an event or a timeout, and survive a failed chore."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from predictu_dispatch.core.database import DatabaseUnavailable

_T = TypeVar("_T")


class ChoreObserver(Protocol):
    """Logs and counts failed chores."""

    def chore_failed(self, chore: str, error: Exception) -> None: ...


async def wait_for_event(event: asyncio.Event, timeout_s: float) -> None:
    """Return once the event is set or the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass


async def run_chore(chore: str, work: Awaitable[_T], observer: ChoreObserver) -> _T | None:
    """Return what `work` returns, or None if it failed; the caller's next turn tries again.

    An outage is not reported here, because the database edge logs it once.
    """
    try:
        return await work
    except DatabaseUnavailable:
        return None
    except Exception as error:  # noqa: BLE001 - one failing chore must not stop the others
        observer.chore_failed(chore, error)
        return None
