"""This daemon's place in the fleet: it says every second that it is alive, and hears what it may use of each limit.

The database's clock decides who is alive. A daemon that cannot say so for SHARE_VALID_S uses nothing any more, and so
is done before the others take what it had.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from predictu_dispatch.core.fleet import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S, InstanceTakenError
from predictu_dispatch.flow.loops import run_chore, wait_for_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from predictu_dispatch.flow.admission import Admission
    from predictu_dispatch.flow.ports import FleetObserver, FleetStore

_AGAIN_S = 0.1
"""After an announcement that brought less than the fair share, or failed: the others need to be heard first."""
_AGAIN_MOST = 20
"""A share that stays unfair for so long waits for attempts to end, and the usual pace will do."""


class Fleet:
    """Announces this daemon. `wake` is called when its shares have changed."""

    def __init__(
        self,
        fleet_store: FleetStore,
        admission: Admission,
        observer: FleetObserver,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._fleet_store = fleet_store
        self._admission = admission
        self._observer = observer
        self._wake = wake
        self._changed = asyncio.Event()
        self._announcing = asyncio.Lock()
        self._has_left = False

    async def join(self) -> None:
        """Announced for the first time. Raises InstanceTakenError where another daemon has this name and stays."""
        give_up_at_s = time.monotonic() + HEARTBEAT_TIMEOUT_S + HEARTBEAT_INTERVAL_S
        while True:
            try:
                await self._heartbeat()
            except InstanceTakenError as taken:
                # It may be the row of one that was killed a moment ago, this one's predecessor for example.
                if time.monotonic() >= give_up_at_s:
                    raise
                self._observer.instance_taken(taken)
                await asyncio.sleep(HEARTBEAT_INTERVAL_S / 2)
            else:
                return

    def operators_changed(self) -> None:
        """The configuration has other operators or limits: announced at once."""
        self._changed.set()

    async def run(self) -> None:
        """Announces for ever.

        Raises InstanceTakenError where another process took this name while this one stood still.
        """
        taken_since_s: float | None = None
        unfair_times = 0
        while True:
            pause_s = HEARTBEAT_INTERVAL_S
            result = await run_chore("heartbeat", self._heartbeat_unless_taken(), self._observer)
            if isinstance(result, InstanceTakenError):
                taken_since_s = taken_since_s or time.monotonic()
                if time.monotonic() - taken_since_s > HEARTBEAT_TIMEOUT_S:
                    raise result
            elif result is None:
                # Without a share nothing is sent; the next heartbeat may get through.
                pause_s = _AGAIN_S
            else:
                taken_since_s = None
                unfair_times = 0 if result else unfair_times + 1
                if 0 < unfair_times <= _AGAIN_MOST:
                    pause_s = _AGAIN_S
            self._changed.clear()
            await wait_for_event(self._changed, pause_s)

    async def _heartbeat_unless_taken(self) -> bool | InstanceTakenError:
        try:
            return await self._heartbeat()
        except InstanceTakenError as taken:
            return taken

    async def deregister(self) -> None:
        """Its shares are the others', and it says nothing more.

        Where the database is away they get them a few seconds later by themselves.
        """
        async with self._announcing:
            self._has_left = True
            await run_chore("deregister", self._fleet_store.deregister(), self._observer)

    async def _heartbeat(self) -> bool:
        async with self._announcing:
            if self._has_left:
                return True
            asked_at_s = time.monotonic()
            shares = await self._fleet_store.heartbeat(self._admission.usages())
            has_changed = self._admission.update_shares(shares, requested_at_s=asked_at_s)
        if has_changed:
            self._wake()
        return all(share.is_fair for share in shares)
