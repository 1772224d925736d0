"""The recorder of one lane settles attempts in batches: all that arrived during the last settle.

An idle daemon settles an attempt at once and alone, a busy one up to 100 in a transaction.
Only while bets are sent do settlements wait for others of their lane; see SettlementPacing.
Each lane has its own recorder, so that no bet's outcome waits behind a burst of settlements.

A slot is free again only when its attempt is settled, and so the slots bound the queue. What cannot
be settled must not stop the others:

- An attempt whose bet is locked frees its slot and is reported again, or a producer's
  open transaction would take all slots of its operator.
- An attempt that fails alone is settled apart: it leaves the batches and is reported again alone,
  for as long as this process lives, because its answer exists nowhere else. If others are settled
  meanwhile, it is the cause of the failure and frees its slot. If none is, the cause is general,
  and the slots stop the claims as in an outage.
- The attempts of a batch that takes too long are settled apart too, and the next batches are
  smaller.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.database import DatabaseUnavailable, Refused
from predictu_dispatch.core.lifecycle import FINAL, Attempt, CallbackChange, CallbackState, Cause
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.repetition import Repetitions
from predictu_dispatch.core.settling import Remedy, is_about_content, remedy
from predictu_dispatch.flow.ports import Observer, Outbox
from predictu_dispatch.flow.unsettled import Entry, Key, Unsettled, key_of

BATCH_MAX = 100
"""A larger batch costs little less for each row, and its slots are free only when it is settled."""
BATCH_BYTES_MAX = 32 * 1024 * 1024
"""Of responses in one batch; Postgres closes the connection on a message of a gigabyte."""
QUICK_S = 2.0
"""After a slow batch, batches grow again while they take less than this."""
REPEAT_S = 0.05
REPEAT_MAX_S = 1.0
"""Delays before a settle that failed is repeated, doubling from the first."""
LOCKED_RETRY_S = 0.05
LOCKED_RETRY_MAX_S = 1.0
"""The same for an attempt whose bet is locked."""
APART_RETRY_S = 0.25
APART_RETRY_MAX_S = 5.0
CAUSE_RETRY_MAX_S = 30.0
"""The same for an attempt that is settled apart; the last if it is the cause of the failure."""
HURRIED_RETRY_MAX_S = 0.25
"""Replaces these maxima while the process ends."""
APART_AT_ONCE = 4
"""Attempts that are settled apart at the same time, so that a slow one does not stop the others."""
APART_TIMEOUT_S = 1.0
APART_TIMEOUT_MAX_S = 60.0
"""Of an attempt that is settled apart, doubling each time; others that are settled apart wait."""


class Recorder:
    """Settles what couriers and the reaper report of one lane.

    `wake(lane, delay_s, operator_id)` follows a settled attempt that makes a callback due, perhaps
    of the other lane. `gather_s()` is how long an attempt may wait to be settled with others.
    """

    def __init__(
        self,
        lane: Lane,
        outbox: Outbox,
        observer: Observer,
        wake: Callable[[Lane, float, str], None],
        *,
        gather_s: Callable[[], float] | None = None,
    ) -> None:
        self.lane = lane
        self._outbox = outbox
        self._observer = observer
        self._wake = wake
        self._gather_s = gather_s
        self._chore = f"settle_{lane}"
        self._queue: deque[Entry] = deque()
        self._arrived = asyncio.Event()
        self._apart: asyncio.Queue[Entry] = asyncio.Queue()
        self._batch_max = BATCH_MAX
        self._is_hurried = False
        self._is_settling = False
        self._repetitions = Repetitions()
        self.unsettled = Unsettled()
        self.progressed_at_s = time.monotonic()
        """When a settle last ended in any way, or work arrived after a pause."""

    def record(self, attempt: Attempt) -> asyncio.Future[None]:
        """Queue the attempt for settling, whether or not the future is awaited.

        It is done once the attempt needs no slot: it is settled, or kept without one.
        """
        entry = self.unsettled.add(attempt)
        self._put(entry)
        return entry.done

    def hurry(self) -> None:
        """Retry at once what waits, and often from now on, because this process ends soon."""
        self._is_hurried = True
        for entry in self.unsettled.waiting():
            self._retry_later(entry, 0.0, apart=entry.is_cause or entry.times_slow > 0)

    def _put(self, entry: Entry) -> None:
        if not self.has_work:
            self.progressed_at_s = time.monotonic()
        self._queue.append(entry)
        self._arrived.set()

    @property
    def has_work(self) -> bool:
        """True while an attempt waits for the lane's next settle, or for its end."""
        return self._is_settling or bool(self._queue)

    def is_recording(self, callback: Callback) -> bool:
        return self.unsettled.count(key_of(callback)) > 0

    async def idle(self) -> None:
        await self.unsettled.none()

    async def run(self) -> None:
        """Settle forever. Cancel only when idle, or if the process must end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle_batches(), name=f"settle {self.lane}")
            for _ in range(APART_AT_ONCE):
                tasks.create_task(self._settle_each_apart(), name=f"settle apart {self.lane}")

    # ── The lane ──────────────────────────────────────────────────────────────────────────────────

    async def _settle_batches(self) -> None:
        while True:
            self._is_settling = False
            entries = await self._next_batch()
            self._is_settling = True
            try:
                await self._settle(entries)
            except Exception as error:  # noqa: BLE001 - a bug; the answers exist nowhere else
                for entry in entries:
                    self._keep(entry, error)

    async def _next_batch(self) -> list[Entry]:
        await self._arrived.wait()
        if self._gather_s is not None and (gather_s := self._gather_s()):
            await asyncio.sleep(gather_s)
        entries: list[Entry] = []
        body_bytes = 0
        while self._queue and len(entries) < self._batch_max and body_bytes < BATCH_BYTES_MAX:
            entry = self._queue.popleft()
            entries.append(entry)
            body_bytes += len(entry.attempt.exchange.body)
        if not self._queue:
            self._arrived.clear()
        return entries

    async def _settle(self, entries: list[Entry], repeats: int = 0) -> None:
        """Settle these, one by one if necessary, repeating after outages."""
        outages = 0
        stored = [self._repetitions.shortened(entry.attempt) for entry in entries]
        while True:
            began_s = time.monotonic()
            try:
                changes = await self._outbox.settle(stored)
            except Exception as error:  # noqa: BLE001 - whatever a settle is answered, the answers are kept
                self.progressed_at_s = time.monotonic()
                todo = remedy(error, reports=len(entries), repeats=repeats)
                if todo is not Remedy.REPEAT:
                    await self._after_failure(entries, error, todo, repeats)
                    return
                is_outage = isinstance(error, DatabaseUnavailable) and error.without_session
                outages, repeats = outages + is_outage, repeats + (not is_outage)
                await asyncio.sleep(_delay_s(REPEAT_S, outages + repeats, REPEAT_MAX_S))
            else:
                self.progressed_at_s = time.monotonic()
                if self.progressed_at_s - began_s < QUICK_S:
                    self._batch_max = min(2 * self._batch_max, BATCH_MAX)
                self._conclude(entries, stored, changes, began_s)
                return

    async def _after_failure(self, entries: list[Entry], error: Exception, todo: Remedy, repeats: int) -> None:
        if todo is Remedy.ONE_BY_ONE:
            for entry in entries:
                await self._settle([entry], repeats)
        elif len(entries) > 1:
            self._batch_max = max(1, len(entries) // 2)
            for entry in entries:
                self._apart.put_nowait(entry)
        else:
            await self._settle_without_exchange(entries[0], error)

    async def _settle_without_exchange(self, entry: Entry, error: Exception) -> None:
        """Settle without headers and body if the audit cannot store them: the verdict is kept."""
        if is_about_content(error):
            attempt, began_s = entry.attempt, time.monotonic()
            exchange = attempt.exchange._replace(
                headers=(), body=b"", error=f"the audit refused the exchange: {error}"[:500]
            )
            stored = attempt._replace(exchange=exchange)
            try:
                changes = await self._outbox.settle([stored])
            except Exception as again:  # noqa: BLE001 - as above
                error = again
            else:
                self._observer.report_refused(attempt, error)
                self._conclude([entry], [stored], changes, began_s)
                return
        self._keep(entry, error)

    # ── Apart from the lane ───────────────────────────────────────────────────────────────────────

    async def _settle_each_apart(self) -> None:
        while True:
            entry = await self._apart.get()
            if entry.attempt.reaped and self.unsettled.count(entry.key) > 1:
                # The daemon that made the attempt has reported it meanwhile, and knows more.
                self.unsettled.finish(entry)
                continue
            try:
                await self._settle_apart(entry)
            except Exception as error:  # noqa: BLE001 - a bug; the answer exists nowhere else
                self._keep(entry, error)

    async def _settle_apart(self, entry: Entry) -> None:
        began_s = time.monotonic()
        timeout_s = min(APART_TIMEOUT_S * 2 ** min(entry.times_slow, 10), APART_TIMEOUT_MAX_S)
        if self._is_hurried:
            # The process ends soon: there may be no second try.
            timeout_s = APART_TIMEOUT_MAX_S
        stored = self._repetitions.shortened(entry.attempt)
        try:
            changes = await self._outbox.settle_apart(stored, timeout_s=timeout_s)
        except Exception as error:  # noqa: BLE001 - as above
            if isinstance(error, DatabaseUnavailable) and error.without_session:
                self._retry_later(entry, REPEAT_MAX_S, apart=True)
            else:
                await self._settle_without_exchange(entry, error)
        else:
            self._conclude([entry], [stored], changes, began_s)

    def _keep(self, entry: Entry, error: Exception) -> None:
        """Settle the entry apart from now on: it failed alone."""
        if entry.failures == 0:
            self._observer.report_refused(entry.attempt, error)
        else:
            self._observer.chore_failed(self._chore, error)
        entry.times_slow += isinstance(error, DatabaseUnavailable) and error.has_timed_out
        self.unsettled.note_failure(entry)
        most_s = CAUSE_RETRY_MAX_S if entry.is_cause else APART_RETRY_MAX_S
        self._retry_later(entry, _delay_s(APART_RETRY_S, entry.failures, most_s), apart=True)

    def _retry_later(self, entry: Entry, delay_s: float, *, apart: bool) -> None:
        if entry.retry is not None:
            entry.retry.cancel()
        if self._is_hurried:
            delay_s = min(delay_s, HURRIED_RETRY_MAX_S)
        entry.retry = asyncio.get_running_loop().call_later(delay_s, self._retry_now, entry, apart)

    def _retry_now(self, entry: Entry, apart: bool) -> None:  # noqa: FBT001 - of call_later()
        entry.retry = None
        if apart:
            self._apart.put_nowait(entry)
        else:
            self._put(entry)

    def _retry_locked(self, entry: Entry) -> None:
        delay_s = _delay_s(LOCKED_RETRY_S, entry.times_locked, LOCKED_RETRY_MAX_S)
        entry.times_locked += 1
        self.unsettled.free_slot(entry)
        self._retry_later(entry, delay_s, apart=entry.times_slow > 0)

    # ── After a settle ────────────────────────────────────────────────────────────────────────────

    def _conclude(
        self, entries: Sequence[Entry], stored: Sequence[Attempt], changes: Sequence[CallbackChange], began_s: float
    ) -> None:
        """Finish what was settled, and retry the others."""
        # If courier and reaper report an attempt, the courier's report counts, as in the database.
        reported = {key_of(one.callback): one for one in sorted(stored, key=lambda one: not one.reaped)}
        answered: dict[Key, Cause] = {}
        for change in changes:
            if change.attempt is not None:
                answered[change.operator_id, change.request_id, change.attempt] = change.cause
            try:
                self._observe(change, reported)
            except Exception as error:  # noqa: BLE001 - it is settled, whatever a log or a metric does
                self._observer.chore_failed("observe", error)
        for entry in entries:
            cause = answered.get(entry.key)
            if entry.attempt.reaped or cause not in {None, Cause.LOCKED}:
                # A reaper's report is not retried: an answer that says more may still arrive.
                self.unsettled.finish(entry)
            elif cause is Cause.LOCKED:
                self._retry_locked(entry)
            else:
                self._keep(entry, Refused("", "the database's answer cannot be read"))
        self._observer.chore_succeeded(self._chore)
        for entry in self.unsettled.note_success(began_s):
            if entry.retry is not None and not entry.times_slow:
                # Perhaps the fault was general and is over: then it is settled with others now.
                self._retry_later(entry, 0.0, apart=False)

    def _observe(self, change: CallbackChange, reported: dict[Key, Attempt]) -> None:
        if change.attempt is None:
            if change.state in FINAL:
                self._repetitions.forget(change.operator_id, change.request_id)
            self._observer.callback_changed(change)
            if change.lane is not None:
                self._wake(change.lane, 0.0, change.operator_id)
            return
        if change.cause is Cause.LOCKED:
            return
        attempt = reported[change.operator_id, change.request_id, change.attempt]
        self._repetitions.note(attempt, change)
        if change.cause is Cause.UNKNOWN_ATTEMPT:
            self._observer.report_refused(attempt, Refused("", "this attempt was never claimed"))
            return
        if change.cause is Cause.REPEATED:
            # The answer to the commit was lost, the commit was not.
            change = change._replace(cause=Cause.SETTLED, state=attempt.outcome.state, reason=attempt.outcome.reason)
        self._observer.attempt_settled(attempt, change)
        if change.state is CallbackState.READY and attempt.outcome.due_in_s is not None:
            self._wake(attempt.callback.lane, attempt.outcome.due_in_s, attempt.callback.operator_id)


def _delay_s(first_s: float, times: int, most_s: float) -> float:
    """Return the delay after so many failures: doubling, and spread over the daemons."""
    delay_s: float = min(first_s * 2 ** min(times, 10), most_s)
    return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - guards nothing
