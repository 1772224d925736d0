"""This daemon's place in the fleet: heartbeats, and this daemon's share of every operator's limits.

The database's clock decides which daemons are alive, as long as it is steady. A daemon whose
heartbeats fail sends nothing after SHARE_VALID_S, before other daemons take its share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from predictu_dispatch.core.clock import DatabaseClock
from predictu_dispatch.core.fleet import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S, InstanceTakenError
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.loops import run_chore, wait_for_event
from predictu_dispatch.flow.ports import FleetObserver, FleetStore

_RETRY_S = 0.1
"""After a heartbeat that failed, or got an unfair share until other daemons release theirs."""
_DOUBLINGS_MAX = 5
"""Of that delay, if heartbeats keep failing."""
_RETRIES_MAX = 20
"""A share that stays unfair longer waits for attempts to end, and the usual interval is enough."""


class Fleet:
    """Sends heartbeats, and reports the signing keys, by operator, when they were loaded.

    `wake` is called when this daemon's shares changed.
    """

    def __init__(
        self,
        fleet_store: FleetStore,
        admission: Admission,
        observer: FleetObserver,
        *,
        wake: Callable[[], None],
        clock: DatabaseClock,
        signing_keys: Callable[[], Mapping[str, str]],
    ) -> None:
        self._fleet_store = fleet_store
        self._admission = admission
        self._observer = observer
        self._wake = wake
        self._clock = clock
        self._signing_keys = signing_keys
        self._reported_keys: Mapping[str, str] | None = None
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self._is_deregistered = False
        self._succeeded_at_s: float | None = None
        self._failure: Exception | None = None

    async def join(self) -> None:
        """Send the first heartbeat. Raises InstanceTakenError if a live daemon has this name."""
        give_up_at_s = time.monotonic() + HEARTBEAT_TIMEOUT_S + HEARTBEAT_INTERVAL_S
        seen_at, seen_at_s = None, 0.0
        while True:
            now_s = time.monotonic()
            try:
                await self._heartbeat(silent_at=seen_at if now_s - seen_at_s > HEARTBEAT_TIMEOUT_S else None)
            except InstanceTakenError as taken:
                # It may be the row of a daemon that was killed a moment ago. If the clock was set
                # back since, its last heartbeat lies ahead, and only its silence shows its end.
                if now_s >= give_up_at_s:
                    raise
                self._observer.instance_taken(taken)
                if (other_seen_at := await self._fleet_store.seen_at()) != seen_at:
                    seen_at, seen_at_s = other_seen_at, time.monotonic()
                await asyncio.sleep(HEARTBEAT_INTERVAL_S / 2)
            else:
                return

    def operators_changed(self) -> None:
        """Send a heartbeat at once: the configuration has other operators, limits or keys."""
        self._reported_keys = None
        self._changed.set()

    async def run(self) -> None:
        """Send heartbeats. Raises InstanceTakenError if a suspended daemon lost its name."""
        taken_since_s: float | None = None
        unfair_times = failures = 0
        while True:
            pause_s = HEARTBEAT_INTERVAL_S
            # Before the heartbeat: what changes during it is in the next one, at once.
            self._changed.clear()
            result = await self._try_heartbeat()
            if isinstance(result, InstanceTakenError):
                taken_since_s = taken_since_s or time.monotonic()
                if time.monotonic() - taken_since_s > HEARTBEAT_TIMEOUT_S:
                    raise result
            elif result is None:
                pause_s = min(_RETRY_S * 2 ** min(failures, _DOUBLINGS_MAX), HEARTBEAT_INTERVAL_S)
                failures += 1
            else:
                taken_since_s, failures = None, 0
                unfair_times = 0 if result else unfair_times + 1
                if 0 < unfair_times <= _RETRIES_MAX:
                    pause_s = _RETRY_S
            await wait_for_event(self._changed, pause_s)

    async def deregister(self) -> None:
        """Give back all shares; in an outage they lapse a few seconds later."""
        async with self._sending:
            self._is_deregistered = True
            await run_chore("deregister", self._fleet_store.deregister(), self._observer)

    def age_s(self) -> float | None:
        """Return the time since a heartbeat last succeeded; None before the first."""
        return None if self._succeeded_at_s is None else time.monotonic() - self._succeeded_at_s

    def failure(self) -> str | None:
        """Return how long heartbeats have failed and why; None while they succeed."""
        if self._failure is None:
            return None
        age_s = self.age_s()
        since = "no heartbeat has succeeded" if age_s is None else f"the last heartbeat was {age_s:.0f} s ago"
        return f"{since} ({self._failure})"

    async def _try_heartbeat(self) -> bool | InstanceTakenError | None:
        """Return True if all shares are fair, None if the heartbeat failed for another reason."""
        try:
            is_fair = await self._heartbeat()
        except Exception as error:  # noqa: BLE001 - without a heartbeat nothing is sent, whatever stops it
            if self._failure is None:
                self._observer.heartbeat_failed(error)
            self._failure = error
            return error if isinstance(error, InstanceTakenError) else None
        if self._failure is not None:
            self._failure = None
            self._observer.heartbeat_recovered()
        return is_fair

    async def _heartbeat(self, *, silent_at: datetime | None = None) -> bool:
        """Return True if all shares are fair."""
        async with self._sending:
            if self._is_deregistered:
                return True
            requested_at_s = time.monotonic()
            ahead_s = self._clock.ahead_of_host_s(time.time(), requested_at_s)
            is_steady = ahead_s is not None and self._clock.steady_for_s(requested_at_s) > HEARTBEAT_TIMEOUT_S
            shares = await self._fleet_store.heartbeat(
                self._admission.usages(),
                clock_at_s=self._clock.at_arrival_s(requested_at_s) if is_steady else 0.0,
                clock_ahead_s=ahead_s,
                silent_at=silent_at,
            )
            self._succeeded_at_s = requested_at_s
            has_changed = self._admission.update_shares(shares, requested_at_s=requested_at_s)
        if has_changed:
            self._wake()
        await self._report_signing_keys()
        return all(share.is_fair for share in shares)

    async def _report_signing_keys(self) -> None:
        """Record which keys sign from now on, after each load; `keys retire` reads it."""
        keys = self._signing_keys()
        if keys != self._reported_keys:
            report = self._fleet_store.report_signing_keys(keys)
            if await run_chore("report_signing_keys", report, self._observer):
                self._reported_keys = keys
