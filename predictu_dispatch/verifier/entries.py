"""The entries that a log seals: their fields, reading one, and building one from a database row."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from .canonical import canonical, parse_object

ENTRY_BYTES_MAX: Final = 65_535
VERSION: Final = 1
_MILLISECONDS_MAX: Final = 9e12

_TIME: Final = re.compile(r"\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z( BC)?|-?infinity", re.ASCII)
_MICROSECONDS: Final = re.compile(r"NaN|-?Infinity|[0-9a-f]{16}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

Row = Mapping[str, Any]
"""A database row: datetimes with a zone, UUIDs, bytes, jsonb as the text that Postgres prints."""


def time_text(at: datetime | str | None) -> str | None:
    """UTC with the six digits that the column keeps. Text is a time that Python cannot hold."""
    if at is None or isinstance(at, str):
        return at
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def microseconds(milliseconds: float | None) -> int | str | None:
    """Whole microseconds, half to even; the bits of a number too large for that; else its name."""
    if milliseconds is None:
        return None
    if abs(milliseconds) <= _MILLISECONDS_MAX:
        return round(milliseconds * 1000)
    if math.isfinite(milliseconds):
        return struct.pack(">d", milliseconds).hex()
    return "NaN" if math.isnan(milliseconds) else "Infinity" if milliseconds > 0 else "-Infinity"


def hash_text(value: bytes | str | None) -> str | None:
    """SHA-256 in hex, of text in UTF-8."""
    if value is None:
        return None
    return sha256(value.encode() if isinstance(value, str) else value).hexdigest()


def hex_text(value: bytes | None) -> str | None:
    """A hash that the row has already."""
    return None if value is None else value.hex()


def text(value: object) -> str | None:
    """A UUID or a number as text."""
    return None if value is None else str(value)


def same(value: object) -> object:
    """A value that goes in as it is: text, an integer, a boolean."""
    return value


_Convert = Callable[[Any], object]
_Source = tuple[_Convert, str]
"""The converter of a field, and the column that it converts."""

_COPIED: Final = {
    "attempt": "attempt evidence instance key_id method operator_id peer reason response_body_repeats response_status"
    " response_truncated url verdict written_in",
    "intervention": "action bet_id database_role done_by operator_id written_in",
    "key": "algorithm kid operator_id",
    "removal": "attempts operator_id part written_in",
    "start": "attempts_before interventions_before operator_id origin written_in",
}
_MADE: Final[dict[str, dict[str, _Source]]] = {
    "attempt": {
        "connect_us": (microseconds, "connect_ms"),
        "error_sha256": (hash_text, "error"),
        "finished_at": (time_text, "finished_at"),
        "first_byte_us": (microseconds, "first_byte_ms"),
        "peer_certificate_sha256": (hex_text, "peer_certificate_sha256"),
        "report_id": (text, "report_id"),
        "request_body_sha256": (hash_text, "request_body"),
        "request_headers_sha256": (hash_text, "request_headers"),
        "request_id": (text, "request_id"),
        "response_body_stored_sha256": (hash_text, "response_body"),
        "response_headers_sha256": (hash_text, "response_headers"),
        "started_at": (time_text, "started_at"),
        "token_sha256": (hex_text, "token_sha256"),
        "total_us": (microseconds, "total_ms"),
    },
    "intervention": {
        "after_sha256": (hash_text, "after"),
        "before_sha256": (hash_text, "before"),
        "client_addr": (text, "client_addr"),
        "done_at": (time_text, "done_at"),
        "intervention_id": (text, "intervention_id"),
        "reason_sha256": (hash_text, "reason"),
        "request_id": (text, "request_id"),
    },
    "key": {"public_jwk_sha256": (hash_text, "public_jwk")},
    "removal": {
        "cutoff": (time_text, "cutoff"),
        "leaf_indices_sha256": (hex_text, "leaf_indices_sha256"),
        "removal_id": (text, "removal_id"),
        "removed_at": (time_text, "removed_at"),
    },
    "start": {
        "start_id": (text, "start_id"),
        "started_at": (time_text, "started_at"),
        "system_identifier": (text, "system_identifier"),
    },
}


def entry_of(kind: str, row: Row, event: str = "") -> bytes:
    """Build the entry of a row; of a key, `event` is "first_seen" or "retired"."""
    fields: dict[str, object] = {"kind": kind, "version": VERSION}
    fields |= {name: row[name] for name in _COPIED[kind].split()}
    fields |= {name: convert(row[column]) for name, (convert, column) in _MADE[kind].items()}
    if kind == "attempt":
        whole = row["response_body_sha256"]
        fields["response_body_sha256"] = hash_text(row["response_body"]) if whole is None else hex_text(whole)
    if kind == "key":
        fields["event"] = event
        fields["at"] = time_text(row[f"{event}_at"])
        fields["entry_id"] = text(row[f"{event}_id"])
        fields["written_in"] = row["written_in" if event == "first_seen" else "retired_in"]
    return canonical(fields)


FIELDS: Final = {
    kind: {"kind", "version", *_COPIED[kind].split(), *_MADE[kind]}
    | {"attempt": {"response_body_sha256"}, "key": {"at", "entry_id", "event", "written_in"}}.get(kind, set())
    for kind in _MADE
}
"""The fields of each kind of entry, all of them always present."""

_INTEGERS: Final = {
    *("attempt", "attempts", "attempts_before", "interventions_before", "response_body_repeats", "response_status"),
    *("version", "written_in"),
}
_IDS: Final = {"entry_id", "intervention_id", "removal_id", "report_id", "request_id", "start_id"}
_NEVER_NULL: Final = {
    "attempt": "attempt evidence finished_at instance method operator_id report_id request_id started_at verdict",
    "intervention": "action done_at done_by intervention_id operator_id",
    "key": "algorithm at entry_id event kid operator_id public_jwk_sha256",
    "removal": "attempts cutoff leaf_indices_sha256 operator_id part removal_id removed_at",
    "start": "attempts_before operator_id origin start_id started_at",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: its bytes and its fields."""

    content: bytes
    kind: str
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - each field has its own type
        return self.fields[name]


def parse_entry(content: bytes) -> Entry:
    """Read an entry. Raises ValueError for every other bytes than those that FORMAT.md allows."""
    fields = parse_object(content)
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise ValueError(f"unknown kind of entry: {str(kind)[:40]!r}")
    if fields.get("version") != VERSION:
        raise ValueError(f"this verifier knows version {VERSION} of entries, not {str(fields.get('version'))[:40]}")
    if wrong := FIELDS[kind] ^ fields.keys():
        raise ValueError(f"a field is missing or unknown: {min(wrong)[:80]}")
    for name, value in fields.items():
        _check(name, value, is_needed=name in _NEVER_NULL[kind].split())
    return Entry(content, kind, fields)


def _check(name: str, value: object, *, is_needed: bool) -> None:
    if value is None:
        fits = not is_needed
    elif name == "response_truncated":
        fits = isinstance(value, bool)
    elif name.endswith("_us"):
        fits = type(value) is int or (isinstance(value, str) and _MICROSECONDS.fullmatch(value) is not None)
    elif name in _INTEGERS:
        fits = type(value) is int
    else:
        fits = isinstance(value, str) and _fits(name, value)
    if not fits:
        raise ValueError(f"the field {name} has a value of another kind")


def _fits(name: str, value: str) -> bool:
    if name.endswith("_sha256"):
        return _SHA256.fullmatch(value) is not None
    if name.endswith("_at") or name in ("at", "cutoff"):
        return _TIME.fullmatch(value) is not None
    return name not in _IDS or _UUID.fullmatch(value) is not None


def moment(value: str) -> datetime:
    """The time in an entry. Raises ValueError."""
    return datetime.fromisoformat(value)
