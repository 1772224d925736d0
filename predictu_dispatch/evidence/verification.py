"""`audit verify`: compares every stored row with its operator's log, and the log with itself.

Theory of operation. Heads, removals and the position are read in one snapshot. Then each log's
leaves are read up to its head: they build its tree again (log_check.py), and they are subtracted
from the sums of multiset.py, to which the rows are added, month by month. If every sum is zero, no
row was changed, removed, added or copied. Otherwise the entries of the sums that are not zero are
read once more and named (differences.py). Rows that were committed after the last sealing are no
part of the comparison: they are pending.

Nothing here trusts a function of the database; see entry_sql.py. It trusts the server's own
sha256(), and that the server answers from its tables.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from predictu_dispatch.core.merkle.tiles import HASH_BYTES, TILE_WIDTH, width_of
from predictu_dispatch.edge.postgres.audit_reader import AuditPosition, AuditReader
from predictu_dispatch.evidence.differences import Differences, Leaf
from predictu_dispatch.evidence.entry_sql import SOURCES, EntrySource, rows_statement
from predictu_dispatch.evidence.faults import Fault, FaultKind, Faults
from predictu_dispatch.evidence.log_check import LogCheck, LogHead
from predictu_dispatch.evidence.log_pages import CheckpointPages, LeafPage, leaf_pages
from predictu_dispatch.evidence.multiset import ID_BYTES, SUMS, Multisets, sum_of
from predictu_dispatch.evidence.ranges import Ranges
from predictu_dispatch.evidence.schema_check import hiding, schema_differences
from predictu_dispatch.evidence.verification_result import LogResult, NotVerifiableError, Request, Verification

UNSEALED_MAX: Final = timedelta(minutes=5)
_REMOVED_AFTER: Final = timedelta(days=28)
"""Retention keeps every month for a month at least."""
_NAMED_MAX: Final = 1_000_000
"""About this many entries are compared one by one; differences of further ones are not named."""
_RUNS_MAX: Final = 3
"""A run during which retention removed something begins again."""


async def verify(reader: AuditReader, request: Request) -> Verification:
    """Verify once, or again if retention removed something meanwhile. Raises NotVerifiableError."""
    for _ in range(_RUNS_MAX - 1):
        run = _Run(reader, request)
        result = await run.execute()
        if not run.removals_changed:
            return result
    return await _Run(reader, request).execute()


class _Run:
    def __init__(self, reader: AuditReader, request: Request) -> None:
        self._reader = reader
        self._request = request
        self._sums = Multisets(secrets.token_bytes(32))
        self._removed: dict[str, Ranges] = {}
        self._pending: Counter[str] = Counter()
        self._pending_since: dict[str, datetime] = {}
        self._position: AuditPosition
        self._months: Sequence[Any] = ()
        self._sizes: dict[str, int] = {}
        self.removals_changed = False

    async def execute(self) -> Verification:
        operator_id = self._request.operator_id
        async with self._reader.one_snapshot():
            position = await self._reader.position()
            logs = await self._reader.fetch("audit_logs", operator_id)
            removals = await self._reader.fetch("audit_removals", operator_id)
            self._months = await self._reader.fetch("audit_months")
            schema = await self._reader.fetch("audit_schema")
        await self._refuse_detached_months()
        if position is None:
            raise NotVerifiableError("nothing was sealed yet")
        if not position.is_same_cluster:
            raise NotVerifiableError(
                "this database was restored from a dump and nothing was sealed since, so it is not known which rows"
                " are new; start a daemon that has [audit] origin, and verify then"
            )
        if operator_id is not None and not logs:
            raise NotVerifiableError(f"unknown operator {operator_id}")
        self._position = position
        result = Verification(
            read_at=position.read_at, sealed_at=position.sealed_at, has_backlog=position.backlog is not None
        )
        self._read_removals(removals, result.faults)
        for log in logs:
            if log["origin"] is None or log["size"] is None:
                self._without_log(log, result)
            else:
                self._sizes[log["operator_id"]] = log["size"]
                result.logs[log["operator_id"]] = await self._check_log(log, result.faults)
        self._note_lost_logs(result)
        for subject in hiding(schema):
            for operator in result.logs:
                result.faults.add(_fault(operator, FaultKind.VIEW, subject))
        result.warnings = schema_differences(schema)
        await self._add_rows()
        result.rows = self._sums.rows
        await self._name_differences(result)
        for operator, pending in self._pending.items():
            self._note_pending(operator, pending, result)
        again = await self._reader.fetch("audit_removals", operator_id)
        self.removals_changed = [each["removal_id"] for each in again] != [each["removal_id"] for each in removals]
        await self._refuse_detached_months()
        return result

    async def _refuse_detached_months(self) -> None:
        """Between detaching a month and recording its removal, its rows cannot be read."""
        if detached := await self._reader.fetch("audit_detached"):
            parts = ", ".join(row["part"] for row in detached)
            raise NotVerifiableError(
                f"retention has detached {parts} and has not recorded the removal yet;"
                " let predictu-dispatch retain finish, and verify then"
            )

    def _read_removals(self, removals: Sequence[Any], faults: Faults) -> None:
        found: dict[str, list[tuple[int, int]]] = {}
        for row in removals:
            ranges = Ranges(map(tuple, row["leaf_ranges"]))
            self._check_age(row, faults)
            if ranges.sha256 == row["leaf_indices_sha256"]:
                found.setdefault(row["operator_id"], []).extend(map(tuple, row["leaf_ranges"]))
            else:
                subject = f"removal {row['removal_id']} of {row['part']}"
                faults.add(
                    _fault(row["operator_id"], FaultKind.REMOVAL, subject, "its entries are not those that were sealed")
                )
        self._removed = {operator: Ranges(ranges) for operator, ranges in found.items()}

    def _check_age(self, row: Mapping[str, Any], faults: Faults) -> None:
        """Retention removes no new rows, so such a removal is a fault: it may be forged."""
        detail = ""
        if row["too_young"] is not None:
            detail = f"every attempt in tile 0/{row['too_young']} began after its cutoff, {row['cutoff']:%Y-%m-%d}"
        elif row["removed_at"] - row["cutoff"] < _REMOVED_AFTER:
            detail = f"its cutoff, {row['cutoff']:%Y-%m-%d}, is younger than a month"
        if detail:
            subject = f"removal {row['removal_id']} of {row['part']}"
            faults.add(_fault(row["operator_id"], FaultKind.REMOVAL, subject, detail))

    def _without_log(self, log: Mapping[str, Any], result: Verification) -> None:
        operator_id, faults = log["operator_id"], result.faults
        earlier = max(filter(None, (log["verified_size"], log["witnessed_size"], log["checkpoint_size"])), default=0)
        if log["origin"] is not None or log["size"] is not None or earlier or log["tiles_size"]:
            what = "its head is missing" if log["origin"] is not None else "its audit_log row is missing"
            seen = max(earlier, log["tiles_size"])
            faults.add(_fault(operator_id, FaultKind.LOG_MISSING, "the log", f"{what}; it had at least {seen} entries"))
        elif log["needs_log"]:
            faults.add(
                _fault(operator_id, FaultKind.LOG_MISSING, "the log", "there is none, although others were sealed")
            )
        elif log["verified_at"] is not None:
            result.without_log.append(operator_id)

    def _note_lost_logs(self, result: Verification) -> None:
        found = {log.origin for log in result.logs.values()}
        for each in self._request.outside:
            if each.origin not in found:
                operator_id = self._request.operator_id or each.origin.rpartition("/")[2]
                detail = f"the log {each.origin} is not here"
                result.faults.add(_fault(operator_id, FaultKind.LOG_MISSING, each.source, detail))

    async def _check_log(self, log: Mapping[str, Any], faults: Faults) -> LogResult:
        operator_id, origin, size = log["operator_id"], log["origin"], log["size"]
        check = LogCheck(
            operator_id=operator_id,
            origin=origin,
            head=LogHead(size, log["root"], log["checkpoint"]),
            keys=self._request.keys.of_log(origin),
            witnesses=self._request.keys.witnesses,
            faults=faults,
        )
        removed = self._removed.get(operator_id, Ranges())
        outside = [each for each in self._request.outside if each.origin == origin]
        checkpoints = CheckpointPages(self._reader, operator_id, outside)
        check.append(b"", await checkpoints.up_to(0))
        async for page in leaf_pages(self._reader, operator_id, size):
            if page.first == 0 and page.ids[:ID_BYTES] != log["start_id"].bytes:
                faults.add(_fault(operator_id, FaultKind.START, "the log", index=0))
            self._compare_with_export(operator_id, origin, page, faults)
            for part in removed.outside_of(page.first, page.end):
                begin, end = part.first - page.first, part.end - page.first
                ids, hashes = (
                    page.ids[begin * ID_BYTES : end * ID_BYTES],
                    page.hashes[begin * HASH_BYTES : end * HASH_BYTES],
                )
                self._sums.subtract_leaves(operator_id, ids, hashes)
            check.append(page.hashes, await checkpoints.up_to(page.end))
        if check.tree.size < size:
            tile = f"tile 0/{check.tree.size // TILE_WIDTH}"
            detail = f"the entries {check.tree.size} to {size - 1} are missing"
            faults.add(_fault(operator_id, FaultKind.TILE, tile, detail))
        for each in checkpoints.rest_of_outside():
            detail = f"it is of {each.size} entries, and the log has {check.tree.size}"
            faults.add(_fault(operator_id, FaultKind.OUTSIDE, each.source, detail))
        for what, seen in (
            ("a checkpoint", log["checkpoint_size"]),
            ("an earlier verification", log["verified_size"]),
            ("a witness", log["witnessed_size"]),
        ):
            if (seen or 0) > size:
                detail = f"{what} is of {seen} entries, and the log has {size}"
                faults.add(_fault(operator_id, FaultKind.SHRUNK, "the log", detail))
        upper = await self._reader.fetch("audit_upper_tiles", operator_id)
        check.finish(_cut(upper, size), log["tiles_size"])
        return LogResult(
            operator_id=operator_id,
            origin=origin,
            size=size,
            checkpoints=check.checkpoints,
            cosignatures=check.cosignatures,
            removed=size - sum(part.end - part.first for part in removed.outside_of(0, size)),
        )

    def _compare_with_export(self, operator_id: str, origin: str, page: LeafPage, faults: Faults) -> None:
        for first in range(page.first, page.end, TILE_WIDTH):
            earlier = self._request.earlier_hashes(origin, first // TILE_WIDTH)
            now = page.hashes[(first - page.first) * HASH_BYTES :][: len(earlier)]
            if earlier != now:
                differ = [
                    at
                    for at in range(0, len(now), HASH_BYTES)
                    if earlier[at : at + HASH_BYTES] != now[at : at + HASH_BYTES]
                ]
                index = first + (differ[0] if differ else len(now)) // HASH_BYTES
                subject = f"the export's tile 0/{first // TILE_WIDTH}"
                faults.add(
                    _fault(operator_id, FaultKind.OUTSIDE, subject, "the exported entry is another one", index=index)
                )

    async def _add_rows(self) -> None:
        for source in SOURCES:
            async for batch in self._rows(source):
                for operator_id, at in self._sums.add_rows(batch):
                    self._pending[operator_id] += 1
                    self._pending_since[operator_id] = min(at, self._pending_since.get(operator_id, at))

    async def _rows(self, source: EntrySource, sums: Sequence[int] = ()) -> AsyncIterator[Sequence[Any]]:
        position = self._position
        arguments: list[Any] = [position.xid_offset, *position.sealed, self._request.operator_id]
        if position.backlog is not None:
            arguments += [*position.backlog, list(self._sizes), list(self._sizes.values())]
        arguments += [sums] if sums else []
        for first, until in self._months if source.is_partitioned else [(None, None)]:
            statement = rows_statement(
                source,
                is_detailed=bool(sums),
                has_backlog=position.backlog is not None,
                is_last=until is None,
            )
            bounds = [bound for bound in (first, until) if bound is not None]
            async for batch in self._reader.rows(statement, *arguments, *bounds):
                yield batch

    async def _name_differences(self, result: Verification) -> None:
        unbalanced = self._sums.unbalanced()
        if not unbalanced:
            return
        entries_of_sum = (self._sums.rows + self._sums.leaves) // SUMS + 1
        named = unbalanced[: max(1, _NAMED_MAX // entries_of_sum)]
        result.unnamed_sums = len(unbalanced) - len(named)
        wanted = set(named)
        differences = Differences()
        for operator_id, size in self._sizes.items():
            async for page in leaf_pages(self._reader, operator_id, size):
                for number in range(len(page.ids) // ID_BYTES):
                    entry_id = page.ids[number * ID_BYTES : (number + 1) * ID_BYTES]
                    if sum_of(entry_id) in wanted:
                        leaf_hash = page.hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]
                        differences.add_leaf(operator_id, entry_id, Leaf(page.first + number, leaf_hash))
        for source in SOURCES:
            async for batch in self._rows(source, named):
                for operator_id, record, is_pending, at, subject in batch:
                    differences.add_row(operator_id, record, is_pending=is_pending, at=at, subject=subject)
        for fault in differences.faults(self._removed):
            result.faults.add(fault)

    def _note_pending(self, operator_id: str, pending: int, result: Verification) -> None:
        if operator_id in result.logs:
            result.logs[operator_id].pending = pending
        position, since = self._position, self._pending_since[operator_id]
        if position.read_at - position.sealed_at > UNSEALED_MAX and position.read_at - since > UNSEALED_MAX:
            detail = f"{pending} rows wait to be sealed; the oldest is of {since:%Y-%m-%dT%H:%M:%SZ}"
            result.faults.add(_fault(operator_id, FaultKind.UNSEALED, "the log", detail))


def _fault(operator_id: str, kind: FaultKind, subject: str, detail: str = "", *, index: int | None = None) -> Fault:
    return Fault(operator_id=operator_id, kind=kind, subject=subject, detail=detail, index=index)


def _cut(tiles: Sequence[Any], size: int) -> dict[tuple[int, int], bytes]:
    """The tiles above level 0 as far as they belong to a tree of this size: it may have grown."""
    cut = {}
    for row in tiles:
        if width := width_of(row["level"], row["tile"], size):
            cut[row["level"], row["tile"]] = row["hashes"][: width * HASH_BYTES]
    return cut
