"""The dispatcher claims due callbacks for free slots and hands each to its lane's courier.

One loop claims for all operators and lanes in one statement. It runs when something may have become due: a
notification, a slot that is free again while its lane had more to do, a retry whose delay is over, and in any case
every poll interval, because notifications are a hint and the database is the truth.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from predictu_dispatch.core.callback import LEASE_MARGIN_S
from predictu_dispatch.core.change import LaneWant
from predictu_dispatch.core.methods import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from predictu_dispatch.core.callback import Callback
    from predictu_dispatch.flow.courier import Courier
    from predictu_dispatch.flow.ports import Observer, Outbox
    from predictu_dispatch.flow.recorder import Recorder

LaneKey = tuple[str, Lane]


class Dispatcher:
    """Keeps every lane's slots busy while there is due work. `is_outage` tells an absent database from a bug."""

    def __init__(
        self,
        outbox: Outbox,
        recorder: Recorder,
        observer: Observer,
        couriers: Iterable[Courier],
        *,
        poll_interval_s: float,
        is_outage: Callable[[BaseException], bool],
    ) -> None:
        self._outbox = outbox
        self._recorder = recorder
        self._observer = observer
        self._couriers: dict[LaneKey, Courier] = {
            (courier.operator.settings.operator_id, courier.lane): courier for courier in couriers
        }
        self._poll_interval_s = poll_interval_s
        self._is_outage = is_outage
        self.in_flight: dict[LaneKey, int] = dict.fromkeys(self._couriers, 0)
        self._hungry: set[LaneKey] = set()
        self._work = asyncio.Event()
        self._stopping = asyncio.Event()
        # When a claim last went through, or was not needed because every slot was busy; on the loop's clock.
        self.claimed_at_s: float | None = None

    def wake(self, delay_s: float = 0.0) -> None:
        """Something may be due in `delay_s`; what is due later than the next poll needs no call of its own."""
        if delay_s <= 0:
            self._work.set()
        elif delay_s < self._poll_interval_s:
            asyncio.get_running_loop().call_later(delay_s, self._work.set)

    def stop(self) -> None:
        """Nothing is claimed any more; `run` returns once all that is in flight is settled."""
        self._stopping.set()
        self._work.set()

    async def run(self) -> None:
        """Claims until stopped, then waits for what is in flight."""
        async with asyncio.TaskGroup() as deliveries:
            while not self._stopping.is_set():
                self._work.clear()
                for callback in await self._claim():
                    self._begin(callback, deliveries)
                try:
                    async with asyncio.timeout(self._poll_interval_s):
                        await self._work.wait()
                except TimeoutError:
                    pass

    async def _claim(self) -> list[Callback]:
        wants = self._wants()
        if not wants:
            self.claimed_at_s = asyncio.get_running_loop().time()
            return []
        try:
            claimed = await self._outbox.claim(wants)
        except Exception as error:
            if not self._is_outage(error):
                raise
            # What a claim leased whose answer was lost, the reaper returns. The next poll asks again.
            return []
        self.claimed_at_s = asyncio.get_running_loop().time()
        self._note_hunger(wants, claimed)
        return claimed

    def _wants(self) -> list[LaneWant]:
        wants = []
        for (operator_id, lane), courier in self._couriers.items():
            settings = courier.operator.settings
            policy = settings.interactive if lane is Lane.INTERACTIVE else settings.settlement
            free_slots = policy.max_in_flight - self.in_flight[operator_id, lane]
            if settings.enabled and free_slots > 0:
                wants.append(
                    LaneWant(
                        operator_id=operator_id,
                        lane=lane,
                        free_slots=free_slots,
                        lease_s=policy.attempt_timeout_s + LEASE_MARGIN_S,
                        rollback_lease_s=settings.settlement.attempt_timeout_s + LEASE_MARGIN_S,
                        amount_format=settings.amount_format,
                    )
                )
        return wants

    def _note_hunger(self, wants: list[LaneWant], claimed: list[Callback]) -> None:
        """A lane that took all it could have has probably more waiting: its next free slot is worth a claim at once."""
        taken: dict[LaneKey, int] = {}
        for callback in claimed:
            key = (callback.operator_id, callback.lane)
            taken[key] = taken.get(key, 0) + 1
        for want in wants:
            key = (want.operator_id, want.lane)
            if taken.get(key, 0) == want.free_slots:
                self._hungry.add(key)
            else:
                self._hungry.discard(key)

    def _begin(self, callback: Callback, deliveries: asyncio.TaskGroup) -> None:
        self.in_flight[callback.operator_id, callback.lane] += 1
        deliveries.create_task(self._deliver(callback), name=f"deliver {callback.request_id}")

    async def _deliver(self, callback: Callback) -> None:
        key = (callback.operator_id, callback.lane)
        self._observer.attempt_began(callback)
        try:
            await self._recorder.record(await self._couriers[key].deliver(callback))
        finally:
            self.in_flight[key] -= 1
            if key in self._hungry:
                self.wake()
