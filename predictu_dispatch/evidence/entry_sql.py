"""The statements that compute leaf hashes inside Postgres, from this release's own files.

The expression that builds an entry is taken from sql/functions/audit/ and run inline. The function
of that name in the database is not called: an attacker who changed a row could have changed it too.
For the same reason sums are compared here and not in the database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from predictu_dispatch.edge.postgres.sql_files import definitions

_SIGNATURE: Final = re.compile(r"create or replace function predictu_dispatch\.(\w+)\s*\(\s*(\w+)\s")
_BODY: Final = re.compile(r"\bas \$\$(?P<block>.*)\$\$|\breturn (?P<expression>.*?);\s*$", re.DOTALL | re.MULTILINE)
_SELECT: Final = re.compile(r"\s*(?:--[^\n]*\n\s*)*select\b(?P<expression>.*?);?\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySource:
    """A relation whose rows are entries. `{0}` stands for the name of its row."""

    kind: str
    function: str
    rows: str
    entry_id: str
    written_in: str
    at: str
    subject: str
    """The row's name in messages, as an SQL expression."""
    is_partitioned: bool = False


SOURCES: Final = (
    EntrySource(
        kind="attempt",
        function="audit_entry",
        rows="predictu_dispatch.attempt {0}",
        entry_id="{0}.report_id",
        written_in="{0}.written_in",
        at="{0}.finished_at",
        subject="'attempt ' || {0}.attempt || ' of ' || {0}.request_id",
        is_partitioned=True,
    ),
    EntrySource(
        kind="intervention",
        function="audit_intervention_entry",
        rows="predictu_dispatch.intervention {0}",
        entry_id="{0}.intervention_id",
        written_in="{0}.written_in",
        at="{0}.done_at",
        subject="'intervention ' || {0}.intervention_id",
    ),
    EntrySource(
        kind="key",
        function="audit_key_entry",
        rows=(
            "predictu_dispatch.signing_key {0} cross join lateral (values"
            " ('first_seen', {0}.first_seen_id, {0}.written_in, {0}.first_seen_at),"
            " ('retired', {0}.retired_id, {0}.retired_in, {0}.retired_at)) e (event, of_event, written, event_at)"
        ),
        # A retirement without an id has no entry, and must not go unnoticed.
        entry_id="coalesce(e.of_event, case when e.event_at is not null then encode(decode('00', 'hex') || "
        "substr(sha256('no id'), 2, 15), 'hex')::uuid end)",
        written_in="e.written",
        at="e.event_at",
        subject="'signing key ' || {0}.kid || ', ' || replace(e.event, '_', ' ')",
    ),
    EntrySource(
        kind="removal",
        function="audit_removal_entry",
        rows="predictu_dispatch.audit_removal {0}",
        entry_id="{0}.removal_id",
        written_in="{0}.written_in",
        at="{0}.removed_at",
        subject="'removal ' || {0}.removal_id || ' of ' || {0}.part",
    ),
    EntrySource(
        kind="start",
        function="audit_start_entry",
        rows="predictu_dispatch.audit_log {0}",
        entry_id="{0}.start_id",
        written_in="{0}.written_in",
        at="{0}.started_at",
        subject="'the log''s start'",
    ),
)

_NOT_SEALED: Final = (
    "(coalesce({written}, 0) - $1::bigint >= $2::bigint or coalesce({written}, 0) - $1::bigint = any($3::bigint[]))"
)
"""Its transaction was not complete when the logs were sealed last."""
_COMPLETE: Final = (
    "case when {written} - $1::bigint > 0"
    " then pg_visible_in_snapshot(({written} - $1::bigint)::text::xid8, pg_current_snapshot()) else true end"
)
"""It is complete now. Of a row that we see, another transaction cannot be the one that wrote it."""
_BEFORE: Final = (
    "(coalesce({written}, 0) <= $1::bigint"
    " or ({written} - $1::bigint < $5::bigint and not {written} - $1::bigint = any($6::bigint[])))"
)
"""It was there before the logs began, or before a restore."""
_SEALED_IDS: Final = (
    " left join (select distinct t.operator_id as sealed_operator_id,"
    " encode(substr(t.report_ids, n * 16 + 1, 16), 'hex')::uuid as sealed_id"
    " from unnest($7::text[], $8::bigint[]) h (operator_id, size)"
    " join predictu_dispatch.audit_tile t on t.operator_id = h.operator_id and t.level = 0"
    " cross join generate_series(0, octet_length(t.report_ids) / 16 - 1) n"
    " where t.tile * 256 + n < h.size) s on (s.sealed_operator_id, s.sealed_id) = ({row}.operator_id, {entry_id})"
)
_SUM: Final = "(get_byte(uuid_send({entry_id}), 14) << 8 | get_byte(uuid_send({entry_id}), 15))"
"""sum_of() of multiset.py."""


@cache
def entry_expression(function: str) -> tuple[str, str]:
    """Return the name of the function's first parameter, and its body: an expression of it."""
    [text] = [each.sql for each in definitions() if each.name == f"audit/{function}.sql"]
    signature, body = _SIGNATURE.search(text), _BODY.search(text)
    if signature is None or body is None or signature[1] != function:
        raise RuntimeError(f"sql/functions/audit/{function}.sql is not one expression")
    if body["expression"]:
        return signature[2], body["expression"]
    selected = _SELECT.fullmatch(body["block"])
    if selected is None:
        raise RuntimeError(f"sql/functions/audit/{function}.sql is not one select")
    return signature[2], selected["expression"]


def leaf_hash_expression(source: EntrySource) -> tuple[str, str]:
    """Return the row's name, and the expression of its leaf hash (RFC 6962)."""
    row, expression = entry_expression(source.function)
    return row, f"sha256(decode('00', 'hex') || ({expression}))"


@cache
def rows_statement(source: EntrySource, *, is_detailed: bool, has_backlog: bool, is_last: bool = False) -> str:
    """The statement that reads the rows of a source.

    $1 xid_offset, $2 and $3 xmax and xip of sealed_until, $4 an operator or null; with a backlog $5
    and $6 xmax and xip of backlog_until, $7 and $8 the logs and their sizes; detailed: then the
    sums to which the rows must belong; partitioned: then the bounds of started_at; the last range
    has no end.
    Columns: operator_id, record (entry id and leaf hash; null if it is pending), at (of a pending
    one); detailed: operator_id, record, is_pending, at, subject.
    """
    row, leaf_hash = leaf_hash_expression(source)
    entry_id, written = source.entry_id.format(row), source.written_in.format(row)
    pending = f"({_NOT_SEALED.format(written=written)} and {_COMPLETE.format(written=written)})"
    record = f"uuid_send({entry_id}) || {leaf_hash}"
    where = [f"{entry_id} is not null", f"($4::text is null or {row}.operator_id = $4)"]
    joined, parameters = "", 4
    if has_backlog:
        # Which of these rows are sealed only the log says.
        joined = _SEALED_IDS.format(row=row, entry_id=entry_id)
        where.append(f"(s.sealed_id is not null or {pending} or not {_BEFORE.format(written=written)})")
        parameters += 4
    if is_detailed:
        parameters += 1
        where.append(f"{_SUM.format(entry_id=entry_id)} = any(${parameters}::integer[])")
    if source.is_partitioned:
        where.append(f"{row}.started_at >= ${parameters + 1}")
        if not is_last:
            where.append(f"{row}.started_at < ${parameters + 2}")
    at = source.at.format(row)
    if is_detailed:
        columns = f"{record}, {pending}, {at}, {source.subject.format(row)}"
    else:
        columns = f"case when not {pending} then {record} end, case when {pending} then {at} end"
    read = f"from {source.rows.format(row)}{joined} where {' and '.join(where)}"
    return f"select {row}.operator_id, {columns} {read}"
