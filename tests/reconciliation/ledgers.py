"""Writes ledger files of a test and reads them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from predictu_dispatch.core.reconcile_settings import ReconcileSettings
from predictu_dispatch.reconciliation.files import LedgerFileError, LedgerPart, _Unpacked, open_ledger
from predictu_dispatch.reconciliation.record import Record, RecordFault
from predictu_dispatch.reconciliation.records import read_records

HEADER = ("booked_at", "amount", "currency", "request_id", "transaction_id", "bet_id", "method", "player_id", "note")


def written(rows: Iterable[Sequence[object]], *, header: Sequence[str] = HEADER, **dialect: Any) -> bytes:
    """Return a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, **dialect)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def row(number: int = 1, **values: str) -> list[str]:
    """Return a usual row."""
    usual = {
        "booked_at": "2026-11-21T10:00:00Z",
        "amount": f"-{number}",
        "currency": "EUR",
        "transaction_id": f"tx-{number}",
        "bet_id": f"bet-{number}",
        "method": "BET_MAKE",
    }
    return [{**usual, **values}.get(name, "") for name in HEADER]


def records(path: Path, **settings: Any) -> list[Record | RecordFault]:
    """Return all records of a file; raises LedgerFileError."""
    read: list[Record | RecordFault] = []
    with open_ledger(path) as ledger:
        for part in ledger.parts():
            read += read_records(part, ReconcileSettings.model_validate(settings))
    return read


def of(content: bytes, folder: Path, *, name: str = "ledger.csv", **settings: Any) -> list[Record | RecordFault]:
    """Return all records of a file with this content."""
    path = folder / name
    path.write_bytes(content)
    return records(path, **settings)


def in_memory(content: bytes, **settings: Any) -> list[Record | RecordFault]:
    """Return all records of this content, for tests with many examples."""
    part = LedgerPart("ledger.csv", io.BytesIO(content), _Unpacked(None))
    return [*read_records(part, ReconcileSettings.model_validate(settings))]


def fault_of(content: bytes, folder: Path, *, name: str = "ledger.csv", **settings: Any) -> str:
    """Return why a file with this content cannot be read."""
    try:
        read = of(content, folder, name=name, **settings)
    except LedgerFileError as error:
        return str(error)
    raise AssertionError(read)


def amounts(read: list[Record | RecordFault]) -> list[str | None]:
    """Return the amounts of records; a fault is an error of the test."""
    assert all(isinstance(one, Record) for one in read), read
    return [one.fields["amount"] for one in read if isinstance(one, Record)]
