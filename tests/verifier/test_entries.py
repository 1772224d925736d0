"""The verifier's builder of entries and the database's agree on every row of every kind."""

import hashlib
from pathlib import Path

import pytest

from predictu_dispatch.verifier.entries import FIELDS, entry_of, parse_entry
from predictu_dispatch.verifier.merkle import leaf_hash
from tests.support import audit_rows
from tests.support.harness import Harness

FORMAT = Path(__file__).parents[2] / "predictu_dispatch" / "evidence" / "FORMAT.md"
EXAMPLES = FORMAT.read_text("utf-8").split("```text\n")[1].split("```")[0].strip("\n").split("\n")
ROWS = {
    "attempt": ("attempt r", "audit_entry(r)"),
    "intervention": ("intervention r", "audit_intervention_entry(r)"),
    "key": (
        "signing_key r, unnest(array['first_seen', 'retired']) event",
        "audit_key_entry(r, event)",
    ),
    "removal": ("audit_removal r", "audit_removal_entry(r)"),
    "start": ("audit_log r", "audit_start_entry(r)"),
}
"""The relation of each kind, and how the database builds its entry."""
OTHERS = """
insert into predictu_dispatch.audit_removal (operator_id, part, cutoff, attempts, leaf_indices, leaf_indices_sha256)
values ('op_a', '2024_01', '2024-11-01', 3, '{[1,4)}', sha256('1-3'));
insert into predictu_dispatch.audit_log
    (operator_id, origin, attempts_before, interventions_before, system_identifier)
values ('op_a', 'audit.predictu.example/op_a', 9007199254740993, 0, 7578205398206488577)
"""


async def test_both_build_the_same_bytes_of_each_row(harness: Harness) -> None:
    await audit_rows.know(harness.owner)
    await audit_rows.fill(harness.owner, "op_a", 200)
    await harness.owner.execute(OTHERS)
    for kind, (relation, built) in ROWS.items():
        rows = await harness.owner.fetch(
            f"select *, predictu_dispatch.{built} as entry from predictu_dispatch.{relation}"  # noqa: S608 - as above
        )
        assert rows, kind
        for row in rows:
            values = {**row, "client_addr": f"{row['client_addr']}/32"} if kind == "intervention" else dict(row)
            event = values.get("event", "")
            if event != "retired" or values["retired_at"] is not None:
                assert entry_of(kind, values, event) == row["entry"]
                assert parse_entry(row["entry"]).kind == kind


@pytest.mark.parametrize("number", range(0, len(EXAMPLES), 2))
def test_the_examples_of_the_document_are_read(number: int) -> None:
    content = EXAMPLES[number].encode()
    entry = parse_entry(content)
    assert entry.fields.keys() == FIELDS[entry.kind]
    assert leaf_hash(content).hex() == EXAMPLES[number + 1] == hashlib.sha256(b"\0" + content).hexdigest()
