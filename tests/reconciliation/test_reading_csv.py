"""CSV ledgers: every record is read as it was written, or refused with its line."""

import csv
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.ledger_line import LedgerLine, LineFault, read_line
from predictu_dispatch.core.reconcile_settings import ReconcileSettings
from predictu_dispatch.reconciliation.files import LedgerFileError
from predictu_dispatch.reconciliation.record import Record, RecordFault
from tests.reconciliation.ledgers import HEADER, amounts, fault_of, in_memory, of, row, written

ROWS = [row(number, note=f'said "{number}",\r\n;|\tthen\nleft') for number in range(1, 4)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("begins", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_ledger_is_read_in_every_usual_dialect(
    tmp_path: Path, delimiter: str, line_end: str, begins: bytes, quoting: int
) -> None:
    content = written(ROWS, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    read = of(begins + content, tmp_path)
    assert amounts(read) == ["-1", "-2", "-3"]
    # The quoted notes have two line ends.
    assert [record.line for record in read] == [2, 5, 8]


def test_a_record_has_our_names_and_nothing_for_a_missing_column(tmp_path: Path) -> None:
    content = b"Betrag;Zeit;ref;currency;bet_id\n1;2;3;EUR;5\n"
    columns = {"amount": "Betrag", "booked_at": "Zeit", "request_id": "ref"}
    [record] = of(content, tmp_path, columns=columns)
    assert record == Record(2, {"booked_at": "2", "amount": "1", "currency": "EUR", "request_id": "3", "bet_id": "5"})


@pytest.mark.parametrize(
    ("header", "settings", "named"),
    [
        ("booked_at,currency,bet_id", {}, '"amount"'),
        ("booked_at,Amount,currency,bet_id", {}, '"amount"'),
        ("booked_at, amount,currency,bet_id", {}, '"amount"'),
        ("booked_at,amount,bet_id", {}, '"currency"'),
        ("booked_at,amount,currency,player_id", {}, "for request_id, transaction_id or bet_id"),
        (
            "booked_at,amount,currency,bet_id",
            {"columns": {"request_id": "external_ref"}},
            '"external_ref" for request_id',
        ),
        ("booked_at,amount,currency,bet_id", {"amount_sign": "none"}, "for method or direction"),
        ("a:b:c", {}, '"booked_at", no column "amount", no column "currency"'),
        ("sep=;", {}, '"booked_at", no column "amount", no column "currency"'),
    ],
)
def test_a_header_without_a_needed_column_is_refused_by_name_and_key(
    tmp_path: Path, header: str, settings: dict[str, Any], named: str
) -> None:
    why = fault_of(f"{header}\n".encode(), tmp_path, **settings)
    assert f"ledger.csv: has no column {named}" in why
    assert ": name its columns under [reconcile.columns]. They are " in why


def test_a_column_with_a_constant_may_be_missing(tmp_path: Path) -> None:
    values = {"currency": {"": "EUR"}, "method": {"": "BET_MAKE"}}
    assert amounts(of(b"booked_at,amount,bet_id\n1,2,3\n", tmp_path, values=values, amount_sign="none")) == ["2"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has no header"),
        (b"\n\n", "has no header"),
        (b"booked_at,amount,currency,bet_id,amount\n", 'has 2 columns "amount"'),
        (b'booked_at,"amount,currency,bet_id\n', "has no column"),
        (b'booked_at,amount,currency,bet_id,note"\n', "line 1: has a quote in the name of a column"),
        (b'"booked_at,amount,currency,bet_id\n', "line 1: is no valid CSV"),
        # Read as missing columns, they would leave lines that match by their bet, and any player.
        (b"booked_at,amount,currency,bet_id, request_id\n", 'has " request_id", but not "request_id"'),
        (b"\xef\xbb\xbf\xef\xbb\xbfrequest_id,booked_at,amount,currency,bet_id\n", 'but not "request_id"'),
        (
            b"booked_at,amount,currency,bet_id,playerId\n",
            '"playerId", but not "player_id" ([reconcile.columns] player_id',
        ),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    assert why in fault_of(content, tmp_path)


def test_a_ledger_without_bookings_has_a_header(tmp_path: Path) -> None:
    assert of(written([]), tmp_path) == []


def test_empty_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    content = written([row(1)]) + b"\r\n\n" + written([row(2)]).splitlines(keepends=True)[1] + b"\n\n"
    read = of(content, tmp_path)
    assert [(record.line, amount) for record, amount in zip(read, amounts(read), strict=True)] == [(2, "-1"), (5, "-2")]


@pytest.mark.parametrize(
    "trailing",
    [
        b"TOTAL;-6\r\n",
        b"\r\nTotal,,-6,,,,,,\r\n",
        b"2026-11-21T23:59:59Z,-6,EUR,,,,,,total\r\n",
        b",,,,,,,,\r\n",
        b"3 rows\r\n",
        b"booked_at,amount,currency,request_id,transaction_id,bet_id,method,player_id,note\r\n",
        b"-- end --,-6,EUR,,tx,bet,BET_MAKE,p,\r\n",
    ],
)
def test_a_trailing_total_is_never_a_booking(tmp_path: Path, trailing: bytes) -> None:
    settings = ReconcileSettings()
    read = of(written([row(1), row(2), row(3)]) + trailing, tmp_path)
    assert amounts(read[:3]) == ["-1", "-2", "-3"]
    [last] = read[3:]
    if isinstance(last, Record):
        assert isinstance(read_line(last.fields, settings, settings.days, {"EUR": 2}), LineFault)


@pytest.mark.parametrize("fields", [8, 10])
def test_a_record_with_another_number_of_fields_is_refused_and_the_next_is_read(tmp_path: Path, fields: int) -> None:
    wrong = [*row(1), "", ""][:fields]
    fault, record = of(written([wrong, row(2)]), tmp_path)
    assert fault == RecordFault(2, "", f"has {fields} fields; the header has 9")
    assert amounts([record]) == ["-2"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        # An unclosed quote swallows the rest of the file.
        (written([row(1), row(2)]) + b'2026-11-21T10:00:00Z,-3,EUR,,,bet-3,,,"note\n' + written([row(4)]), 4),
        # It ends at the next quote.
        (written([row(1)]) + b'2026-11-21T10:00:00Z,-3,EUR,,,bet-3,,,"note\n' + written([row(4, note="a,b")]), 3),
        # A quote that is escaped in another way.
        (written([row(1)]) + b'2026-11-21T10:00:00Z,-3,EUR,,,bet-3,,,"a \\"b\\" c"\n' + written([row(4)]), 3),
        # Lines that end at a carriage return only.
        (written([row(1), row(2)], lineterminator="\r"), 1),
    ],
)
def test_no_line_is_read_after_a_wrong_quote(tmp_path: Path, content: bytes, line: int) -> None:
    why = fault_of(content, tmp_path)
    assert why.startswith("ledger.csv: ")
    assert "CSV" in why or "no column" in why
    assert f"line {line}:" in why or "no column" in why


@pytest.mark.parametrize("cut", [*range(1, 60)])
def test_a_truncated_file_never_gives_a_wrong_value(tmp_path: Path, cut: int) -> None:
    header = ("booked_at", "currency", "bet_id", "amount")
    content = written([["2026-11-21T10:00:00Z", "EUR", f"bet-{n}", f"-{n}2500"] for n in (1, 2)], header=header)
    read = of(content[:-cut], tmp_path) if cut < len(content) - len(b",".join(map(str.encode, header))) - 2 else []
    whole = [record for record in read if isinstance(record, Record)]
    assert [record.fields["amount"] for record in whole] in ([], ["-12500"], ["-12500", "-22500"])
    if len(whole) == 2:
        assert cut == 1  # Only the newline after the carriage return is missing.


def test_a_last_line_without_a_line_end_is_read_if_it_is_certainly_whole(tmp_path: Path) -> None:
    # The last column is not read, or its quotes are closed.
    assert amounts(of(written([row(1)]).removesuffix(b"\r\n"), tmp_path)) == ["-1"]
    quoted = b'booked_at,currency,bet_id,amount\n2026-11-21,EUR,b,"-1"'
    assert amounts(of(quoted, tmp_path)) == ["-1"]
    [fault] = of(quoted.replace(b'"', b""), tmp_path)
    assert (fault.line, isinstance(fault, RecordFault) and fault.column) == (2, "amount")


def test_quotes_that_are_not_doubled_hide_no_lines(tmp_path: Path) -> None:
    notes = ('"Great', "plain", 'he said ok"')
    bare = "".join(",".join([*row(number)[:-1], note]) + "\n" for number, note in enumerate(notes))
    header, last = written([]), written([row(7, note="a\nb, c")])
    fault, record = of(header + bare.encode() + last.removeprefix(header), tmp_path)
    assert fault == RecordFault(2, "note", "has whole lines in it; a quote in a value must be doubled")
    assert isinstance(record, Record)
    assert amounts([record]) == ["-7"]


def test_an_excel_csv_with_semicolons_and_decimal_commas_is_refused_by_line(tmp_path: Path) -> None:
    settings = ReconcileSettings(amount_format="decimal")
    content = written([row(1, amount="-1.250,00"), row(2, amount="-12,5"), row(3)], delimiter=";")
    read = [record for record in of(content, tmp_path) if isinstance(record, Record)]
    lines = [read_line(record.fields, settings, settings.days, {"EUR": 2}) for record in read]
    assert [type(line) for line in lines] == [LineFault, LineFault, LedgerLine]


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(
    st.lists(st.lists(_TEXTS, min_size=len(HEADER), max_size=len(HEADER)), max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_what_a_csv_writer_writes_is_read_back(
    rows: list[list[str]], delimiter: str, line_end: str, quoting: int
) -> None:
    # Not every version of Python quotes a carriage return if lines do not end with one.
    quoting = quoting if line_end == "\r\n" else csv.QUOTE_ALL
    content = written(rows, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    read = in_memory(content)
    # No id has a quote, but the record beside one is read.
    assert [isinstance(record, RecordFault) for record in read] == ['"' in "".join(fields[:-1]) for fields in rows]
    assert [{**record.fields} for record in read if isinstance(record, Record)] == [
        dict(zip(HEADER[:-1], fields, strict=False)) for fields in rows if '"' not in "".join(fields[:-1])
    ]


@given(
    st.lists(st.sampled_from(["", "a,b", 'say "x"', "multi\nline", "plain", '"', 'x",']), min_size=6, max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.randoms(use_true_random=False),
    st.integers(1, 2),
)
def test_wrong_quotes_never_make_another_booking_nor_hide_one(
    notes: list[str], quoting: int, line_end: str, chance: Random, changes: int
) -> None:
    rows = [row(number, note=note) for number, note in enumerate(notes)]
    content = written(rows, quoting=quoting, lineterminator=line_end)
    bookings = in_memory(content)
    for _ in range(changes):
        quotes = [at for at, byte in enumerate(content) if byte == ord('"')]
        if quotes and chance.random() < 1 / 3:
            at = chance.choice(quotes)
            content = content[:at] + content[at + 1 :]
        else:
            at = chance.randrange(len(content))
            content = content[:at] + b'"' + content[at:]
    with suppress(LedgerFileError):
        read = in_memory(content)
        found = [record for record in read if isinstance(record, Record)]
        texts = [booking.fields for booking in bookings if isinstance(booking, Record)]
        assert all(record.fields in texts or _is_refused(record) for record in found)
        assert len(found) == len(bookings) or len(read) > len(found)


def _is_refused(record: Record) -> bool:
    settings = ReconcileSettings()
    return isinstance(read_line(record.fields, settings, settings.days, {"EUR": 2}), LineFault)


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_are_records_or_a_fault(content: bytes, at: int) -> None:
    valid = written(ROWS)
    for mixed in (content, valid[:at] + content + valid[at:]):
        with suppress(LedgerFileError):
            assert len(in_memory(mixed)) <= mixed.count(b"\n")
