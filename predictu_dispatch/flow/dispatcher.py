"""The dispatcher of one lane claims due callbacks and hands each to its operator's courier.

One statement claims for all operators after a notification and at every poll interval, because
notifications are hints and the database is the truth. It claims for one operator when a slot is
free and it has a backlog, when a retry becomes due, or when its rate allows more. Each lane has its
own dispatcher, so that no bet waits behind a burst of settlements.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from predictu_dispatch.core.callback import LEASE_MARGIN_S, Callback
from predictu_dispatch.core.claim import ClaimCursor, ClaimRequest
from predictu_dispatch.core.database import DatabaseUnavailable, describe_failure
from predictu_dispatch.core.lifecycle import Attempt
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.courier import Courier
from predictu_dispatch.flow.loops import wait_for_event
from predictu_dispatch.flow.ports import Observer, Outbox
from predictu_dispatch.flow.recorder import Recorder

_POLL_AGAIN_S = (0.004, 0.012)
"""Delays after a notification: of concurrent commits only one notifies, see notify_due()."""
_CLAIM_MAX = 250
_CLAIM_PER_OPERATOR_MIN = 4
"""Callbacks per claim, and per operator if there are many: leases run before an attempt starts."""
_LOOP_TURN_MAX_S = 0.03
_LOOP_WAIT_MAX_S = 0.25
"""A claim waits this long for a quick turn of the loop: callbacks that this process cannot send in
time would count as their operator's failures."""
_START_WITHIN_S = 0.5
"""All settlements of a claim start within this time; near a lease's end it is too late to start."""
_YIELD_AFTER_S = 0.002
"""Settlements start for this long before the loop serves its sockets again."""
_WAKES_PER_S = 1000
"""Wake-ups of one millisecond share a timer, at its end: many attempts are settled together."""
_RETRY_S = 1.0
"""After a claim that failed, if the poll interval is longer."""
_RATE_WAKE_MIN_S = 0.002
"""Bounds the claims per second that a high rate limit causes."""


class Dispatcher:
    """Keeps a lane's slots busy while callbacks are due.

    `attempt_ended(attempt)` is called before the attempt is recorded.
    """

    def __init__(
        self,
        lane: Lane,
        outbox: Outbox,
        recorder: Recorder,
        observer: Observer,
        admission: Admission,
        *,
        attempt_ended: Callable[[Attempt], None],
        poll_interval_s: float,
    ) -> None:
        self.lane = lane
        self._outbox = outbox
        self._recorder = recorder
        self._observer = observer
        self._admission = admission
        self._attempt_ended = attempt_ended
        self._poll_interval_s = poll_interval_s
        self._couriers: Mapping[str, Courier] = {}
        """Of the claim in progress, if there is one: a reload never changes them meanwhile."""
        self._next_couriers: Mapping[str, Courier] = {}
        self._with_backlog: set[str] = set()
        """Operators that may have more due than slots: claimed for when a slot is free again."""
        self._wake_requested: set[str] = set()
        self._wake_later: dict[int, set[str | None]] = {}
        """Operators to wake, by the millisecond of their shared timer; None means all."""
        self._wake_all_requested = True
        self._claimed_for_all_at_s = float("-inf")
        self._cursor = ClaimCursor()
        self._poll_again: asyncio.TimerHandle | None = None
        self._work = asyncio.Event()
        self._stopping = asyncio.Event()
        self._claiming = asyncio.Lock()
        self.claimed_at_s: float | None = None
        """When a claim last succeeded, or was not needed because every slot was busy."""
        self.answered_at_s: float | None = None
        """The same, or when a claim last failed: this dispatcher runs."""
        self.failure: str | None = None
        """Why the last claim was refused, if it was."""
        self._chore = f"claim_{lane}"
        self._retries = False

    def use_couriers(self, couriers: Mapping[str, Courier]) -> None:
        """Deliver through these couriers, by operator, from the next claim on."""
        self._next_couriers = couriers
        self.wake()

    async def claim_ended(self) -> None:
        """Return once no claim uses the couriers of before use_couriers()."""
        async with self._claiming:
            pass

    def wake(self, delay_s: float = 0.0, operator_id: str | None = None) -> None:
        """Claim for this operator, or for all, in `delay_s`; the next poll covers longer delays."""
        if delay_s <= 0:
            self._request_wake(operator_id)
        elif delay_s < self._poll_interval_s:
            now_s = time.monotonic()
            tick = math.ceil((now_s + delay_s) * _WAKES_PER_S)
            if tick not in self._wake_later:
                self._wake_later[tick] = set()
                asyncio.get_running_loop().call_later(tick / _WAKES_PER_S - now_s, self._wake_at, tick)
            self._wake_later[tick].add(operator_id)

    def _wake_at(self, tick: int) -> None:
        for operator_id in self._wake_later.pop(tick):
            self._request_wake(operator_id)

    def _request_wake(self, operator_id: str | None) -> None:
        if operator_id is None:
            self._wake_all_requested = True
        else:
            self._wake_requested.add(operator_id)
        self._work.set()

    def on_work_notification(self, *, is_behind: bool) -> None:
        """Claim after a commit; `is_behind` if the cursor has passed the new callback."""
        if is_behind:
            self._cursor.restart()
        self.wake()
        self._poll_again_after(_POLL_AGAIN_S)

    def on_clock_step(self) -> None:
        """Claim from the beginning: what is due now may lie behind the cursor."""
        self._cursor.forget()
        self.wake()

    def _poll_again_after(self, delays_s: tuple[float, ...]) -> None:
        def poll() -> None:
            self.wake()
            self._poll_again_after(delays_s[1:])

        if self._poll_again is not None:
            self._poll_again.cancel()
        self._poll_again = asyncio.get_running_loop().call_later(delays_s[0], poll) if delays_s else None

    def stop(self) -> None:
        self._stopping.set()
        self._work.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as deliveries:
            while not self._stopping.is_set():
                self._work.clear()
                self._retries = False
                async with self._claiming:
                    self._couriers = self._next_couriers
                    await _wait_for_quick_loop()
                    await self._start(await self._claim(), deliveries)
                pause_s = min(self._poll_interval_s, _RETRY_S) if self._retries else self._poll_interval_s
                await wait_for_event(self._work, pause_s)

    async def _start(self, claimed: list[Callback], deliveries: asyncio.TaskGroup) -> None:
        """Start deliveries: bets at once, settlements spaced so that the loop is free for bets."""
        is_spaced = self.lane is Lane.SETTLEMENT and bool(claimed)
        spacing_s = min(self._admission.settlement_spacing_s(), _START_WITHIN_S / len(claimed)) if is_spaced else 0.0
        due_s = yielded_s = time.monotonic()
        for callback in claimed:
            delivery = self._couriers[callback.operator_id].deliver(callback)
            deliveries.create_task(self._deliver_and_record(callback, delivery), name="deliver")
            if is_spaced:
                due_s, now_s = due_s + spacing_s, time.monotonic()
                if due_s > now_s or now_s - yielded_s > _YIELD_AFTER_S:
                    await asyncio.sleep(max(0.0, due_s - now_s))
                    yielded_s = time.monotonic()

    async def _deliver_and_record(self, callback: Callback, delivery: Awaitable[Attempt]) -> None:
        self._observer.attempt_began(callback)
        try:
            attempt = await delivery
            self._attempt_ended(attempt)
            await self._recorder.record(attempt)
        except Exception as error:  # noqa: BLE001 - a bug that one callback meets must not end the others' attempts
            self._observer.chore_failed("deliver", error)
        finally:
            self._admission.free_slot(callback.operator_id, self.lane)
            if callback.operator_id in self._with_backlog:
                gather_s = self._admission.settlement_gather_s() if self.lane is Lane.SETTLEMENT else 0.0
                self.wake(gather_s, callback.operator_id)

    # ── Claiming ──────────────────────────────────────────────────────────────────────────────────

    async def _claim(self) -> list[Callback]:
        claimed: list[Callback] = []
        try:
            # Reserved only once it is this lane's turn: no rate is kept back while the lane waits.
            async with self._outbox.claim_permit(self.lane):
                claimed = await self._claim_with_permit(time.monotonic())
            self.claimed_at_s = time.monotonic()
            self._observer.chore_succeeded(self._chore)
            self.failure = None
        except DatabaseUnavailable:
            # If only the answer was lost, the reaper returns what was leased.
            self._wake_all_requested = self._retries = True
        except Exception as error:  # noqa: BLE001 - whatever a claim is answered, the next one may succeed
            self._wake_all_requested = self._retries = True
            self._observer.chore_failed(self._chore, error)
            self.failure = f"claims of the {self.lane} lane fail ({describe_failure(error)})"
        self.answered_at_s = time.monotonic()
        return claimed

    async def _claim_with_permit(self, now_s: float) -> list[Callback]:
        is_full_read = self._cursor.begin_full_read(now_s)
        operator_ids = self._operators_to_claim_for(now_s, every=is_full_read)
        limit = max(_CLAIM_PER_OPERATOR_MIN, _CLAIM_MAX // max(1, len(operator_ids)))
        requests = self._claim_requests(operator_ids, limit=limit, is_full_read=is_full_read)
        claimed: list[Callback] = []
        try:
            if requests:
                # Asked again with the connection at hand: a stop may come while the claim waits.
                claimed = await self._outbox.claim(requests, is_stopped=self._stopping.is_set)
        finally:
            self._cursor.advance(claimed)
            if is_full_read:
                ended_s = time.monotonic()
                self._cursor.end_full_read(ended_s, ended_s - now_s)
            self._confirm(requests, claimed, limit=limit)
        return claimed

    def _operators_to_claim_for(self, now_s: float, *, every: bool) -> list[str]:
        """Return the operators that may have due callbacks.

        Claiming for all 500 operators each time if 4 have work halves the throughput.
        """
        requested, self._wake_requested = self._wake_requested, set()
        if every or self._wake_all_requested or now_s >= self._claimed_for_all_at_s + self._poll_interval_s:
            self._wake_all_requested, self._claimed_for_all_at_s = False, now_s
            return list(self._couriers)
        return [one for one in self._couriers if one in requested or one in self._with_backlog]

    def _claim_requests(self, operator_ids: Sequence[str], *, limit: int, is_full_read: bool) -> list[ClaimRequest]:
        requests = []
        for operator_id in operator_ids:
            free_slots = self._admission.reserve(operator_id, self.lane, limit=limit)
            if free_slots == 0:
                # Claimed for once a slot is free again.
                self._with_backlog.add(operator_id)
                self._wake_when_rate_allows(operator_id)
                continue
            settings = self._couriers[operator_id].operator.settings
            requests.append(
                ClaimRequest(
                    operator_id=operator_id,
                    lane=self.lane,
                    free_slots=free_slots,
                    lease_s=settings.lane(self.lane).attempt_timeout_s + LEASE_MARGIN_S,
                    rollback_lease_s=settings.settlement.attempt_timeout_s + LEASE_MARGIN_S,
                    amount_format=settings.amount_format,
                    due_from=None if is_full_read else self._cursor.due_from(operator_id),
                )
            )
        return requests

    def _confirm(self, requests: list[ClaimRequest], claimed: list[Callback], *, limit: int) -> None:
        """Confirm the reservations; an operator whose request was filled probably has a backlog."""
        counts = Counter(callback.operator_id for callback in claimed)
        for request in requests:
            operator_id, count = request.operator_id, counts[request.operator_id]
            self._admission.confirm(operator_id, self.lane, reserved=request.free_slots, claimed=count)
            if count < request.free_slots:
                self._with_backlog.discard(operator_id)
                continue
            self._with_backlog.add(operator_id)
            if count == limit:
                # There may be free slots beyond the limit.
                self.wake(operator_id=operator_id)
            self._wake_when_rate_allows(operator_id)

    def _wake_when_rate_allows(self, operator_id: str) -> None:
        delay_s = self._admission.rate_allows_in_s(operator_id, self.lane)
        if delay_s is not None:
            self.wake(max(delay_s, _RATE_WAKE_MIN_S), operator_id)


async def _wait_for_quick_loop() -> None:
    """Return once a turn of the event loop is quick, or after _LOOP_WAIT_MAX_S."""
    give_up_at_s = time.monotonic() + _LOOP_WAIT_MAX_S
    while True:
        began_s = time.monotonic()
        await asyncio.sleep(0)
        now_s = time.monotonic()
        if now_s - began_s < _LOOP_TURN_MAX_S or now_s >= give_up_at_s:
            return
