"""What bears on one callback, read from the database's rows and from the operator's file where one asks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from predictu_dispatch.core.breaker import Circuit
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.diagnosis_facts import (
    COUNTED_MOST,
    CallbackFacts,
    DaemonFacts,
    Facts,
    FileFacts,
    FileState,
    LastAttempt,
    LastIntervention,
    OperatorFacts,
    OtherCallback,
    RowLocker,
)
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.edge.config.files import ConfigError
from predictu_dispatch.edge.config.operator_file import read_operator
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from uuid import UUID

    from predictu_dispatch.edge.postgres.database import Database


async def callbacks_with_id(database: Database, request_id: UUID, operator_id: str | None) -> list[Mapping[str, Any]]:
    """The callbacks of this id, one for each operator that has it."""
    return await database.fetch(query("why_callback"), request_id, operator_id)


async def facts_of(database: Database, row: Mapping[str, Any], *, config: Path) -> Facts:
    """Everything that bears on a callback of `callbacks_with_id`, and on the one that it waits for."""
    operator_id, lane = row["operator_id"], row["lane"]
    earlier = None
    if row["state"] == CallbackState.WAITING and row["other_request_id"] is not None:
        # A placement never waits itself, so this goes one step down and no further.
        (placement,) = await callbacks_with_id(database, row["other_request_id"], operator_id)
        earlier = await facts_of(database, placement, config=config)
    (ahead,) = await database.fetch(query("why_ahead"), operator_id, lane, row["due_at"], COUNTED_MOST + 1)
    daemons = await database.fetch(query("why_daemons"), operator_id, lane)
    return Facts(
        at=row["at"],
        callback=_callback(row),
        operator=_operator(row),
        daemons=tuple(DaemonFacts(**daemon) for daemon in daemons),
        file=_file(config.parent / "operators" / f"{operator_id}.toml"),
        ahead=ahead["in_lane"],
        interactive_due=ahead["interactive"],
        earlier=earlier,
    )


def _callback(row: Mapping[str, Any]) -> CallbackFacts:
    return CallbackFacts(
        request_id=row["request_id"],
        operator_id=row["operator_id"],
        method=Method(row["method"]),
        bet_id=row["bet_id"],
        lane=Lane(row["lane"]),
        state=CallbackState(row["state"]),
        reason=row["reason"],
        effect=Effect(row["effect"]),
        attempts=row["attempts"],
        retry_stopped=row["retry_stopped"],
        operator_status=row["operator_status"],
        due_at=row["due_at"],
        expires_at=row["expires_at"],
        finished_at=row["finished_at"],
        review_since=row["review_since"],
        leased_at=row["leased_at"],
        leased_by=row["leased_by"],
        lease_until=row["lease_until"],
        other=_other(row["other_request_id"], row["other_method"], row["other_state"]),
        last_attempt=None
        if row["tried_attempt"] is None
        else LastAttempt(attempt=row["tried_attempt"], reason=row["tried_reason"], finished_at=row["tried_at"]),
        last_intervention=None
        if row["done_action"] is None
        else LastIntervention(
            action=row["done_action"], done_by=row["done_by"], done_at=row["done_at"], reason=row["done_reason"]
        ),
        row_locker=None
        if row["locker_pid"] is None
        else RowLocker(pid=row["locker_pid"], application=row["locker_application"] or ""),
    )


def _operator(row: Mapping[str, Any]) -> OperatorFacts:
    return OperatorFacts(
        enabled=row["enabled"],
        circuit=Circuit(row["circuit"]),
        circuit_since=row["circuit_since"],
        consecutive_failures=row["consecutive_failures"],
        ping_at=row["ping_at"],
        ping=_other(row["ping_request_id"], Method.PING, row["ping_state"]),
        backoff_until=row["backoff_until"],
        paused_at=row["paused_at"],
        paused_by=row["paused_by"],
        pause_reason=row["pause_reason"],
    )


def _other(request_id: UUID | None, method: str | None, state: str | None) -> OtherCallback | None:
    if request_id is None or method is None or state is None:
        return None
    return OtherCallback(request_id=request_id, method=Method(method), state=CallbackState(state))


def _file(path: Path) -> FileFacts:
    # os.path and not Path.exists, which raises where the folder is closed to us.
    if not os.path.lexists(path):
        return FileFacts(path=str(path), state=FileState.MISSING)
    try:
        read_operator(path, os.environ)
    except ConfigError as error:
        return FileFacts(path=str(path), state=FileState.FAULTY, faults=tuple(map(str, error.faults)))
    return FileFacts(path=str(path), state=FileState.USABLE)
