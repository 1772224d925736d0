"""The recorder of one lane settles attempts in batches: all that arrived during the last settle.

An idle daemon settles an attempt at once and alone, a busy one up to 100 in a transaction.
Only while bets are sent do settlements wait for others of their lane; see SettlementPacing.
Each lane has its own recorder, so that no bet's outcome waits behind a burst of settlements.

A slot is free again only when its attempt is settled, and so the slots bound the queue. An attempt
whose bet is locked frees its slot and is retried by itself, or a producer's open transaction would
take all slots of its operator. LOCKED_MAX bounds these.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.lifecycle import Attempt, CallbackChange, CallbackState, Cause
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.flow.ports import Observer, Outbox

BATCH_MAX = 100
"""A larger batch costs little less for each row, and its slots are free only when it is settled."""
BATCH_BYTES_MAX = 32 * 1024 * 1024
"""Of responses in one batch; Postgres closes the connection on a message of a gigabyte."""
LOCKED_RETRY_S = 0.05
LOCKED_RETRY_MAX_S = 1.0
"""Delays before an attempt whose bet is locked is settled again, doubling from the first."""
LOCKED_MAX = 5_000
"""Locked attempts without a slot; further ones keep theirs, which slows the claims down."""
_Key = tuple[str, UUID, int]


@dataclass(slots=True, kw_only=True)
class _Entry:
    """An attempt on its way to the database; its slot is kept until `done`."""

    key: _Key
    attempt: Attempt
    done: asyncio.Future[None]
    times_locked: int = 0


class Recorder:
    """Settles what couriers and the reaper report of one lane.

    `wake(lane, delay_s, operator_id)` follows a settled attempt that makes a callback due, perhaps
    of the other lane. `gather_s()` is how long an attempt may wait to be settled with others.
    """

    def __init__(
        self,
        outbox: Outbox,
        observer: Observer,
        wake: Callable[[Lane, float, str], None],
        *,
        gather_s: Callable[[], float] | None = None,
    ) -> None:
        self._outbox = outbox
        self._observer = observer
        self._wake = wake
        self._gather_s = gather_s
        self._queue: deque[_Entry] = deque()
        self._arrived = asyncio.Event()
        self._recording: dict[_Key, int] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def record(self, attempt: Attempt) -> asyncio.Future[None]:
        """Queue the attempt for settling, whether or not the future is awaited.

        It is done once the attempt needs no slot: it is settled, locked and retried, or refused.
        """
        key = _key(attempt.callback)
        entry = _Entry(key=key, attempt=attempt, done=asyncio.get_running_loop().create_future())
        self._recording[key] = self._recording.get(key, 0) + 1
        self._idle.clear()
        self._put(entry)
        return entry.done

    def _put(self, entry: _Entry) -> None:
        self._queue.append(entry)
        self._arrived.set()

    def is_recording(self, callback: Callback) -> bool:
        return _key(callback) in self._recording

    async def idle(self) -> None:
        await self._idle.wait()

    async def run(self) -> None:
        """Settle forever. Cancel only when idle, or if the process must end."""
        while True:
            entries = await self._next_batch()
            locked = await self._settle_batch([entry.attempt for entry in entries])
            for entry in entries:
                # A reaper's report is not retried: an answer that says more may still arrive.
                if entry.key in locked and not entry.attempt.reaped:
                    self._retry_locked(entry)
                else:
                    self._finish(entry)

    async def _next_batch(self) -> list[_Entry]:
        await self._arrived.wait()
        if self._gather_s is not None and (gather_s := self._gather_s()):
            await asyncio.sleep(gather_s)
        entries: list[_Entry] = []
        body_bytes = 0
        while self._queue and len(entries) < BATCH_MAX and body_bytes < BATCH_BYTES_MAX:
            entry = self._queue.popleft()
            entries.append(entry)
            body_bytes += len(entry.attempt.exchange.body)
        if not self._queue:
            self._arrived.clear()
        return entries

    def _retry_locked(self, entry: _Entry) -> None:
        delay_s = min(LOCKED_RETRY_S * 2**entry.times_locked, LOCKED_RETRY_MAX_S)
        entry.times_locked += 1
        if len(self._recording) <= LOCKED_MAX and not entry.done.done():
            entry.done.set_result(None)
        asyncio.get_running_loop().call_later(delay_s, self._put, entry)

    def _finish(self, entry: _Entry) -> None:
        self._recording[entry.key] -= 1
        if not self._recording[entry.key]:
            del self._recording[entry.key]
        if not entry.done.done():
            entry.done.set_result(None)
        if not self._recording:
            self._idle.set()

    async def _settle_batch(self, attempts: Sequence[Attempt]) -> set[_Key]:
        """Settle all together, or one by one if refused; return those whose bets are locked."""
        try:
            return await self._settle(attempts)
        except Exception as error:  # noqa: BLE001 - outages are waited out in the outbox, so a row's content is at fault
            if len(attempts) == 1:
                return await self._settle_without_exchange(attempts[0], error)
            locked: set[_Key] = set()
            for attempt in attempts:
                locked |= await self._settle_batch([attempt])
            return locked

    async def _settle_without_exchange(self, attempt: Attempt, error: Exception) -> set[_Key]:
        """Settle without what came from outside, because the verdict must stand in any case."""
        self._observer.report_refused(attempt, error)
        exchange = attempt.exchange._replace(
            headers=(), body=b"", error=f"the audit refused the exchange: {error}"[:500]
        )
        try:
            return await self._settle([attempt._replace(exchange=exchange)])
        except Exception as again:  # noqa: BLE001 - the lease expires, and the reaper settles the attempt as interrupted
            self._observer.report_refused(attempt, again)
            return set()

    async def _settle(self, attempts: Sequence[Attempt]) -> set[_Key]:
        # If courier and reaper report an attempt, the courier's report counts, as in the database.
        reported = {_key(attempt.callback): attempt for attempt in sorted(attempts, key=lambda a: not a.reaped)}
        locked = set()
        for change in await self._outbox.settle(attempts):
            if change.attempt is None:
                self._observer.callback_changed(change)
                if change.lane is not None:
                    self._wake(change.lane, 0.0, change.operator_id)
                continue
            key = (change.operator_id, change.request_id, change.attempt)
            if change.cause is Cause.LOCKED:
                locked.add(key)
            else:
                self._attempt_settled(reported[key], change)
        return locked

    def _attempt_settled(self, attempt: Attempt, change: CallbackChange) -> None:
        if change.cause is Cause.REPEATED:
            # The answer to the commit was lost, the commit was not.
            change = change._replace(cause=Cause.SETTLED, state=attempt.outcome.state, reason=attempt.outcome.reason)
        self._observer.attempt_settled(attempt, change)
        if change.state is CallbackState.READY and attempt.outcome.due_in_s is not None:
            self._wake(attempt.callback.lane, attempt.outcome.due_in_s, attempt.callback.operator_id)


def _key(callback: Callback) -> _Key:
    return callback.operator_id, callback.request_id, callback.attempt
