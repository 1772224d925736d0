"""Reads the facts about one callback that `why` judges by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar
from uuid import UUID

from predictu_dispatch.core.breaker import Circuit
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.diagnosis_facts import (
    AHEAD_COUNT_MAX,
    CallbackFacts,
    DaemonFacts,
    Facts,
    FileFacts,
    LastAttempt,
    LastIntervention,
    OperatorFacts,
    OtherCallback,
    RowLocker,
)
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.sql_files import query

_T = TypeVar("_T")

_ENUMS: Final[Mapping[str, Any]] = {
    "method": Method,
    "lane": Lane,
    "state": CallbackState,
    "effect": Effect,
    "circuit": Circuit,
}


async def callbacks_with_id(database: Database, request_id: UUID, operator_id: str | None) -> list[Mapping[str, Any]]:
    """The callbacks with this id, one per operator."""
    return await database.fetch(query("why_callback"), request_id, operator_id)


async def read_facts(database: Database, row: Mapping[str, Any], file: FileFacts) -> Facts:
    """The facts about a callback, and about the callback that it waits for."""
    operator_id, lane = row["operator_id"], row["lane"]
    earlier = None
    if row["state"] == CallbackState.WAITING and row["other_request_id"] is not None:
        # A placement never waits itself, so the recursion ends here.
        (placement,) = await callbacks_with_id(database, row["other_request_id"], operator_id)
        earlier = await read_facts(database, placement, file)
    (ahead,) = await database.fetch(query("why_ahead"), operator_id, lane, row["due_at"], AHEAD_COUNT_MAX + 1)
    daemons = await database.fetch(query("why_daemons"), operator_id, lane)
    return Facts(
        at=row["at"],
        callback=_record(
            CallbackFacts,
            row,
            other=_optional(OtherCallback, row, "other_"),
            last_attempt=_optional(LastAttempt, row, "last_attempt_"),
            last_intervention=_optional(LastIntervention, row, "last_intervention_"),
            row_locker=_optional(RowLocker, row, "row_locker_"),
        ),
        operator=_record(OperatorFacts, row, ping=_optional(OtherCallback, row, "ping_")),
        daemons=tuple(_record(DaemonFacts, daemon) for daemon in daemons),
        file=file,
        ahead=ahead["in_lane"],
        interactive_due=ahead["interactive"],
        earlier=earlier,
    )


def _record(kind: type[_T], row: Mapping[str, Any], prefix: str = "", **nested: object) -> _T:
    """A record from the columns that are named after its fields."""
    names = [field.name for field in fields(kind) if field.name not in nested]  # type: ignore[arg-type] # a dataclass
    values = {name: row[prefix + name] for name in names}
    return kind(**{name: _ENUMS[name](value) if name in _ENUMS else value for name, value in values.items()}, **nested)


def _optional(kind: type[_T], row: Mapping[str, Any], prefix: str) -> _T | None:
    """As `_record`; None if a left join found no row, so that the first column is null."""
    first = fields(kind)[0].name  # type: ignore[arg-type] # a dataclass
    return None if row[prefix + first] is None else _record(kind, row, prefix)
