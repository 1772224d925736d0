"""Reads JSON records, one on each line or in one array. Numbers stay texts, digit by digit."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from predictu_dispatch.core.reconcile_settings import ReconcileColumns
from predictu_dispatch.core.settings import shown
from predictu_dispatch.reconciliation.files import RECORD_CHARS_MAX, LedgerPart
from predictu_dispatch.reconciliation.record import Record, RecordFault, misnamed_column

_DEFAULTS: Final = ReconcileColumns()
_KEYS_BYTES_MAX: Final = 1024 * 1024
"""Of the lists of keys that are remembered, about. Most ledgers have one list."""
_KEY_BYTES: Final = 64
"""What a key takes beside its characters."""
_SPACE: Final = re.compile(r"[ \t\r\n]*")


class _Unusable(NamedTuple):
    """A JSON value that is no text, and why. No exception: the reader must find the value's end."""

    why: str


def _object(pairs: list[tuple[str, object]]) -> dict[str, object] | _Unusable:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    [(name, count)] = Counter(name for name, _ in pairs).most_common(1)
    return _Unusable(f"has the key {shown(name)} {count} times")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=str,
    parse_int=str,
    parse_constant=lambda name: _Unusable(f"is {name}, which is no JSON number"),
)


def read_ndjson(part: LedgerPart, columns: ReconcileColumns) -> Iterator[Record | RecordFault]:
    """Yield the record of every line."""
    fields = _Fields(part, columns)
    for line, text in enumerate(part.lines(), 1):
        part.record_line = line + 1
        if text.isspace():
            continue
        try:
            value = _DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            yield RecordFault(line, "", f"is no JSON object on one line: {_why(error)}")
        else:
            yield fields.record(line, value)
    fields.check()


def read_json(part: LedgerPart, columns: ReconcileColumns) -> Iterator[Record | RecordFault]:
    """Yield the record of every item of the top-level array, with flat memory."""
    text = _Text(part)
    fields = _Fields(part, columns)
    if text.next() != "[":
        raise part.fault('is no JSON array of objects; for one object a line: [reconcile] format = "ndjson"')
    text.skip()
    if text.next() == "]":
        text.skip()
    else:
        while True:
            line, value = text.item()
            yield fields.record(line, value)
            delimiter = text.next()
            text.skip()
            if delimiter == "]":
                break
            if delimiter != ",":
                raise part.fault("is no JSON array of objects: a comma or ] is missing", line=text.line)
    if text.next():
        raise part.fault("has more text after its JSON array", line=text.line)
    fields.check()


class _Text:
    """The text of a part from a position on; what was read is dropped."""

    def __init__(self, part: LedgerPart) -> None:
        self.line = 1
        self._part = part
        self._texts = part.texts()
        self._text = ""
        self._at = 0

    def next(self) -> str:
        """Return the next character that is no space, without reading it; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._move(match.end() if match else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Read one character."""
        self._move(self._at + 1)

    def item(self) -> tuple[int, object]:
        """Read one object; return its line and its value."""
        beginning, line = self.next(), self.line
        if not beginning:
            raise self._part.fault("is truncated: its JSON array has no end", line=line)
        if beginning != "{":
            raise self._part.fault("is no JSON array of objects: another value is in it", line=line)
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                # The end of the object may not have been read.
                if len(self._text) - self._at > RECORD_CHARS_MAX or not self._more():
                    why = f"is no valid JSON, or an object has more than {RECORD_CHARS_MAX} characters: {_why(error)}"
                    raise self._part.fault(why, line=line) from error
            else:
                self._move(end)
                return line, value

    def _move(self, at: int) -> None:
        self.line += self._text.count("\n", self._at, at)
        self._at = at

    def _more(self) -> bool:
        chunk = next(self._texts, None)
        if chunk is None:
            return False
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return True


class _Fields:
    """Takes the mapped columns of a JSON object."""

    def __init__(self, part: LedgerPart, columns: ReconcileColumns) -> None:
        self._part = part
        self._names = columns
        self._well_named: set[tuple[str, ...]] = set()
        self._room = _KEYS_BYTES_MAX
        self._columns = {ours: theirs for ours, theirs in columns if theirs}
        self._unseen = {theirs: ours for ours, theirs in self._columns.items() if theirs != getattr(_DEFAULTS, ours)}
        self._is_empty = True

    def record(self, line: int, value: object) -> Record | RecordFault:
        """Return the record of a JSON value."""
        self._is_empty = False
        if not isinstance(value, dict):
            return RecordFault(line, "", value.why if isinstance(value, _Unusable) else "is no JSON object")
        if why := self._misnamed(tuple(value)):
            return RecordFault(line, "", why)
        for theirs in [*self._unseen]:
            if theirs in value:
                del self._unseen[theirs]
        fields = {ours: value.get(theirs) for ours, theirs in self._columns.items()}
        for ours, field in fields.items():
            if field is not None and not isinstance(field, str):
                why = field.why if isinstance(field, _Unusable) else "is neither text nor a number"
                return RecordFault(line, self._columns[ours], why)
        return Record(line, fields)

    def _misnamed(self, keys: tuple[str, ...]) -> str:
        if keys in self._well_named:
            return ""
        why = misnamed_column(keys, self._names)
        if not why and self._room > 0:
            self._room -= sum(len(key) + _KEY_BYTES for key in keys)
            self._well_named.add(keys)
        return why

    def check(self) -> None:
        """Raise LedgerFileError if no record had a column that the operator's file names."""
        if self._unseen and not self._is_empty:
            theirs, ours = next(iter(self._unseen.items()))
            raise self._part.fault(f"no record has {shown(theirs)} ([reconcile.columns] {ours})")


def _why(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
