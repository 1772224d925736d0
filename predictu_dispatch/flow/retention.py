"""Retention removes what ended more than the kept months ago, in short transactions with pauses.

The database decides what may be removed and stores the progress: a new run continues a killed one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from predictu_dispatch.core.database import DatabaseUnavailable
from predictu_dispatch.core.retention import AuditPart, PurgeCursor, PurgedCallbacks, RetentionResult

_LOCK_TRIALS: Final = 60
_LOCK_RETRY_S: Final = 0.5
"""How long a lock is retried: a settle holds it for milliseconds, a dump for hours."""
_StepT = TypeVar("_StepT")


class RetentionStore(Protocol):
    """The database. A purge raises DatabaseUnavailable with `is_locked` if another holds a lock."""

    async def purge_cursor(self) -> PurgeCursor: ...
    async def expired_audit(self) -> Sequence[AuditPart]: ...
    async def purge_callbacks(self) -> PurgedCallbacks: ...
    async def purge_runs(self) -> int: ...
    async def purge_audit(self, part: AuditPart) -> AuditPart: ...


class Retention:
    """Removes old history."""

    def __init__(self, store: RetentionStore, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._store = store
        self._sleep = sleep

    async def preview(self) -> RetentionResult:
        cursor = await self._store.purge_cursor()
        return RetentionResult(cutoff=cursor.cutoff, is_purged=cursor.is_done, parts=await self._store.expired_audit())

    async def run(self) -> RetentionResult:
        """Remove everything old; the result says what could not be removed and why.

        Raises DatabaseUnavailable and Refused, with PD006 if another run is active.
        """
        result = await self.preview()
        await self._purge_callbacks(result)
        await self._purge_runs(result)
        # Callbacks first, because their audit rows are needed as long as they exist.
        result.parts = [await self._purge_audit(part) for part in await self._store.expired_audit()]
        return result

    async def _purge_callbacks(self, result: RetentionResult) -> None:
        while not result.is_purged:
            try:
                step = await self._step(self._store.purge_callbacks)
            except DatabaseUnavailable as error:
                if not error.is_locked:
                    raise
                result.why_not = error.message
                return
            result.callbacks += step.callbacks
            result.bets += step.bets
            result.locked += step.locked
            result.held += step.held
            result.is_purged = step.is_done

    async def _purge_runs(self, result: RetentionResult) -> None:
        try:
            while removed := await self._step(self._store.purge_runs):
                result.runs += removed
        except DatabaseUnavailable as error:
            if not error.is_locked:
                raise
            result.why_not = error.message

    async def _purge_audit(self, part: AuditPart) -> AuditPart:
        while not (part.is_done or part.why_not):
            try:
                part = await self._step(partial(self._store.purge_audit, part))
            except DatabaseUnavailable as error:
                if not error.is_locked:
                    raise
                part = part._replace(why_not=error.message)
        return part

    async def _step(self, step: Callable[[], Awaitable[_StepT]]) -> _StepT:
        """Do one step, then pause for as long as it took to keep the database's load low.

        Retries while another transaction holds a lock; raises DatabaseUnavailable in the end.
        """
        for trial in range(1, _LOCK_TRIALS + 1):
            began_s = time.monotonic()
            try:
                done = await step()
            except DatabaseUnavailable as error:
                if not error.is_locked or trial == _LOCK_TRIALS:
                    raise
                await self._sleep(_LOCK_RETRY_S)
            else:
                await self._sleep(time.monotonic() - began_s)
                return done
        raise AssertionError  # The last attempt returns or raises.
