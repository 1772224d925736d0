"""The fleet's tables: heartbeats, shares and the operators' states."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from predictu_dispatch.core.breaker import Breaker, Circuit, Ping
from predictu_dispatch.core.database import Refused
from predictu_dispatch.core.fleet import CircuitWrite, InstanceTakenError, LastFailure, OperatorState, Share, Usage
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.reach import Peers
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.sql_files import migrations, query

_INSTANCE_TAKEN = "PD007"
_PINGS = {
    None: Ping.NONE,
    CallbackState.READY: Ping.UNDER_WAY,
    CallbackState.IN_FLIGHT: Ping.UNDER_WAY,
    CallbackState.DELIVERED: Ping.ANSWERED,
    # A business rejection of a PING is an answer too.
    CallbackState.REJECTED: Ping.ANSWERED,
    CallbackState.EXHAUSTED: Ping.FAILED,
    CallbackState.CANCELLED: Ping.FAILED,
}


class FleetStore:
    """The fleet's tables for one daemon. Its session differs from any process of the same name."""

    def __init__(self, database: Database, *, instance: str) -> None:
        self._database = database
        self._instance = instance
        self._session_id = uuid.uuid4()
        # Read once, because a process without free descriptors must still send heartbeats.
        self._version = version("predictu-dispatch")

    async def heartbeat(
        self,
        usages: Sequence[Usage],
        *,
        clock_at_s: float | None = None,
        clock_ahead_s: float | None = None,
        silent_at: datetime | None = None,
    ) -> list[Share]:
        """Send a heartbeat; returns this daemon's shares. Raises InstanceTakenError.

        The last three are heartbeat()'s in the database.
        """
        try:
            rows = await self._database.fetch(
                query("heartbeat"),
                self._instance,
                self._session_id,
                socket.gethostname(),
                os.getpid(),
                self._version,
                # A usage's fields are the parameters, in their order.
                *([usage[field] for usage in usages] for field in range(len(Usage._fields))),
                len(migrations()),
                *(clock_at_s, clock_ahead_s, silent_at),
                # Urgent, because a daemon without shares sends nothing.
                urgent=True,
            )
        except Refused as error:
            if error.sqlstate != _INSTANCE_TAKEN:
                raise
            raise InstanceTakenError(". ".join(filter(None, (error.message, error.hint)))) from error
        return [Share(**row) for row in rows]

    async def seen_at(self) -> datetime | None:
        """The last heartbeat of the daemon with this name."""
        return next(
            (row["seen_at"] for row in await self._database.fetch(query("daemon_seen_at"), self._instance)), None
        )

    async def deregister(self) -> None:
        await self._database.fetch(query("deregister"), self._instance, self._session_id)

    async def report_signing_keys(self, keys: Mapping[str, str]) -> bool:
        """Record the key_id that signs, by operator; returns False if another took the name."""
        [row] = await self._database.fetch(
            query("report_signing_keys"), self._instance, self._session_id, list(keys), list(keys.values())
        )
        return bool(row["is_recorded"])

    async def operator_states(self, operator_ids: Sequence[str]) -> list[OperatorState]:
        """The states of these operators; unknown operators are missing."""
        return [_state(row) for row in await self._database.fetch(query("operator_states"), list(operator_ids))]

    async def write_circuits(self, writes: Sequence[CircuitWrite]) -> set[str]:
        """Write these decisions; returns the operators not changed or locked meanwhile."""
        breakers = [write.breaker for write in writes]
        rows = await self._database.fetch(
            query("write_circuits"),
            [write.operator_id for write in writes],
            [write.revision for write in writes],
            [breaker.circuit for breaker in breakers],
            [breaker.health for breaker in breakers],
            [breaker.consecutive_failures for breaker in breakers],
            [write.success_s_ago for write in writes],
            [write.failure_s_ago for write in writes],
            [breaker.ping_in_s for breaker in breakers],
            [breaker.starts_ping for breaker in breakers],
            [write.interactive_backoff_s for write in writes],
            [write.settlement_backoff_s for write in writes],
            # A failure's fields are the parameters, in their order.
            *(
                [None if write.last_failure is None else write.last_failure[field] for write in writes]
                for field in range(len(LastFailure._fields))
            ),
        )
        return {row["operator_id"] for row in rows}

    async def report_reach(self, lost: Sequence[str], operator_ids: Sequence[str]) -> dict[str, Peers]:
        """Record which operators this daemon cannot connect to; returns whether others can."""
        read_at_s = time.monotonic()
        rows = await self._database.fetch(query("report_reach"), self._instance, list(lost), list(operator_ids))
        return {row["operator_id"]: Peers(row["connected"], row["unconnected"], read_at_s) for row in rows}


def _state(row: Mapping[str, Any]) -> OperatorState:
    ping = _PINGS[row["ping_state"] and CallbackState(row["ping_state"])]
    return OperatorState(
        operator_id=row["operator_id"],
        revision=row["revision"],
        breaker=Breaker(
            circuit=Circuit(row["circuit"]),
            consecutive_failures=row["consecutive_failures"],
            ever_succeeded=row["ever_succeeded"],
            ping_in_s=row["ping_in_s"],
            ping=ping,
        ),
        circuit_age_s=row["circuit_age_s"],
        ping_request_id=row["ping_request_id"],
        is_paused=row["is_paused"],
        interactive_backoff_s=row["interactive_backoff_s"],
        settlement_backoff_s=row["settlement_backoff_s"],
        last_failure=None
        if row["last_failure_request_id"] is None
        else LastFailure(*(row[f"last_failure_{field}"] for field in LastFailure._fields)),
    )
