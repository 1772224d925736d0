"""The recorder of one lane settles attempts in batches: as many as have come in while the last was being settled.

An idle daemon settles an attempt at once and alone, a busy one settles hundreds in one transaction, and no timer stands
in anyone's way. Each lane has a recorder of its own, so that no bet's outcome waits behind a burst of settlements. The
queue is bounded by the slots: a slot is free again only when its attempt is settled. The exception is an attempt whose
bet somebody holds in the database: its slot is given back and it is reported again and again by itself, or a producer's
open transaction would take all the slots of its operator; how many may be so is bounded too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictu_dispatch.core.attempt import Cause
from predictu_dispatch.core.lifecycle import CallbackState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from predictu_dispatch.core.attempt import Attempt, CallbackChange
    from predictu_dispatch.core.callback import Callback
    from predictu_dispatch.core.methods import Lane
    from predictu_dispatch.flow.ports import Observer, Outbox

BATCH_MAX = 400
"""Where the settle statement's cost per row stops falling. Source: RECIPES.md, statements a second."""
BATCH_BYTES_MAX = 32 * 1024 * 1024
"""Of answers in one batch; Postgres takes no message of a gigabyte, and hangs up on one."""
LOCKED_AGAIN_S = 0.05
LOCKED_AGAIN_MAX_S = 1.0
"""How soon an attempt is reported again whose bet somebody holds: most transactions are short, some are not."""
LOCKED_MAX = 5_000
"""Attempts that may be held without a slot; further ones keep theirs, and so the claims stop by themselves."""

_Key = tuple[str, "UUID", int]


@dataclass(slots=True, kw_only=True)
class _Entry:
    """An attempt on its way to the database; `done` is what its courier waits for."""

    attempt: Attempt
    done: asyncio.Future[None]
    times_locked: int = 0


class Recorder:
    """Settles what couriers and the reaper report of one lane.

    `wake(lane, delay_s, operator_id)` is called when settled work makes new work due, which may be the other lane's.
    `gather_s()` is how long an attempt may wait for others to be settled with.
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
        self._queue: asyncio.Queue[_Entry] = asyncio.Queue()
        self._recording: dict[_Key, int] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def record(self, attempt: Attempt) -> None:
        """The attempt is settled, or on its way to be and needs no slot; or was refused and is left to the reaper."""
        entry = _Entry(attempt=attempt, done=asyncio.get_running_loop().create_future())
        key = _key(attempt.callback)
        self._recording[key] = self._recording.get(key, 0) + 1
        self._idle.clear()
        self._queue.put_nowait(entry)
        await entry.done

    def is_recording(self, callback: Callback) -> bool:
        """True while a report of this very attempt is on its way to the database."""
        return _key(callback) in self._recording

    async def idle(self) -> None:
        """Nothing is left to settle."""
        await self._idle.wait()

    async def run(self) -> None:
        """Settles for ever. Cancelled only when nothing is left to settle, or when the process must go."""
        while True:
            entries = await self._batch()
            held = await self._settle_all([entry.attempt for entry in entries])
            for entry in entries:
                # What a reaper says is not kept: while the bet is held, an answer may still come that says more.
                if _key(entry.attempt.callback) in held and not entry.attempt.reaped:
                    self._report_again(entry)
                else:
                    self._finish(entry)

    async def _batch(self) -> list[_Entry]:
        entries = [await self._queue.get()]
        if self._gather_s is not None and (gather_s := self._gather_s()):
            await asyncio.sleep(gather_s)
        body_bytes = len(entries[0].attempt.exchange.body)
        while len(entries) < BATCH_MAX and body_bytes < BATCH_BYTES_MAX and not self._queue.empty():
            entries.append(self._queue.get_nowait())
            body_bytes += len(entries[-1].attempt.exchange.body)
        return entries

    def _report_again(self, entry: _Entry) -> None:
        delay_s = min(LOCKED_AGAIN_S * 2**entry.times_locked, LOCKED_AGAIN_MAX_S)
        entry.times_locked += 1
        if len(self._recording) <= LOCKED_MAX and not entry.done.done():
            entry.done.set_result(None)
        asyncio.get_running_loop().call_later(delay_s, self._queue.put_nowait, entry)

    def _finish(self, entry: _Entry) -> None:
        key = _key(entry.attempt.callback)
        self._recording[key] -= 1
        if not self._recording[key]:
            del self._recording[key]
        if not entry.done.done():
            entry.done.set_result(None)
        if not self._recording:
            self._idle.set()

    async def _settle_all(self, attempts: Sequence[Attempt]) -> set[_Key]:
        """All together; if the database refuses the batch, one by one, so that one bad row holds up no other.

        Returns those which somebody holds: nothing was done for them yet.
        """
        try:
            return await self._settle(attempts)
        except Exception as error:  # noqa: BLE001 - outages are waited out below us, so this is about the content of a row
            if len(attempts) == 1:
                return await self._settle_bare(attempts[0], error)
            held: set[_Key] = set()
            for attempt in attempts:
                held |= await self._settle_all([attempt])
            return held

    async def _settle_bare(self, attempt: Attempt, error: Exception) -> set[_Key]:
        """Once more without what came from outside: the verdict must stand even where its evidence cannot be stored."""
        self._observer.report_refused(attempt, error)
        exchange = attempt.exchange._replace(headers=(), body=b"", error=f"the audit refused what came: {error}"[:500])
        try:
            return await self._settle([attempt._replace(exchange=exchange)])
        except Exception as again:  # noqa: BLE001 - the lease runs out, and the reaper settles the attempt as interrupted
            self._observer.report_refused(attempt, again)
            return set()

    async def _settle(self, attempts: Sequence[Attempt]) -> set[_Key]:
        # Where courier and reaper report one attempt, the database hears the courier, and so do we.
        reported = {_key(attempt.callback): attempt for attempt in sorted(attempts, key=lambda a: not a.reaped)}
        held = set()
        for change in await self._outbox.settle(attempts):
            if change.attempt is None:
                self._observer.callback_changed(change)
                if change.lane is not None:
                    self._wake(change.lane, 0.0, change.operator_id)
                continue
            key = (change.operator_id, change.request_id, change.attempt)
            if change.cause is Cause.LOCKED:
                held.add(key)
            else:
                self._settled(reported[key], change)
        return held

    def _settled(self, attempt: Attempt, change: CallbackChange) -> None:
        if change.cause is Cause.REPEATED:
            # The commit's answer was lost, the commit was not: it stands as reported.
            change = change._replace(cause=Cause.SETTLED, state=attempt.outcome.state, reason=attempt.outcome.reason)
        self._observer.attempt_settled(attempt, change)
        if change.state is CallbackState.READY and attempt.outcome.due_in_s is not None:
            self._wake(attempt.callback.lane, attempt.outcome.due_in_s, attempt.callback.operator_id)


def _key(callback: Callback) -> _Key:
    return callback.operator_id, callback.request_id, callback.attempt
