"""Isolation of callbacks that the database cannot process, so that all others are delivered.

One unreadable row, or one that a trigger refuses, makes the statement for all operators fail. Then
each operator is claimed alone, and the operator for which that fails callback by callback; the
database does this in one statement. A callback that fails is set aside for RETRY_S, and for twice
as long each time it fails again: a claim tries only some that fail, and the others behind them must
have their turn. Its operator is claimed apart from the others until nothing of it has failed for
KEEP_S, so that the statement for the others does not fail again. The same holds for ending overdue
callbacks, for correcting times operator by operator, and for reading expired leases without the
unreadable ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.claim import ClaimRequest, Lease, RowFailure, UnusableRows
from predictu_dispatch.core.clock import ClockReading
from predictu_dispatch.core.database import DatabaseUnavailable, Refused
from predictu_dispatch.core.fleet import LatestTimes
from predictu_dispatch.core.lifecycle import CallbackChange
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.flow.ports import Outbox

RETRY_S = 4.0
RETRY_MAX_S = 60.0
"""A callback that failed is tried again after this time, doubling from the first."""
KEEP_S = 60.0
"""How long a failure is remembered after its pause, logged once and counted."""
SET_ASIDE_MAX = 5_000
"""For each step; further ones fail again in each turn, up to the limit of claim_apart()."""


class ApartOutbox(Outbox, Protocol):
    """The outbox, with its functions that process each callback apart."""

    async def claim_apart(
        self, requests: Sequence[ClaimRequest], set_aside: Sequence[UUID], *, is_stopped: Callable[[], bool]
    ) -> tuple[list[Callback], list[RowFailure]]: ...
    async def expire_apart(
        self, most: int, set_aside: Sequence[UUID]
    ) -> tuple[list[CallbackChange], list[RowFailure]]: ...
    async def expired_leases_apart(self, *, every_s: float) -> tuple[list[Lease], list[RowFailure]]: ...
    async def leases_ahead_apart(self) -> tuple[list[Lease], list[RowFailure]]: ...
    async def read_clock(self) -> ClockReading: ...
    async def correct_times(self, latest: Sequence[LatestTimes], *, ahead_s: float) -> list[str]: ...


class IsolationObserver(Protocol):
    """Logs and counts callbacks that are set aside."""

    def callback_set_aside(self, step: str, failure: RowFailure) -> None: ...


class Pause(NamedTuple):
    """How long a callback that failed is left out, and until when: a monotonic time."""

    length_s: float
    until_s: float


class SetAside:
    """The callbacks of one step that failed, until KEEP_S after their pause."""

    def __init__(self, step: str, observer: IsolationObserver) -> None:
        self._step = step
        self._observer = observer
        self._pauses: dict[tuple[str, UUID | None], Pause] = {}

    def add(self, failures: Iterable[RowFailure], now_s: float) -> None:
        for failure in failures:
            key = failure.operator_id, failure.request_id
            if key in self._pauses:
                length_s = min(2 * self._pauses[key].length_s, RETRY_MAX_S)
            elif len(self._pauses) < SET_ASIDE_MAX:
                length_s = RETRY_S
                self._observer.callback_set_aside(self._step, failure)
            else:
                continue
            self._pauses[key] = Pause(length_s, now_s + length_s)

    def forget(self, now_s: float) -> None:
        """Forget what has not failed again for KEEP_S after its pause."""
        if self._pauses:
            self._pauses = {key: pause for key, pause in self._pauses.items() if now_s < pause.until_s + KEEP_S}

    def request_ids(self, now_s: float) -> list[UUID]:
        """Return the callbacks that must not be tried again yet."""
        return [
            request_id
            for (_, request_id), pause in self._pauses.items()
            if request_id is not None and now_s < pause.until_s
        ]

    def failed(self) -> Collection[tuple[str, UUID | None]]:
        """Return what failed: operator and request id, which is None if it cannot be named."""
        return self._pauses.keys()


class IsolatingOutbox:
    """An outbox whose claims and ends leave out the callbacks that the database cannot process."""

    def __init__(
        self, outbox: ApartOutbox, observer: IsolationObserver, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._outbox = outbox
        self._now_s = now_s
        self._claims = {lane: SetAside(f"claim_{lane}", observer) for lane in Lane}
        self._ends = SetAside("expire", observer)
        self._leases = SetAside("reap", observer)
        self._times = SetAside("correct_times", observer)
        self.settle = outbox.settle
        self.settle_apart = outbox.settle_apart
        self.claim_permit = outbox.claim_permit
        self.read_clock = outbox.read_clock

    def set_aside(self) -> Counter[str]:
        """Return how many callbacks of each operator are set aside."""
        failed: set[tuple[str, UUID | None]] = set()
        for one in (*self._claims.values(), self._ends, self._leases, self._times):
            one.forget(self._now_s())
            failed |= set(one.failed())
        return Counter(operator_id for operator_id, _ in failed)

    async def claim(self, requests: Sequence[ClaimRequest], *, is_stopped: Callable[[], bool]) -> list[Callback]:
        set_aside = self._claims[requests[0].lane]
        set_aside.forget(self._now_s())
        failing = {operator_id for operator_id, _ in set_aside.failed()}
        together = [one for one in requests if one.operator_id not in failing] if failing else requests
        apart = [one for one in requests if one.operator_id in failing] if failing else []
        claimed: list[Callback] = []
        if together:
            try:
                claimed = await self._outbox.claim(together, is_stopped=is_stopped)
            except UnusableRows as some:
                claimed = list(some.usable)
                set_aside.add(some.failures, self._now_s())
            except (Refused, DatabaseUnavailable) as error:
                if not _may_be_a_row(error):
                    raise
                apart = list(requests)
        if apart:
            try:
                more, failures = await self._outbox.claim_apart(
                    apart, set_aside.request_ids(self._now_s()), is_stopped=is_stopped
                )
            except (Refused, DatabaseUnavailable):
                # The claimed callbacks are leased, so they must be delivered.
                if not claimed:
                    raise
            else:
                claimed += more
                set_aside.add(failures, self._now_s())
        return claimed

    async def expire(self, most: int) -> list[CallbackChange]:
        self._ends.forget(self._now_s())
        if not self._ends.failed():
            try:
                return await self._outbox.expire(most)
            except (Refused, DatabaseUnavailable) as error:
                if not _may_be_a_row(error):
                    raise
        changes, failures = await self._outbox.expire_apart(most, self._ends.request_ids(self._now_s()))
        self._ends.add(failures, self._now_s())
        return changes

    async def expired_leases(self, *, every_s: float) -> list[Lease]:
        return await self._leases_of(
            lambda: self._outbox.expired_leases(every_s=every_s),
            lambda: self._outbox.expired_leases_apart(every_s=every_s),
        )

    async def leases_ahead(self) -> list[Lease]:
        return await self._leases_of(self._outbox.leases_ahead, self._outbox.leases_ahead_apart)

    async def _leases_of(
        self,
        together: Callable[[], Awaitable[list[Lease]]],
        apart: Callable[[], Awaitable[tuple[list[Lease], list[RowFailure]]]],
    ) -> list[Lease]:
        self._leases.forget(self._now_s())
        if not self._leases.failed():
            try:
                return await together()
            except UnusableRows as some:
                self._leases.add(some.failures, self._now_s())
                return list(some.usable)
            except (Refused, DatabaseUnavailable) as error:
                if not _may_be_a_row(error):
                    raise
        leases, failures = await apart()
        self._leases.add(failures, self._now_s())
        return leases

    async def correct_times(self, latest: Sequence[LatestTimes], *, ahead_s: float) -> list[str]:
        """Correct times; an operator for which that fails is left to the next turn."""
        self._times.forget(self._now_s())
        failing = {operator_id for operator_id, _ in self._times.failed()}
        together = [one for one in latest if one.operator_id not in failing]
        try:
            corrected = await self._outbox.correct_times(together, ahead_s=ahead_s)
            apart = [one for one in latest if one.operator_id in failing]
        except (Refused, DatabaseUnavailable) as error:
            if not _may_be_a_row(error):
                raise
            corrected, apart = [], list(latest)
        for one in apart:
            try:
                corrected += await self._outbox.correct_times([one], ahead_s=ahead_s)
            except (Refused, DatabaseUnavailable) as error:
                if not _may_be_a_row(error):
                    raise
                self._times.add([RowFailure(one.operator_id, None, error.sqlstate, str(error))], self._now_s())
        return corrected


def _may_be_a_row(error: Refused | DatabaseUnavailable) -> bool:
    """True if one row may be the cause. Class 58 includes a block that the disk cannot read."""
    return isinstance(error, Refused) or (error.sqlstate.startswith("58") and not error.without_session)
