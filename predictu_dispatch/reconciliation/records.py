"""Reads the records of a ledger's part in each format, with our names of the columns.

A record that cannot be read is a RecordFault, and the next one follows. What makes the rest of the
part unreadable raises LedgerFileError.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from predictu_dispatch.core.reconcile_settings import ReconcileColumns, ReconcileSettings
from predictu_dispatch.core.settings import shown
from predictu_dispatch.reconciliation.files import LedgerPart
from predictu_dispatch.reconciliation.json_records import read_json, read_ndjson
from predictu_dispatch.reconciliation.record import Record, RecordFault, misnamed_column

_DELIMITERS: Final = ",;\t|"
_COLUMNS_SHOWN: Final = 20
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:", re.ASCII)
_CSV_FAULTS: Final = {
    "unexpected end of data": "a quote is not closed",
    "expected after": "a quote ends within a value; a quote in a value must be doubled",
    "field larger than": "a value is too long; a quote may not be closed",
    "new-line character": "a carriage return that is not followed by a newline",
}
"""What Python's messages mean."""


def read_records(part: LedgerPart, settings: ReconcileSettings) -> Iterator[Record | RecordFault]:
    """Yield every record of a part; raises LedgerFileError."""
    match settings.format:
        case "csv":
            return _read_csv(part, settings)
        case "ndjson":
            return read_ndjson(part, settings.columns)
        case "json":
            return read_json(part, settings.columns)


class _Header(NamedTuple):
    """The first line of a CSV file."""

    delimiter: str
    names: Sequence[str]


def _read_csv(part: LedgerPart, settings: ReconcileSettings) -> Iterator[Record | RecordFault]:
    lines = part.lines()
    header = _header(next(lines, ""), part, settings)
    columns = [(ours, header.names.index(theirs)) for ours, theirs in settings.columns if theirs in header.names]
    is_last_used = any(index == len(header.names) - 1 for _, index in columns)
    width = len(header.names)
    reader = csv.reader(lines, delimiter=header.delimiter, strict=True)
    line = part.record_line = 2
    try:
        for fields in reader:
            if reader.line_num + 2 - line > 1 and (fault := _hidden_lines(line, fields, header)):
                yield fault
            elif len(fields) == width and not (part.is_cut and is_last_used):
                record = {ours: fields[index] for ours, index in columns}
                yield Record(line, record) if '"' not in "".join(record.values()) else _quoted(line, record, settings)
            elif fields:  # Else it is an empty line.
                yield _fault(line, fields, header)
            line = part.record_line = reader.line_num + 2
    except csv.Error as error:
        # Quotes decide where a line ends: after a wrong one, no later line is certain.
        raise part.fault(f"is no valid CSV: {_why(error)}", line=line) from error


def _why(error: csv.Error) -> str:
    return next((why for beginning, why in _CSV_FAULTS.items() if beginning in str(error)), str(error))


def _fault(line: int, fields: list[str], header: _Header) -> RecordFault:
    if len(fields) != len(header.names):
        return RecordFault(line, "", f"has {len(fields)} fields; the header has {len(header.names)}")
    return RecordFault(line, header.names[-1], "has no line end, so the file may be truncated within this value")


def _hidden_lines(line: int, fields: list[str], header: _Header) -> RecordFault | None:
    """Return why a value of several lines is not read: it looks like whole records.

    A quote that was not doubled, and another one further down, make one value of all between them:
    with the delimiters of a record and the time of a booking.
    """
    for name, value in zip(header.names, fields, strict=False):
        if "\n" in value and value.count(header.delimiter) >= len(header.names) - 1 and _TIME.search(value):
            return RecordFault(line, name, "has whole lines in it; a quote in a value must be doubled")
    return None


def _quoted(line: int, record: Mapping[str, str], settings: ReconcileSettings) -> RecordFault:
    # No id has one; it may come from a quote that is missing or not doubled.
    ours, value = next((ours, value) for ours, value in record.items() if '"' in value)
    return RecordFault(line, getattr(settings.columns, ours), f"{shown(value)} has a quote in it")


def _header(line: str, part: LedgerPart, settings: ReconcileSettings) -> _Header:
    """Return the header with the delimiter under which it has all required columns."""
    if not line.strip():
        raise part.fault("has no header: its first line must have the names of the columns")
    headers = [header for delimiter in _DELIMITERS if (header := _split(line, delimiter)) is not None]
    if not headers:
        raise part.fault("is no valid CSV: its header has a wrong quote", line=1)
    header = min(headers, key=lambda one: (len(_missing(one.names, settings)), -len(one.names)))
    if missing := _missing(header.names, settings):
        raise part.fault(
            f"has {', '.join(missing)}: name its columns under [reconcile.columns]. They are {_shown(header.names)}"
        )
    if why := misnamed_column(header.names, settings.columns):
        raise part.fault(why, line=1)
    if any('"' in name for name in header.names):
        raise part.fault(f"has a quote in the name of a column: {_shown(header.names)}", line=1)
    for name, count in Counter(header.names).items():
        if name and count > 1:
            raise part.fault(f"has {count} columns {shown(name)}")
    return header


def _split(line: str, delimiter: str) -> _Header | None:
    try:
        return _Header(delimiter, next(csv.reader([line], delimiter=delimiter, strict=True)))
    except csv.Error:
        return None


def _missing(names: Sequence[str], settings: ReconcileSettings) -> list[str]:
    """Return what a header lacks."""
    columns = settings.columns
    lacking = {ours: theirs for ours, theirs in columns if theirs and theirs not in names}
    required = [ours for ours, theirs in columns if theirs != _DEFAULTS[ours]] + ["booked_at", "amount"]
    if "" not in settings.values.currency:
        required.append("currency")
    missing = [
        f"no column {shown(lacking[ours])}{f' for {ours}' if lacking[ours] != ours else ''}"
        for ours in dict.fromkeys(required)
        if ours in lacking
    ]
    if not any(theirs in names for theirs in (columns.request_id, columns.transaction_id, columns.bet_id) if theirs):
        missing.append("no column for request_id, transaction_id or bet_id")
    has_direction = any(theirs in names for theirs in (columns.method, columns.direction) if theirs)
    has_constant = settings.values.method.get("") or settings.values.direction.get("")
    if settings.amount_sign == "none" and not has_direction and not has_constant:
        missing.append('no column for method or direction ([reconcile] amount_sign is "none")')
    return missing


_DEFAULTS: Final[Mapping[str, str]] = ReconcileColumns().model_dump()


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _COLUMNS_SHOWN} more" if len(names) > _COLUMNS_SHOWN else ""
    return ", ".join(shown(name) for name in names[:_COLUMNS_SHOWN]) + more
