"""Compares what keeps the audit append-only with this release's files.

The rows are read through the view `attempt`, so another view is a fault, and so are a view in the
place of a table and row security, which shows each reader other rows. Other differences are
warnings: rows are compared with the log by themselves, but somebody could have changed them before
they were sealed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

from predictu_dispatch.edge.postgres.sql_files import definitions

VIEW: Final = r"""
SELECT operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url,
    key_id, request_headers, request_body, response_status, response_headers, response_body, response_truncated,
    connect_ms, first_byte_ms, total_ms, error, report_id, peer, peer_certificate_sha256, response_body_sha256,
    response_body_repeats, written_in,
    CASE WHEN (token_signature IS NOT NULL) THEN sha256(convert_to(replace(substr((request_headers ->>
        'Authorization'::text), 8), '[signature withheld]'::text, translate(encode(token_signature, 'base64'::text),
        '+/=
'::text, '-_'::text)), 'UTF8'::name)) ELSE NULL::bytea END AS token_sha256
FROM predictu_dispatch.attempt_record;
"""
"""The view `attempt` as pg_get_viewdef() prints it; only white space and qualifiers differ."""
_TRIGGER: Final = re.compile(r"\bcreate (?:constraint )?trigger (\w+)\s.*?\bon predictu_dispatch\.(\w+)", re.DOTALL)
_FUNCTION: Final = re.compile(r"\bfunction predictu_dispatch\.(\w+).*?\bas \$\$(.*?)\$\$", re.DOTALL)
_IN_EACH_PARTITION: Final = "attempt_not_truncated"
"""A trigger for truncate is not inherited by partitions."""
_ONLY_GROW: Final = ("log", "head", "tile", "checkpoint", "cosignature", "removal", "verification")
"""The tables audit_… whose triggers refuse_log_change.sql creates in a loop."""
_ROWS_OF: Final = ("intervention", "signing_key")


def schema_differences(found: Sequence[Any]) -> list[str]:
    """Say what differs, in a sentence each. `found` are the rows of audit_schema.sql."""
    return [*_rules(found), *_triggers(found), *_functions(found)]


def hiding(found: Sequence[Any]) -> list[str]:
    """Name what may show a reader other rows than those that are stored."""
    other = [row["relation"] for row in found if row["kind"] == "relation"]
    policies = [row["relation"] for row in found if row["kind"] == "policy"]
    view = [_normal(row["body"]) for row in found if row["kind"] == "view"]
    return [
        *([] if view == [_normal(VIEW)] else ["the view attempt"]),
        *(f"the relation {relation}" for relation in other),
        *(f"the row security of {relation}" for relation in policies),
    ]


@cache
def expected_triggers() -> dict[tuple[str, str], str]:
    """The triggers of the audit's tables, as (table, trigger), and each one's function file."""
    triggers = {
        (f"audit_{table}", f"audit_{table}_{what}"): "guards/refuse_log_change.sql"
        for table in _ONLY_GROW
        for what in ("only_grows", "not_truncated")
    }
    for definition in definitions():
        for trigger, table in _TRIGGER.findall(definition.sql):
            if table.startswith(("attempt_", "audit_")) or table in _ROWS_OF:
                triggers[table, trigger] = definition.name
    return triggers


def _rules(found: Sequence[Any]) -> Iterator[str]:
    for row in found:
        if row["kind"] == "rule":
            yield f"table {row['relation']} has a rule, {row['name']}, which is none of ours"


def _triggers(found: Sequence[Any]) -> Iterator[str]:
    partitions = {row["relation"] for row in found if row["kind"] == "partition"}
    expected = set(expected_triggers()) | {(partition, _IN_EACH_PARTITION) for partition in partitions}
    states = {(row["relation"], row["name"]): row["state"] for row in found if row["kind"] == "trigger"}
    for table, trigger in sorted(expected):
        state = states.get((table, trigger))
        if state is None:
            yield f"the trigger {trigger} of {table} is missing"
        elif state != "A":
            yield f"the trigger {trigger} of {table} is {'disabled' if state == 'D' else 'not always enabled'}"
    inherited = {trigger for table, trigger in expected if table == "attempt_record"}
    for table, trigger in sorted(states.keys() - expected):
        if table not in partitions or trigger not in inherited:
            yield f"the trigger {trigger} of {table} is none of ours: it may change rows before they are sealed"
        elif states[table, trigger] != "A":
            yield f"the trigger {trigger} of {table} is not always enabled"


def _functions(found: Sequence[Any]) -> Iterator[str]:
    ours: dict[str, set[str]] = {}
    for definition in definitions():
        if named := _FUNCTION.search(definition.sql):
            ours.setdefault(named[1], set()).add(named[2])
    for row in found:
        # A function may have several definitions with other parameters.
        if row["kind"] == "function" and row["body"] not in ours.get(row["name"], {row["body"]}):
            yield f"the function {row['name']} is not the one of this release"


def _normal(text: str) -> str:
    return re.sub(r"\s+", "", text.replace("attempt_record.", "").replace("predictu_dispatch.", ""))
