"""JSON ledgers: one object a line, or one array; no number becomes a float."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.reconciliation import files
from predictu_dispatch.reconciliation.record import Record, RecordFault
from tests.reconciliation.ledgers import amounts, fault_of, in_memory, of

BOOKING = '{"booked_at":"2026-11-21T10:00:00Z","amount":%s,"currency":"EUR","bet_id":"b"}'


def both(objects: list[str]) -> dict[str, bytes]:
    """Return the same records in both formats."""
    return {"ndjson": "\n".join(objects).encode(), "json": ("[\n" + ",\n".join(objects) + "\n]").encode()}


def read_both(folder: Path, objects: list[str], **settings: Any) -> list[Record | RecordFault]:
    """Return the records, which must be the same in both formats; lines as in ndjson."""
    ndjson, json_ = (of(content, folder, format=name, **settings) for name, content in both(objects).items())
    assert [one._replace(line=one.line - 1) for one in json_] == ndjson
    return ndjson


@pytest.mark.parametrize(
    "text", ["-1250", "0.1", "12.50", "1e3", "-0", "1E400", "0.30000000000000004", "9" * 400, "1250.0", '"1,250.00"']
)
def test_a_number_is_the_text_it_is_written_as(tmp_path: Path, text: str) -> None:
    assert amounts(read_both(tmp_path, [BOOKING % text])) == [text.strip('"')]


def test_null_and_a_missing_key_are_missing_values(tmp_path: Path) -> None:
    [record] = read_both(tmp_path, ['{"amount":null,"currency":"é"}'])
    assert isinstance(record, Record)
    assert {name: value for name, value in record.fields.items() if value is not None} == {"currency": "é"}


@pytest.mark.parametrize(
    ("value", "column", "why"),
    [
        ("NaN", "amount", "is NaN, which is no JSON number"),
        ("-Infinity", "amount", "is -Infinity, which is no JSON number"),
        ("true", "amount", "is neither text nor a number"),
        ('{"value":1}', "amount", "is neither text nor a number"),
        ("[1]", "amount", "is neither text nor a number"),
        ('1,"amount":2', "", 'has the key "amount" 2 times'),
        ('{"a":1,"a":1}', "amount", 'has the key "a" 2 times'),
    ],
)
def test_a_value_that_is_no_text_is_refused_by_line_and_the_next_is_read(
    tmp_path: Path, value: str, column: str, why: str
) -> None:
    fault, record = read_both(tmp_path, [BOOKING % value, BOOKING % 7])
    assert fault == RecordFault(1, column, why)
    assert (record.line, amounts([record])) == (2, ["7"])


def test_a_key_in_another_spelling_is_refused_by_line(tmp_path: Path) -> None:
    faults = read_both(tmp_path, [(BOOKING % "7").replace("}", ',"requestId":"r"}')] * 2)
    why = 'has "requestId", but not "request_id" ([reconcile.columns] request_id; "" to read it without)'
    assert faults == [RecordFault(line, "", why) for line in (1, 2)]


def test_what_is_not_read_may_be_nested(tmp_path: Path) -> None:
    assert amounts(read_both(tmp_path, ['{"amount":1,"meta":{"a":[NaN,{"b":true}]},"amounts":[]}'])) == ["1"]


@pytest.mark.parametrize(
    "line", ["[1]", "1", '"a"', "null", "{", '{"amount":1', "{} {}", "{'a':1}", '{"a":"\t"}', "x", "[" * 9999]
)
def test_a_line_that_is_no_object_is_refused_and_the_next_is_read(tmp_path: Path, line: str) -> None:
    fault, record = of(f"{line}\n{BOOKING % 7}\n".encode(), tmp_path, format="ndjson")
    assert isinstance(fault, RecordFault)
    assert (fault.line, record.line, amounts([record])) == (1, 2, ["7"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no JSON array"),
        ("{}", "is no JSON array"),
        ('{"ledger":[]}', "is no JSON array"),
        (BOOKING % 1 + "\n" + BOOKING % 2, '[reconcile] format = "ndjson"'),
        ("[", "its JSON array has no end"),
        ("[{}", "a comma or ] is missing"),
        ("[{},", "its JSON array has no end"),
        ("[{},]", "another value is in it"),
        ("[{} {}]", "a comma or ] is missing"),
        ("[1]", "another value is in it"),
        ("[[{}]]", "another value is in it"),
        ('[{},\n{"amount":1', "line 2: is no valid JSON"),
        ('[{},\n{"amount":}]', "line 2: is no valid JSON"),
        ('[{"a":' + "[" * 9999, "line 1: is no valid JSON"),
        ("[{}]\n[{}]", "line 2: has more text after its JSON array"),
        ("[]x", "has more text after its JSON array"),
    ],
)
def test_an_array_that_does_not_end_as_it_should_is_refused(tmp_path: Path, text: str, why: str) -> None:
    assert why in fault_of(text.encode(), tmp_path, format="json")


@pytest.mark.parametrize("text", ["[]", " [ ] \n", "\n\n[\n]"])
def test_an_empty_array_has_no_bookings(tmp_path: Path, text: str) -> None:
    assert of(text.encode(), tmp_path, format="json") == []


def test_a_column_that_no_record_has_is_a_wrong_name(tmp_path: Path) -> None:
    for name, content in both([BOOKING % 1]).items():
        why = fault_of(content, tmp_path, format=name, columns={"request_id": "external_ref"})
        assert why == 'ledger.csv: no record has "external_ref" ([reconcile.columns] request_id)'
        assert amounts(of(content, tmp_path, format=name, columns={"transaction_id": "bet_id", "bet_id": ""})) == ["1"]


_VALUES = st.one_of(st.none(), st.text(max_size=20), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
_NAMES = st.sampled_from(["booked_at", "amount", "currency", "bet_id", "note"])


@given(
    st.lists(st.dictionaries(_NAMES, _VALUES), min_size=1, max_size=20), st.sampled_from([None, 2]), st.integers(1, 40)
)
def test_what_a_json_writer_writes_is_read_back(
    objects: list[dict[str, Any]], indent: int | None, block_bytes: int
) -> None:
    expected = [
        {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in one.items()
            if name != "note" and value is not None
        }
        for one in objects
    ]
    lines = "\n".join(json.dumps(one, ensure_ascii=indent is None) for one in objects)
    array = json.dumps(objects, indent=indent, ensure_ascii=indent is None)
    # Blocks end anywhere: within a character, a number, an object.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_BLOCK_BYTES", block_bytes)
        for name, text in (("ndjson", lines), ("json", array)):
            read = in_memory(text.encode(), format=name)
            got = [{n: v for n, v in one.fields.items() if v is not None} for one in read if isinstance(one, Record)]
            assert got == expected
