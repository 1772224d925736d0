"""The dispatcher of one lane claims due callbacks for free slots and hands each to its operator's courier.

It claims in one statement for all operators of which something may have become due: after a notification for every one,
after a slot that is free again while its operator had more to do, a retry whose delay is over or a rate that allows
more for that one, and in any case every poll interval for every one, because notifications are a hint and the database
is the truth. Each lane has a dispatcher of its own, so that no bet waits behind the claim of a burst of settlements.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from predictu_dispatch.core.callback import LEASE_MARGIN_S
from predictu_dispatch.core.claim import ClaimCursor, ClaimRequest
from predictu_dispatch.core.database_errors import DatabaseUnavailable
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.flow.loops import wait_for_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from predictu_dispatch.core.attempt import Attempt
    from predictu_dispatch.core.callback import Callback
    from predictu_dispatch.flow.admission import Admission
    from predictu_dispatch.flow.courier import Courier
    from predictu_dispatch.flow.ports import Observer, Outbox
    from predictu_dispatch.flow.recorder import Recorder

_POLL_AGAIN_S = (0.004, 0.012)
"""After a notification: of callbacks that are committed at the same moment only one notifies, see notify_due()."""
_CLAIMED_MOST = 250
_CLAIMED_OF_EACH = 4
"""Of all operators in one claim, and of each where they are many: the leases run while the loop gets round to each."""
_LOOP_TURN_MAX_S = 0.03
_LOOP_PATIENCE_S = 0.25
"""A claim waits until the loop turns quickly, but not for longer: what is claimed beyond what this process can carry
would wait here instead, time out, and be taken for its operator's failure."""
_BEGUN_WITHIN_S = 0.5
"""All settlements of a claim; what has not left LEASE_MARGIN_S after it, less the time to settle, never does."""
_TURN_S = 0.002
"""For so long settlements are begun before the loop looks at its sockets again."""
_PACED_WAKE_MIN_S = 0.002
"""However high a rate is, no more claims a second than this allows are made for its sake."""


class Dispatcher:
    """Keeps a lane's slots busy while there is due work."""

    def __init__(
        self,
        lane: Lane,
        outbox: Outbox,
        recorder: Recorder,
        observer: Observer,
        admission: Admission,
        *,
        observe: Callable[[Attempt], None],
        poll_interval_s: float,
    ) -> None:
        self.lane = lane
        self._outbox = outbox
        self._recorder = recorder
        self._observer = observer
        self._admission = admission
        self._observe = observe
        self._poll_interval_s = poll_interval_s
        self._couriers: Mapping[str, Courier] = {}
        self._has_backlog: set[str] = set()
        self._wake_requested: set[str] = set()
        self._most = _CLAIMED_MOST
        self._ask_all = True
        self._asked_all_at_s = float("-inf")
        self._cursor = ClaimCursor()
        self._poll_again: asyncio.TimerHandle | None = None
        self._work = asyncio.Event()
        self._stopping = asyncio.Event()
        self._claiming = asyncio.Lock()
        # When a claim last went through, or was not needed because every slot was busy; both on time.monotonic().
        self.claimed_at_s: float | None = None
        # The same, or when the database was last found away: this dispatcher turns, whatever the database does.
        self.answered_at_s: float | None = None

    async def send_by(self, couriers: Mapping[str, Courier]) -> None:
        """These couriers are sent from now on, by operator, and no claim for others is under way any more."""
        async with self._claiming:
            self._couriers = couriers
        self.wake()

    def wake(self, delay_s: float = 0.0, operator_id: str | None = None) -> None:
        """Something of this operator, or of any, may be due in `delay_s`; the next poll sees what is due after it."""
        if delay_s <= 0:
            self._note(operator_id)
        elif delay_s < self._poll_interval_s:
            asyncio.get_running_loop().call_later(delay_s, self._note, operator_id)

    def _note(self, operator_id: str | None) -> None:
        if operator_id is None:
            self._ask_all = True
        else:
            self._wake_requested.add(operator_id)
        self._work.set()

    def on_work_notification(self, *, is_behind: bool) -> None:
        """Something was committed; `is_behind` where it was enqueued long ago, so that the claims have read past it."""
        if is_behind:
            self._cursor.restart()
        self.wake()
        self._poll_again_after(_POLL_AGAIN_S)

    def _poll_again_after(self, pauses_s: tuple[float, ...]) -> None:
        def look() -> None:
            self.wake()
            self._poll_again_after(pauses_s[1:])

        if self._poll_again is not None:
            self._poll_again.cancel()
        self._poll_again = asyncio.get_running_loop().call_later(pauses_s[0], look) if pauses_s else None

    def stop(self) -> None:
        """Nothing is claimed any more; `run` returns once all that is in flight is settled."""
        self._stopping.set()
        self._work.set()

    async def run(self) -> None:
        """Claims until stopped, then waits for what is in flight."""
        async with asyncio.TaskGroup() as deliveries:
            while not self._stopping.is_set():
                self._work.clear()
                async with self._claiming:
                    await self._claim_and_begin(deliveries)
                await wait_for_event(self._work, self._poll_interval_s)

    async def _claim_and_begin(self, deliveries: asyncio.TaskGroup) -> None:
        await _loop_turns_quickly()
        claimed = await self._claim()
        # A burst of starts would hold up the loop, and with it the bets; so would their answers, all at once. But what
        # begins too late is not sent at all.
        is_patient = self.lane is Lane.SETTLEMENT and bool(claimed)
        spacing_s = min(self._admission.settlement_spacing_s(), _BEGUN_WITHIN_S / len(claimed)) if is_patient else 0.0
        due_s = yielded_s = time.monotonic()
        for callback in claimed:
            delivery = self._couriers[callback.operator_id].deliver(callback)
            deliveries.create_task(self._record(callback, delivery), name="deliver")
            if is_patient:
                due_s, now_s = due_s + spacing_s, time.monotonic()
                if due_s > now_s or now_s - yielded_s > _TURN_S:
                    await asyncio.sleep(max(0.0, due_s - now_s))
                    yielded_s = time.monotonic()

    async def _claim(self) -> list[Callback]:
        claimed: list[Callback] = []
        try:
            # What is wanted is asked for only once it is this lane's turn: a rate must not be kept while a burst waits.
            async with self._outbox.claim_permit(self.lane):
                began_s = time.monotonic()
                from_start = self._cursor.starts_from_beginning(began_s)
                wants = self._wants(self._to_ask(began_s, all_of_them=from_start), from_start=from_start)
                try:
                    claimed = await self._outbox.claim(wants) if wants else []
                finally:
                    self._cursor.advance(claimed)
                    if from_start:
                        now_s = time.monotonic()
                        self._cursor.finished(now_s, now_s - began_s)
                    self._note_what_came(wants, claimed)
            self.claimed_at_s = time.monotonic()
        except DatabaseUnavailable:
            # What a claim leased whose answer was lost, the reaper returns. The next poll asks again.
            self._ask_all = True
        self.answered_at_s = time.monotonic()
        return claimed

    def _to_ask(self, now_s: float, *, all_of_them: bool) -> list[str]:
        """The operators of which something may be due; of hundreds, asking for every one would be most of a claim."""
        noted, self._wake_requested = self._wake_requested, set()
        if all_of_them or self._ask_all or now_s >= self._asked_all_at_s + self._poll_interval_s:
            self._ask_all, self._asked_all_at_s = False, now_s
            return list(self._couriers)
        return [
            operator_id for operator_id in self._couriers if operator_id in noted or operator_id in self._has_backlog
        ]

    def _wants(self, operator_ids: Sequence[str], *, from_start: bool) -> list[ClaimRequest]:
        wants = []
        self._most = max(_CLAIMED_OF_EACH, _CLAIMED_MOST // max(1, len(operator_ids)))
        for operator_id in operator_ids:
            courier = self._couriers[operator_id]
            free_slots = self._admission.reserve(operator_id, self.lane, limit=self._most)
            if free_slots == 0:
                # Asked for once a slot is free again.
                self._has_backlog.add(operator_id)
                self._wake_when_paced(operator_id)
                continue
            settings = courier.operator.settings
            policy = settings.lane(self.lane)
            wants.append(
                ClaimRequest(
                    operator_id=operator_id,
                    lane=self.lane,
                    free_slots=free_slots,
                    lease_s=policy.attempt_timeout_s + LEASE_MARGIN_S,
                    rollback_lease_s=settings.settlement.attempt_timeout_s + LEASE_MARGIN_S,
                    amount_format=settings.amount_format,
                    due_from=None if from_start else self._cursor.due_from(operator_id),
                )
            )
        return wants

    def _note_what_came(self, wants: list[ClaimRequest], claimed: list[Callback]) -> None:
        """An operator of which all came that could has probably more waiting, worth a claim as soon as one may go."""
        came = Counter(callback.operator_id for callback in claimed)
        for want in wants:
            operator_id = want.operator_id
            self._admission.confirm(operator_id, self.lane, reserved=want.free_slots, claimed=came[operator_id])
            if came[operator_id] == want.free_slots:
                self._has_backlog.add(operator_id)
                if want.free_slots == self._most:
                    # There may be slots left that this claim did not ask for.
                    self.wake(operator_id=operator_id)
                self._wake_when_paced(operator_id)
            else:
                self._has_backlog.discard(operator_id)

    def _wake_when_paced(self, operator_id: str) -> None:
        paced_in_s = self._admission.rate_allows_in_s(operator_id, self.lane)
        if paced_in_s is not None:
            self.wake(max(paced_in_s, _PACED_WAKE_MIN_S), operator_id)

    async def _record(self, callback: Callback, delivery: Awaitable[Attempt]) -> None:
        self._observer.attempt_began(callback)
        try:
            attempt = await delivery
            self._observe(attempt)
            await self._recorder.record(attempt)
        finally:
            self._admission.release(callback.operator_id, self.lane)
            if callback.operator_id in self._has_backlog:
                gather_s = self._admission.settlement_gather_s() if self.lane is Lane.SETTLEMENT else 0.0
                self.wake(gather_s, callback.operator_id)


async def _loop_turns_quickly() -> None:
    give_up_at_s = time.monotonic() + _LOOP_PATIENCE_S
    while True:
        began_s = time.monotonic()
        await asyncio.sleep(0)
        now_s = time.monotonic()
        if now_s - began_s < _LOOP_TURN_MAX_S or now_s >= give_up_at_s:
            return
