"""What flow needs from outside, as protocols: edge implements them, daemon.py connects both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from predictu_dispatch.core.callback import Callback, Exchange
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.fleet import CircuitWrite, InstanceTakenError, OperatorState, Share, Usage
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


class FleetStore(Protocol):
    """The fleet's tables. All methods raise DatabaseUnavailable during an outage."""

    async def heartbeat(self, usages: Sequence[Usage]) -> list[Share]: ...
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


class FleetObserver(Protocol):
    """Logs and metrics of operators and daemons."""

    def operators_read(self, states: Sequence[OperatorState]) -> None: ...
    def instance_taken(self, taken: InstanceTakenError) -> None: ...
    def chore_failed(self, chore: str, error: Exception) -> None: ...
    def chore_succeeded(self, chore: str) -> None: ...
