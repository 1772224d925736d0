"""The recorder settles attempts in batches: as many as have come in while the last batch was being settled.

So an idle daemon settles an attempt at once and alone, a busy one settles hundreds in one transaction, and no timer
stands in anyone's way. The queue is bounded by the slots: a slot is free again only when its attempt is settled.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from predictu_dispatch.core.change import Cause
from predictu_dispatch.core.lifecycle import CallbackState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from predictu_dispatch.core.callback import Attempt, Callback
    from predictu_dispatch.core.change import Change
    from predictu_dispatch.flow.ports import Observer, Outbox

BATCH_MAX = 400
"""Where the settle statement's cost per row stops falling. Source: RECIPES.md, statements a second."""

HELD_AGAIN_S = 0.05
"""How soon an attempt is reported again whose bet a producer's transaction held; most of those last milliseconds."""

_Entry = tuple["Attempt", "asyncio.Future[None]"]


class Recorder:
    """Settles what couriers and the reaper report. `wake(delay_s)` is called when settled work makes new work due."""

    def __init__(self, outbox: Outbox, observer: Observer, wake: Callable[[float], None]) -> None:
        self._outbox = outbox
        self._observer = observer
        self._wake = wake
        self._queue: asyncio.Queue[_Entry] = asyncio.Queue()
        self._recording: set[tuple[str, UUID, int]] = set()

    async def record(self, attempt: Attempt) -> None:
        """The attempt is settled and in the audit, or its settling was refused and the lease is left to the reaper."""
        key = _key(attempt.callback)
        settled = asyncio.get_running_loop().create_future()
        self._recording.add(key)
        self._queue.put_nowait((attempt, settled))
        try:
            await settled
        finally:
            self._recording.discard(key)

    def is_recording(self, callback: Callback) -> bool:
        """True while a report of this very attempt is on its way to the database."""
        return _key(callback) in self._recording

    async def run(self) -> None:
        """Settles for ever. Cancelled only when nothing is left to settle, or when the process must go."""
        loop = asyncio.get_running_loop()
        while True:
            entries = [await self._queue.get()]
            while len(entries) < BATCH_MAX and not self._queue.empty():
                entries.append(self._queue.get_nowait())
            held = await self._settle_all([attempt for attempt, _ in entries])
            for attempt, settled in entries:
                if attempt.report_id in held:
                    loop.call_later(HELD_AGAIN_S, self._queue.put_nowait, (attempt, settled))
                elif not settled.done():
                    settled.set_result(None)

    async def _settle_all(self, attempts: Sequence[Attempt]) -> set[UUID]:
        """All together; if the database refuses the batch, one by one, so that one bad row holds up no other.

        Returns the report_ids of those whose bet somebody holds: nothing was done for them yet.
        """
        try:
            return await self._settle(attempts)
        except Exception as error:  # noqa: BLE001 - outages are waited out below us, so this is about the content of a row
            if len(attempts) == 1:
                return await self._settle_bare(attempts[0], error)
            held: set[UUID] = set()
            for attempt in attempts:
                held |= await self._settle_all([attempt])
            return held

    async def _settle_bare(self, attempt: Attempt, error: Exception) -> set[UUID]:
        """Once more without what came from outside: the verdict must stand even where its evidence cannot be stored."""
        self._observer.report_refused(attempt, error)
        exchange = replace(attempt.exchange, headers=(), body=b"", error=f"the audit refused what came: {error}"[:500])
        try:
            return await self._settle([replace(attempt, exchange=exchange)])
        except Exception as again:  # noqa: BLE001 - the lease runs out, and the reaper settles the attempt as interrupted
            self._observer.report_refused(attempt, again)
            return set()

    async def _settle(self, attempts: Sequence[Attempt]) -> set[UUID]:
        reported = {_key(attempt.callback): attempt for attempt in attempts}
        held = set()
        for change in await self._outbox.settle(attempts):
            if change.attempt is None:
                self._observer.bet_followed(change)
                self._wake(0.0)
                continue
            attempt = reported[change.operator_id, change.request_id, change.attempt]
            if change.cause is Cause.HELD:
                held.add(attempt.report_id)
            else:
                self._settled(attempt, change)
        return held

    def _settled(self, attempt: Attempt, change: Change) -> None:
        if change.cause is Cause.REPEATED:
            # The commit's answer was lost, the commit was not: it stands as reported.
            change = replace(change, cause=Cause.SETTLED, state=attempt.outcome.state, reason=attempt.outcome.reason)
        self._observer.attempt_settled(attempt, change)
        if change.state is CallbackState.READY and attempt.outcome.due_in_s is not None:
            self._wake(attempt.outcome.due_in_s)


def _key(callback: Callback) -> tuple[str, UUID, int]:
    return callback.operator_id, callback.request_id, callback.attempt
