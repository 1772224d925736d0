"""FORMAT.md and the database build the same entries."""

import json
from hashlib import sha256
from pathlib import Path

import asyncpg

import predictu_dispatch
from tests.support.example_entries import ROWS, statement
from tests.support.postgres import Database

_FORMAT = Path(predictu_dispatch.__file__).parent / "evidence" / "FORMAT.md"


async def test_the_document_shows_the_entries_that_the_database_builds(database: Database) -> None:
    connection = await asyncpg.connect(database.owner)
    try:
        entries = [
            await connection.fetchval(statement(call, row_type), json.dumps(row)) for call, row_type, row in ROWS
        ]
    finally:
        await connection.close()
    shown = _FORMAT.read_text().partition("### Examples")[2].split("```")[1].split("\n")[1:-1]
    assert shown == [line for entry in entries for line in (entry.decode(), sha256(b"\x00" + entry).hexdigest())]


def test_every_shown_entry_is_canonical_json_with_the_documented_keys() -> None:
    text = _FORMAT.read_text()
    shown = text.partition("### Examples")[2].split("```")[1].split("\n")[1:-1]
    for line in shown[::2]:
        entry = json.loads(line)
        assert line == json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        table = text.partition(f"\n### {entry['kind']}\n")[2].partition("\n### ")[0]
        assert [*entry] == [row.split("`")[1] for row in table.split("\n") if row.startswith("| `")]
