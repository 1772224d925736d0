"""What every loop of flow does: wait for an event or a timeout, and survive whatever fails.

After the start no answer of the database ends the process, because it has answers of operators that
are not settled yet. What fails is reported, and the loop's next turn tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from predictu_dispatch.core.database import DatabaseUnavailable

_RESTART_S = 1.0
_T = TypeVar("_T")


class ChoreObserver(Protocol):
    """Counts failed chores, and logs when one begins to fail, each minute, and when it succeeds."""

    def chore_failed(self, chore: str, error: Exception) -> None: ...
    def chore_succeeded(self, chore: str) -> None: ...


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
        result = await work
    except DatabaseUnavailable:
        return None
    except Exception as error:  # noqa: BLE001 - one failing chore must not stop the others
        observer.chore_failed(chore, error)
        return None
    observer.chore_succeeded(chore)
    return result


async def keep_running(name: str, loop: Callable[[], Awaitable[None]], observer: ChoreObserver) -> None:
    """Run `loop` until it returns; start it again a second after each failure, which is a bug."""
    while True:
        try:
            await loop()
        except Exception as error:  # noqa: BLE001 - the process holds answers that exist nowhere else
            observer.chore_failed(name, error)
            await asyncio.sleep(_RESTART_S)
        else:
            return
