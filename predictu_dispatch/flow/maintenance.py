"""Chores beside delivering: figures for metrics, partitions, operators and keys not stored yet.

The database gives counting and partitions to one daemon per interval; all read the last count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from predictu_dispatch.core.fleet import FleetFigures, ReconciliationFigures, RetiredOperator
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.flow.loops import ChoreObserver, run_chore

_INTERVAL_S = 5.0
_PARTITIONS_INTERVAL_S = 3600.0
_RECONCILIATION_INTERVAL_S = 30.0

FingerprintedOperator = tuple[OperatorSettings, str]


class MaintenanceStore(Protocol):
    """The database; all methods raise DatabaseUnavailable during an outage."""

    async def sync_operators(self, operators: Sequence[FingerprintedOperator]) -> list[str]: ...
    async def register_signing_keys(self, keys: Mapping[str, SigningKey]) -> None: ...
    async def retired_operators(self, operator_ids: Sequence[str]) -> list[RetiredOperator]: ...
    async def prepare_partitions(self, *, every_s: float) -> None: ...
    async def fleet_figures(self) -> FleetFigures | None: ...
    async def reconciliation_figures(self) -> ReconciliationFigures | None: ...


class MaintenanceObserver(ChoreObserver, Protocol):
    """Logs and metrics."""

    def figures_read(self, figures: FleetFigures) -> None: ...
    def reconciliation_read(self, figures: ReconciliationFigures) -> None: ...


class Maintenance:
    """Runs maintenance until cancelled."""

    def __init__(self, store: MaintenanceStore, observer: MaintenanceObserver) -> None:
        self._store = store
        self._observer = observer
        self._operators: Sequence[FingerprintedOperator] = ()
        self._are_stored = True
        self._keys: Mapping[str, SigningKey] = {}
        self._are_keys_stored = True
        self._partitions_at_s = float("inf")

    async def sync_operators(self, operators: Sequence[FingerprintedOperator]) -> None:
        """Let producers enqueue for these operators; those with locked rows follow in `run`."""
        locked = await self._store.sync_operators(operators)
        self._operators, self._are_stored = operators, not locked

    async def register_signing_keys(self, keys: Mapping[str, SigningKey]) -> None:
        """Store each operator's key before it signs: its tokens must be verifiable for years.

        If that fails, `run` tries again: a bet does not wait for it.
        """
        self._keys = keys
        self._are_keys_stored = await run_chore("register_signing_keys", self._register_keys(), self._observer) is True

    async def _register_keys(self) -> bool:
        await self._store.register_signing_keys(self._keys)
        return True

    async def retired_operators(self, operator_ids: Iterable[str]) -> list[RetiredOperator]:
        """Return those of the operators that must not be used again."""
        return await self._store.retired_operators(list(operator_ids))

    async def prepare_partitions(self) -> None:
        """Create the audit's partitions for the coming months, unless another daemon just did."""
        await self._store.prepare_partitions(every_s=_PARTITIONS_INTERVAL_S)

    def prepare_partitions_soon(self) -> None:
        """Prepare them at the next turn: the database's clock has stepped, perhaps by months."""
        self._partitions_at_s = float("-inf")

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._partitions_at_s = loop.time() + _PARTITIONS_INTERVAL_S
        reconciliation_at_s = loop.time()
        while True:
            if not self._are_stored:
                await run_chore("sync_operators", self.sync_operators(self._operators), self._observer)
            if not self._are_keys_stored:
                await self.register_signing_keys(self._keys)
            await run_chore("read_figures", self._read_figures(), self._observer)
            if loop.time() >= reconciliation_at_s:
                reconciliation_at_s = loop.time() + _RECONCILIATION_INTERVAL_S
                await run_chore("read_reconciliation", self._read_reconciliation(), self._observer)
            if loop.time() >= self._partitions_at_s:
                self._partitions_at_s = loop.time() + _PARTITIONS_INTERVAL_S
                await run_chore("prepare_partitions", self.prepare_partitions(), self._observer)
            await asyncio.sleep(_INTERVAL_S)

    async def _read_figures(self) -> None:
        figures = await self._store.fleet_figures()
        if figures is not None:
            self._observer.figures_read(figures)

    async def _read_reconciliation(self) -> None:
        figures = await self._store.reconciliation_figures()
        if figures is not None:
            self._observer.reconciliation_read(figures)
