"""The attempts of one lane that ended and are not settled yet."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.events import Event
from predictu_dispatch.core.lifecycle import Attempt

KEPT_MAX: Final = 5_000
"""Unsettled attempts without a slot; further ones keep theirs, which slows the claims down."""
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""The same for their texts: an answer may have a body of 64 KiB."""
FAILURES_WITH_SLOT: Final = 6
"""After so many failures alone a slot is freed even if nothing else was settled."""
Key = tuple[str, UUID, int]

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """An attempt on its way to the database; its slot is kept until `done`."""

    key: Key
    attempt: Attempt
    done: asyncio.Future[None]
    ended_at_s: float
    times_locked: int = 0
    failures: int = 0
    """How often it failed alone."""
    failed_at_s: float = 0.0
    times_slow: int = 0
    is_cause: bool = False
    """Others were settled after it failed alone, so it is the cause of its failure."""
    kept_bytes: int = 0
    """Its size while it is kept without a slot."""
    retry: asyncio.TimerHandle | None = None


class Unsettled:
    """Keeps the entries in the order of their arrival."""

    def __init__(self) -> None:
        self._entries: dict[Entry, None] = {}
        self._failing: dict[Entry, None] = {}
        self._by_key: dict[Key, int] = {}
        self._kept_bytes = 0
        self._none = asyncio.Event()
        self._none.set()

    def add(self, attempt: Attempt) -> Entry:
        key = key_of(attempt.callback)
        done = asyncio.get_running_loop().create_future()
        entry = Entry(key=key, attempt=attempt, done=done, ended_at_s=time.monotonic())
        self._by_key[key] = self._by_key.get(key, 0) + 1
        self._entries[entry] = None
        self._none.clear()
        return entry

    def finish(self, entry: Entry) -> None:
        """Forget the entry; a second call does nothing."""
        if entry not in self._entries:
            return
        del self._entries[entry]
        self._failing.pop(entry, None)
        self._kept_bytes -= entry.kept_bytes
        self._by_key[entry.key] -= 1
        if not self._by_key[entry.key]:
            del self._by_key[entry.key]
        if not entry.done.done():
            entry.done.set_result(None)
        if not self._entries:
            self._none.set()

    def count(self, key: Key) -> int:
        """Return how many reports of this attempt are not settled yet."""
        return self._by_key.get(key, 0)

    def waiting(self) -> list[Entry]:
        """Return the entries whose next retry is not due yet."""
        return [entry for entry in self._entries if entry.retry is not None]

    async def none(self) -> None:
        """Wait until everything is settled."""
        await self._none.wait()

    def free_slot(self, entry: Entry) -> None:
        """Free the slot of an entry that is kept, unless too many are."""
        if entry.done.done():
            return
        kept_bytes = _size(entry.attempt)
        if len(self._entries) <= KEPT_MAX and self._kept_bytes + kept_bytes <= KEPT_BYTES_MAX:
            entry.kept_bytes = kept_bytes
            self._kept_bytes += kept_bytes
            entry.done.set_result(None)

    def note_failure(self, entry: Entry) -> None:
        """The entry failed alone; free its slot if it is the cause, or after FAILURES_WITH_SLOT."""
        entry.failures += 1
        entry.failed_at_s = time.monotonic()
        self._failing[entry] = None
        if entry.is_cause or entry.failures >= FAILURES_WITH_SLOT:
            self.free_slot(entry)

    def note_success(self, began_s: float) -> list[Entry]:
        """A statement that began then settled others; return the entries now known as causes."""
        found = [entry for entry in self._failing if not entry.is_cause and entry.failed_at_s <= began_s]
        for entry in found:
            entry.is_cause = True
            self.free_slot(entry)
        return found

    def log_as_lost(self) -> None:
        """Log each answer that is lost when this process ends, for manual review."""
        for entry in self._entries:
            attempt = entry.attempt
            if attempt.reaped:
                # Another daemon reaps it again.
                continue
            log.error(
                Event.ANSWER_LOST,
                request_id=str(attempt.callback.request_id),
                operator_id=attempt.callback.operator_id,
                method=attempt.callback.method,
                attempt=attempt.callback.attempt,
                evidence=attempt.exchange.evidence,
                verdict=attempt.outcome.verdict,
                effect=attempt.outcome.effect,
            )

    @property
    def failing(self) -> int:
        """How many attempts failed alone and are kept."""
        return len(self._failing)

    def oldest_s(self) -> float:
        """Return how long the oldest entry has been waiting."""
        return next((time.monotonic() - entry.ended_at_s for entry in self._entries), 0.0)

    def held_up_s(self) -> float:
        """The same without entries that wait for a lock or are the cause of their failure."""
        held_up = (entry for entry in self._entries if not (entry.times_locked or entry.is_cause))
        return next((time.monotonic() - entry.ended_at_s for entry in held_up), 0.0)


def _size(attempt: Attempt) -> int:
    headers = sum(len(name) + len(value) for name, value in attempt.exchange.headers)
    return len(attempt.exchange.body) + headers + len(attempt.request_body or "") + len(attempt.callback.params)


def key_of(callback: Callback) -> Key:
    """The attempt that the callback is leased for."""
    return callback.operator_id, callback.request_id, callback.attempt
