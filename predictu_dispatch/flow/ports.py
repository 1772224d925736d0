"""What flow needs from outside, as protocols: edge implements them, daemon.py connects both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from predictu_dispatch.core.callback import Callback, Exchange
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.clock import ClockReading, DatabaseClock
from predictu_dispatch.core.fleet import CircuitWrite, InstanceTakenError, LatestTimes, OperatorState, Share, Usage
from predictu_dispatch.core.lifecycle import Attempt, CallbackChange
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.signing import SigningKey


class Operator(Protocol):
    """One configured operator."""

    @property
    def settings(self) -> OperatorSettings: ...

    @property
    def signing_key(self) -> SigningKey: ...


class Outbox(Protocol):
    """The outbox. Only `settle` waits for the database; others raise DatabaseUnavailable."""

    def claim_permit(self, lane: Lane) -> AbstractAsyncContextManager[None]: ...
    async def claim(self, requests: Sequence[ClaimRequest], *, is_stopped: Callable[[], bool]) -> list[Callback]: ...
    async def settle(self, attempts: Sequence[Attempt]) -> list[CallbackChange]: ...
    async def expire(self, most: int) -> list[CallbackChange]: ...
    async def expired_leases(self, *, every_s: float) -> list[tuple[Callback, str, datetime]]: ...
    async def leases_ahead(self) -> list[tuple[Callback, str, datetime]]: ...


class ClockStore(Protocol):
    """The database's clock. Both methods raise DatabaseUnavailable during an outage."""

    async def read_clock(self) -> ClockReading: ...
    async def correct_times(self, latest: Sequence[LatestTimes], *, ahead_s: float) -> list[str]: ...


class FleetStore(Protocol):
    """The fleet's tables. All methods raise DatabaseUnavailable during an outage."""

    async def heartbeat(
        self,
        usages: Sequence[Usage],
        *,
        clock_at_s: float | None,
        clock_ahead_s: float | None,
        silent_at: datetime | None,
    ) -> list[Share]: ...
    async def seen_at(self) -> datetime | None: ...
    async def deregister(self) -> None: ...
    async def operator_states(self, operator_ids: Sequence[str]) -> list[OperatorState]: ...
    async def write_circuits(self, writes: Sequence[CircuitWrite]) -> set[str]: ...


class Transport(Protocol):
    """HTTP connections to one operator's lane; times are monotonic seconds of this process."""

    async def post(
        self,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        connect_timeout_s: float,
        send_before_s: float,
    ) -> Exchange: ...

    def interrupt(self) -> None: ...

    async def close(self) -> None: ...


class Observer(Protocol):
    """Logs and metrics of callbacks."""

    def attempt_began(self, callback: Callback) -> None: ...
    def attempt_settled(self, attempt: Attempt, change: CallbackChange) -> None: ...
    def callback_changed(self, change: CallbackChange) -> None: ...
    def chore_failed(self, chore: str, error: Exception) -> None: ...
    def chore_succeeded(self, chore: str) -> None: ...
    def report_refused(self, attempt: Attempt, error: Exception) -> None: ...


class ClockObserver(Protocol):
    """Logs and metrics of the database's clock."""

    def clock_read(self, clock: DatabaseClock) -> None: ...
    def clock_stepped(self, step_s: float) -> None: ...
    def times_corrected(self, operator_ids: Sequence[str]) -> None: ...
    def chore_failed(self, chore: str, error: Exception) -> None: ...
    def chore_succeeded(self, chore: str) -> None: ...


class FleetObserver(Protocol):
    """Logs and metrics of operators and daemons."""

    def operators_read(self, states: Sequence[OperatorState]) -> None: ...
    def instance_taken(self, taken: InstanceTakenError) -> None: ...
    def chore_failed(self, chore: str, error: Exception) -> None: ...
    def chore_succeeded(self, chore: str) -> None: ...
