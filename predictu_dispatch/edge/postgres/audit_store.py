"""The audit's logs in the database: reads unsealed rows, appends entries, reads heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from predictu_dispatch.core.merkle.tree import EMPTY_ROOT
from predictu_dispatch.core.sealing import (
    BacklogStep,
    GrowingLog,
    GrownLog,
    LastVerification,
    LogHead,
    LogHeads,
    StoredCheckpoint,
    TileWrite,
    Turn,
)
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.sql_files import query

_TIMEOUT_S: Final = 60.0
"""A hundred times what 10,000 rows take."""
_COUNT_TIMEOUT_S: Final = 3600.0
"""The logs' beginning counts the rows of the whole audit."""


class AuditStore:
    """The logs for one daemon.

    Reading and appending have a session of their own and take no connection of deliveries.
    It is kept, because a new one costs as much as a thousand rows.
    """

    def __init__(self, database: Database, *, instance: str) -> None:
        self._database = database
        self._instance = instance
        self._session = database.keep_session()

    async def _fetch(self, statement: str, *args: Any, timeout_s: float) -> list[Any]:  # noqa: ANN401 - as SQL's types
        return await self._database.fetch_apart(statement, *args, timeout_s=timeout_s, kept=self._session)

    async def claim(self, *, every_s: float) -> bool:
        """Whether this daemon seals for the fleet in this interval."""
        [row] = await self._database.fetch(query("claim_chore"), "seal", every_s, self._instance)
        return bool(row["is_claimed"])

    async def unsealed(self, *, most: int, span: int) -> Turn | None:
        """Read the next unsealed rows; None if logs must begin first.

        After a restore into another cluster it first moves the position there.
        """
        while True:
            rows = await self._fetch(query("audit_unsealed"), most, span, timeout_s=_TIMEOUT_S)
            match rows[0]["needs"]:
                case "begin":
                    return None
                case "restore":
                    await self._fetch(query("audit_restore"), timeout_s=_COUNT_TIMEOUT_S)
                case _:
                    break
        return Turn(
            revision=rows[0]["revision"],
            sealed_until=rows[0]["sealed_until"],
            sealed_at=rows[0]["sealed_at"],
            is_behind=rows[0]["is_behind"],
            has_backlog=rows[0]["has_backlog"],
            **_logs(rows),
        )

    async def backlog(self, *, blocks: int) -> Turn | None:
        """The next step of the backlog, or None if there is no backlog."""
        rows = await self._fetch(query("audit_backlog"), blocks, timeout_s=_COUNT_TIMEOUT_S)
        if not rows:
            return None
        first = rows[0]
        step = BacklogStep(part=first["backlog_part"], source=first["backlog_source"], block=first["backlog_block"])
        return Turn(revision=first["revision"], has_backlog=True, backlog=step, **_logs(rows))

    async def append(self, turn: Turn, grown: Sequence[GrownLog]) -> list[StoredCheckpoint] | None:
        """Append what has grown; returns the checkpoints that were stored.

        None if another daemon has appended since the turn was read: then nothing was changed.
        """
        step = turn.backlog
        tiles = [(log.operator_id, tile) for log in grown for tile in log.tiles]
        rows = await self._fetch(
            query("audit_append"),
            turn.revision,
            turn.sealed_until,
            turn.sealed_at,
            *((None, None, None) if step is None else (step.part, step.source, step.block)),
            *([getattr(log, name) for log in grown] for name in ("operator_id", "size", "root", "checkpoint")),
            [operator_id for operator_id, _ in tiles],
            # A tile's fields are the parameters, in their order.
            *([tile[field] for _, tile in tiles] for field in range(len(TileWrite._fields))),
            timeout_s=_TIMEOUT_S,
        )
        if not rows[0]["is_appended"]:
            return None
        return [StoredCheckpoint(*(row[name] for name in StoredCheckpoint._fields)) for row in rows[1:]]

    async def begin(self, origin: str, operator_ids: Sequence[str]) -> list[str]:
        """Begin the logs of these operators and of all that have none; returns their ids."""
        [row] = await self._fetch(query("audit_begin"), origin, list(operator_ids), timeout_s=_COUNT_TIMEOUT_S)
        return list(row["begun"])

    async def rescan(self) -> None:
        """Make every stored row the backlog again."""
        await self._fetch(query("audit_rescan"), timeout_s=_TIMEOUT_S)

    async def summarize(self) -> None:
        """Summarize new pages in the BRIN indexes, so that unsealed() reads each page once."""
        await self._fetch(query("audit_summarize"), timeout_s=_TIMEOUT_S)

    async def heads(self) -> LogHeads | None:
        """All heads, or None before the first log has begun."""
        rows = await self._database.fetch(query("audit_heads"))
        if not rows:
            return None
        heads = (
            LogHead(row["operator_id"], row["size"], row["checkpoint"], tuple(row["cosignatures"]))
            for row in rows
            if row["size"] is not None
        )
        verifications = (
            LastVerification(row["operator_id"], row["verified_s"], row["faults"])
            for row in rows
            if row["verified_s"] is not None
        )
        return LogHeads(rows[0]["unsealed_s"], tuple(heads), tuple(verifications))


def _logs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the logs of a turn, and the operators that have none yet. The rows are in order."""
    logs, without_log = [], []
    placed = [row for row in rows if row["operator_id"] is not None]
    for operator_id, grouped in groupby(placed, key=lambda row: row["operator_id"]):
        ours = list(grouped)
        if ours[0]["origin"] is None:
            without_log.append(operator_id)
            continue
        logs.append(
            GrowingLog(
                operator_id=operator_id,
                origin=ours[0]["origin"],
                size=ours[0]["size"],
                root=ours[0]["root"] or EMPTY_ROOT,
                right_edge={row["level"]: row["hashes"] for row in ours if not row["is_new"]},
                new=[
                    TileWrite(
                        0, row["tile"], row["hashes"], row["report_ids"], row["started_from"], row["started_until"]
                    )
                    for row in ours
                    if row["is_new"]
                ],
            )
        )
    return {"logs": logs, "without_log": without_log}
