"""The sealer: appends the audit's new rows to the operators' logs, and reads the logs' heads.

The database gives the turn to one daemon per interval. A turn is two statements without a lock
between them. The first reads unsealed rows in one snapshot. The second appends their entries if no
other daemon has appended since. So two sealers write one history, and a crash loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from predictu_dispatch.core.sealing import GrowingLog, GrownLog, LogDamagedError, LogHeads, StoredCheckpoint, Turn, grow
from predictu_dispatch.flow.loops import ChoreObserver, run_chore

_ROWS_MAX: Final = 10_000
"""In one turn; the rows of one transaction stay together, so there may be more."""
_SPAN: Final = 50_000
_SPAN_MAX: Final = 1 << 24
"""The range of transaction ids that a turn reads; it doubles while turns find few rows."""
_BLOCKS: Final = 512
"""Blocks of the backlog in one step: 4 MB, at most about 25,000 rows."""
_SUMMARIZE_AFTER: Final = 2_000
"""Sealed rows after which new index pages are summarized; until then each turn reads them again."""
_CLAIM_PART: Final = 0.9
"""The part of the interval after which the chore is due again, because a turn may begin late."""


class AuditStore(Protocol):
    """The logs in the database. All methods raise DatabaseUnavailable during an outage."""

    async def claim(self, *, every_s: float) -> bool: ...
    async def unsealed(self, *, most: int, span: int) -> Turn | None: ...
    async def backlog(self, *, blocks: int) -> Turn | None: ...
    async def append(self, turn: Turn, grown: Sequence[GrownLog]) -> list[StoredCheckpoint] | None: ...
    async def begin(self, origin: str, operator_ids: Sequence[str]) -> list[str]: ...
    async def summarize(self) -> None: ...
    async def rescan(self) -> None: ...
    async def heads(self) -> LogHeads | None: ...


class SealingObserver(ChoreObserver, Protocol):
    """Logs and metrics."""

    def checkpoint_stored(self, stored: StoredCheckpoint) -> None: ...
    def heads_read(self, heads: LogHeads) -> None: ...


class Sealer:
    """Seals until cancelled. `seeds()` returns the private keys that sign, the first one first."""

    def __init__(
        self,
        store: AuditStore,
        observer: SealingObserver,
        *,
        origin: str,
        seal_s: float,
        seeds: Callable[[], Sequence[bytes]],
    ) -> None:
        self._store = store
        self._observer = observer
        self._origin = origin
        self._seal_s = seal_s
        self._seeds = seeds
        self._span = _SPAN
        self._unsummarized = 0
        self._damaged: set[str] = set()
        """The operators whose logs are damaged: this sealer appends nothing to them."""
        self.notes: dict[str, str] = {}
        """The newest checkpoint of each log with all known signatures, by operator_id."""

    async def run(self) -> None:
        """Seal and read the heads until cancelled. Without an origin it only reads them.

        So the alerts fire if the configuration of every daemon has lost its origin.
        """
        loop = asyncio.get_running_loop()
        while True:
            began_at_s = loop.time()
            if self._origin:
                await run_chore("seal", self.seal(), self._observer)
            await run_chore("read_heads", self._read_heads(), self._observer)
            await asyncio.sleep(max(0.0, began_at_s + self._seal_s - loop.time()))

    async def seal(self) -> None:
        """If this daemon has the turn, seal all visible rows and then a part of the backlog."""
        loop = asyncio.get_running_loop()
        if not await self._store.claim(every_s=self._seal_s * _CLAIM_PART):
            return
        ends_at_s = loop.time() + self._seal_s
        turn = await self._turn()
        while turn is not None and turn.is_behind:
            turn = await self._turn()
        if self._unsummarized >= _SUMMARIZE_AFTER:
            await self._store.summarize()
            self._unsummarized = 0
        while turn is not None and turn.has_backlog and loop.time() < ends_at_s:
            began_at_s = loop.time()
            turn = await self._backlog()
            # Pause as long as the step took: the backlog uses at most half of a core.
            await asyncio.sleep(loop.time() - began_at_s)

    async def _turn(self) -> Turn | None:
        """Seal the next rows; returns None if another daemon was faster."""
        turn = await self._store.unsealed(most=_ROWS_MAX, span=self._span)
        while turn is None or turn.without_log:
            await self._store.begin(self._origin, () if turn is None else turn.without_log)
            turn = await self._store.unsealed(most=_ROWS_MAX, span=self._span)
        self._span = min(self._span * 2, _SPAN_MAX) if turn.is_behind and turn.entries < _ROWS_MAX // 4 else _SPAN
        if not await self._append(turn):
            return None
        self._unsummarized += turn.entries
        return turn

    async def _backlog(self) -> Turn | None:
        turn = await self._store.backlog(blocks=_BLOCKS)
        if turn is not None and turn.without_log:
            await self._store.begin(self._origin, turn.without_log)
            return turn
        return turn if turn is not None and await self._append(turn) else None

    async def _append(self, turn: Turn) -> bool:
        grown = []
        for log in turn.logs:
            try:
                grown.append(await self._grow(log))
            except LogDamagedError as error:
                # The other logs go on, and their position with it; see _repaired().
                self._damaged.add(log.operator_id)
                self._observer.chore_failed("seal_log", error)
        if self._damaged:
            # Not everything is sealed.
            turn = replace(turn, sealed_at=None)
        stored = await self._store.append(turn, grown)
        for checkpoint in stored or ():
            self._observer.checkpoint_stored(checkpoint)
        if stored is not None and (repaired := self._damaged & {log.operator_id for log in grown}):
            await self._repaired(repaired)
        return stored is not None

    async def _repaired(self, operator_ids: set[str]) -> None:
        """Make the rows that were left out while these logs were damaged the backlog."""
        await self._store.rescan()
        self._damaged -= operator_ids
        if not self._damaged:
            self._observer.chore_succeeded("seal_log")

    async def _grow(self, log: GrowingLog) -> GrownLog:
        steps = grow(log, self._seeds())
        while True:
            try:
                next(steps)
            except StopIteration as ended:
                grown: GrownLog = ended.value
                return grown
            await asyncio.sleep(0)

    async def _read_heads(self) -> None:
        heads = await self._store.heads()
        if heads is not None:
            self.notes = {head.operator_id: head.note for head in heads.heads}
            self._observer.heads_read(heads)
