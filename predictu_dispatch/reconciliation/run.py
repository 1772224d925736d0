"""One run: begins, loads the ledger, classifies, and returns the result.

A run that fails or is cancelled leaves nothing that counts; it also removes its lines.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from predictu_dispatch.core.accounting_days import AccountingDays
from predictu_dispatch.core.database import DatabaseUnavailable, Refused
from predictu_dispatch.core.difference_classes import DifferenceClass
from predictu_dispatch.core.ledger_line import Ignored, LedgerLine, LineFault, read_line
from predictu_dispatch.core.reconcile_settings import ReconcileSettings
from predictu_dispatch.edge.postgres.reconciliation_store import ReconciliationStore, as_json
from predictu_dispatch.reconciliation.amount_unit import common_factor, format_fault, unit_fault
from predictu_dispatch.reconciliation.files import LedgerFile, LedgerPart
from predictu_dispatch.reconciliation.loading import UNREADABLE_MAX, Loaded, Parse, load
from predictu_dispatch.reconciliation.record import RecordFault
from predictu_dispatch.reconciliation.records import read_records
from predictu_dispatch.reconciliation.result import Changes, DaySum, RunResult, Total

_REMOVAL_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is reconciled."""

    operator_id: str
    file: str
    """The operator's file, for messages."""
    settings: ReconcileSettings
    days: AccountingDays
    first_day: date
    last_day: date
    done_by: str

    def edges(self) -> list[datetime]:
        """The first moments of all days, and the period's end."""
        return self.days.edges(self.first_day, self.last_day)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The open files of the ledger, and the period that they cover if that is known."""

    files: Sequence[LedgerFile]
    asked_from: datetime | None = None
    asked_until: datetime | None = None


async def currency_digits(store: ReconciliationStore) -> dict[str, int]:
    """Return the decimals of every known currency."""
    return {row["currency"]: row["minor_digits"] for row in await store.fetch("currencies")}


async def reconcile(
    store: ReconciliationStore, request: Request, ledger: Ledger, digits: Mapping[str, int]
) -> RunResult:
    """Compare our records with this ledger.

    Raises what reading it raises, and the errors of core/database.py.
    """
    edges, settings = request.edges(), request.settings
    [begun] = await store.fetch(
        "reconciliation_begin",
        request.operator_id,
        request.first_day,
        request.last_day,
        settings.time_zone,
        request.days.day_starts,
        edges,
        settings.settle_s,
        settings.no_end_days,
        request.done_by,
    )
    run_id: UUID = begun["run_id"]
    try:
        loaded = await load(store, request.operator_id, run_id, ledger.files, _parse(request, digits))
        await _refuse_repeated(store, request.operator_id, run_id, loaded)
        await _finish(store, request, run_id, ledger, loaded, edges=edges, cut_at=begun["cut_at"])
    except BaseException:
        await _remove_lines(store, request.operator_id, run_id)
        raise
    return await _result(store, request, run_id, loaded, digits)


def _parse(request: Request, digits: Mapping[str, int]) -> Parse:
    def parse(part: LedgerPart) -> Iterator[tuple[int, LedgerLine | LineFault | Ignored]]:
        for record in read_records(part, request.settings):
            if isinstance(record, RecordFault):
                yield record.line, LineFault(column=record.column, why=record.why)
            else:
                yield record.line, read_line(record.fields, request.settings, request.days, digits)

    return parse


async def _refuse_repeated(store: ReconciliationStore, operator_id: str, run_id: UUID, loaded: Loaded) -> None:
    """Count lines that repeat another one as unreadable: nobody books the same twice."""
    for row in await store.fetch("reconciliation_repeated", operator_id, run_id):
        source = loaded.sources[row["source"]]
        first_lines = json.loads(row["first_lines"])
        for one in first_lines:
            name = loaded.sources[one["first_source"]].name
            loaded.refuse(row["source"], one["line"], "", f"repeats line {one['first_line']:,} of {name}")
        source.unreadable += row["lines"] - len(first_lines)
        source.read -= row["lines"]


async def _finish(
    store: ReconciliationStore,
    request: Request,
    run_id: UUID,
    ledger: Ledger,
    loaded: Loaded,
    *,
    edges: Sequence[datetime],
    cut_at: datetime,
) -> None:
    given_from = ledger.asked_from or min(edges[0], loaded.first_at or edges[0])
    given_until = ledger.asked_until or max(cut_at, loaded.last_at or cut_at)
    if loaded.unreadable_count and not loaded.read:
        # No booking can be called missing.
        given_from = given_until = cut_at
    await store.fetch(
        "reconciliation_finish",
        request.operator_id,
        run_id,
        as_json([source.summary()._asdict() for source in loaded.sources]),
        loaded.read,
        loaded.ignored,
        loaded.unreadable_count,
        as_json([one._asdict() for one in loaded.unreadable[:UNREADABLE_MAX]]),
        given_from,
        given_until,
    )


async def _remove_lines(store: ReconciliationStore, operator_id: str, run_id: UUID) -> None:
    """Remove the run's lines if the connection still works; else the next run does it."""
    with suppress(DatabaseUnavailable, Refused, TimeoutError):
        async with asyncio.timeout(_REMOVAL_S):
            await store.fetch("reconciliation_remove_lines", operator_id, run_id)


async def _result(
    store: ReconciliationStore, request: Request, run_id: UUID, loaded: Loaded, digits: Mapping[str, int]
) -> RunResult:
    key = (request.operator_id, run_id)
    [row] = await store.fetch("reconciliation_run", *key)
    totals = tuple(total_of(one) for one in await store.fetch("reconciliation_totals", *key))
    edges = request.edges()
    return RunResult(
        operator_id=request.operator_id,
        run_id=run_id,
        first_day=request.first_day,
        last_day=request.last_day,
        time_zone=request.settings.time_zone,
        day_starts=request.days.day_starts,
        starts_at=edges[0],
        ends_at=edges[-1],
        cut_at=row["cut_at"],
        given_from=row["given_from"],
        given_until=row["given_until"],
        sources=tuple(source.summary() for source in loaded.sources),
        unreadable=tuple(loaded.unreadable),
        rows_ours=row["rows_ours"],
        totals=totals,
        sums=tuple(sum_of(one) for one in json.loads(row["sums"])),
        is_complete=row["is_complete"],
        accepted=row["accepted"],
        accepted_contradictions=row["accepted_contradictions"],
        changes=None if row["is_first"] else Changes(row["opened"], row["closed"]),
        digits=digits,
        first_sent_at=row["first_sent_at"],
        format_fault=_unit_fault(request, loaded) or await _factor_fault(store, request, run_id, totals, digits),
    )


def _unit_fault(request: Request, loaded: Loaded) -> str:
    if loaded.read or loaded.faulty_columns.keys() != {request.settings.columns.amount}:
        return ""
    whys = [one.why for one in loaded.unreadable]
    return unit_fault(whys=whys, amount_format=request.settings.amount_format, file=request.file)


async def _factor_fault(
    store: ReconciliationStore, request: Request, run_id: UUID, totals: Sequence[Total], digits: Mapping[str, int]
) -> str:
    if not any(total.name is DifferenceClass.AMOUNT_DIFFERS for total in totals):
        return ""
    rows = await store.fetch("reconciliation_amounts", request.operator_id, run_id)
    factor = common_factor(totals, [json.loads(row["amounts"]) for row in rows], digits)
    if factor is None:
        return ""
    return format_fault(factor, amount_format=request.settings.amount_format, file=request.file)


def total_of(row: Mapping[str, Any]) -> Total:
    """The row of reconciliation_total."""
    return Total(
        DifferenceClass(row["class"]),
        row["currency"],
        row["day"],
        row["items"],
        row["rows_ours"],
        row["rows_theirs"],
        int(row["ours"]),
        int(row["theirs"]),
        int(row["disputed"]),
        int(row["owed"]),
    )


def sum_of(one: Mapping[str, Any]) -> DaySum:
    """An element of reconciliation_run.sums."""
    return DaySum(one["currency"], date.fromisoformat(one["day"]), int(one["ours"]), int(one["theirs"]))
