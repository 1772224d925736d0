"""The files themselves: packed, damaged, of another kind, or made to exhaust the reader."""

import gzip
import hashlib
import io
import json
import os
import random
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.reconcile_settings import ReconcileSettings
from predictu_dispatch.reconciliation import files
from predictu_dispatch.reconciliation.files import LedgerFileError, LedgerPart, _Unpacked, open_ledger
from predictu_dispatch.reconciliation.record import Record
from predictu_dispatch.reconciliation.records import read_records
from tests.reconciliation.ledgers import amounts, fault_of, of, records, row, written

LEDGER = written([row(number) for number in range(1, 200)])
AMOUNTS = [f"-{number}" for number in range(1, 200)]


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, member in members:
            archive.writestr(name, member)
    return content.getvalue()


@pytest.mark.parametrize("name", ["ledger.csv", "ledger.gz", "ledger.zip", "ledger"])
@pytest.mark.parametrize(
    "content",
    [
        LEDGER,
        gzip.compress(LEDGER),
        gzip.compress(LEDGER[:999]) + gzip.compress(LEDGER[999:]),
        zipped(("a/ledger.csv", LEDGER)),
        zipped(("ledger.csv", LEDGER), method=zipfile.ZIP_STORED),
        zipped(("ledger.csv", LEDGER), method=zipfile.ZIP_BZIP2),
        zipped(("folder/", b""), ("ledger", b"\xef\xbb\xbf" + LEDGER), ("__MACOSX/._ledger", b"\0\5\x16\7")),
    ],
)
def test_a_file_is_recognized_by_its_content(tmp_path: Path, content: bytes, name: str) -> None:
    assert amounts(of(content, tmp_path, name=name)) == AMOUNTS


def test_a_file_has_the_hash_and_the_size_of_what_was_given(tmp_path: Path) -> None:
    packed = gzip.compress(LEDGER)
    (tmp_path / "a.csv.gz").write_bytes(packed)
    with open_ledger(tmp_path / "a.csv.gz") as ledger:
        assert (ledger.name, ledger.size_bytes) == ("a.csv.gz", len(packed))
        assert ledger.sha256 == hashlib.sha256(packed).hexdigest()


def test_a_ledger_that_is_split_is_all_members_of_a_zip_each_with_its_lines(tmp_path: Path) -> None:
    parts = [written([row(number) for number in numbers]) for numbers in ((1, 2), (3,), ())]
    (tmp_path / "l.zip").write_bytes(zipped(*zip(("b.csv", "a.csv", "c\n.csv"), parts, strict=True)))
    with open_ledger(tmp_path / "l.zip") as ledger:
        assert [part.name for part in ledger.parts() if [*part.lines()]] == [
            "l.zip/b.csv",
            "l.zip/a.csv",
            r"l.zip/c\n.csv",
        ]
    read = records(tmp_path / "l.zip")
    assert [(record.line, amount) for record, amount in zip(read, amounts(read), strict=True)] == [
        (2, "-1"),
        (3, "-2"),
        (2, "-3"),
    ]


def _encrypted(archive: bytes) -> bytes:
    """Set the flag of an encrypted member, in its header and in the directory."""
    content = bytearray(archive)
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (LEDGER.decode().encode("utf-16"), "ledger.csv: is UTF-16; it must be UTF-8"),
        (LEDGER.decode().encode("utf-16-be"), "ledger.csv: is UTF-16 or not text; it must be UTF-8"),
        (LEDGER.decode().encode("utf-16-le"), "ledger.csv: is UTF-16 or not text; it must be UTF-8"),
        (b"\xfe\xff" + LEDGER.decode().encode("utf-16-be"), "ledger.csv: is UTF-16; it must be UTF-8"),
        (LEDGER.decode().encode("utf-32"), "ledger.csv: is UTF-32; it must be UTF-8"),
        (gzip.compress(LEDGER.decode().encode("utf-16")), "ledger.csv: is UTF-16; it must be UTF-8"),
        (LEDGER + "2026,é".encode("latin-1") + LEDGER, "ledger.csv: line 201: is not UTF-8"),
        (LEDGER + b"\xc3", "ledger.csv: line 201: is not UTF-8"),
        (gzip.compress(LEDGER)[:-9], "ledger.csv: is truncated: the archive has no end"),
        (gzip.compress(LEDGER)[:-8] + b"\0" * 8, "ledger.csv: is damaged: CRC check failed"),
        (gzip.compress(LEDGER) + b"more", "ledger.csv: is damaged: Not a gzipped file"),
        (gzip.compress(gzip.compress(LEDGER)), "ledger.csv: is an archive in an archive"),
        (zipped(("a.csv", LEDGER), ("b.gz", gzip.compress(LEDGER))), "ledger.csv/b.gz: is an archive in an archive"),
        (zipped(("a.zip", zipped(("a.csv", LEDGER)))), "ledger.csv/a.zip: is an archive in an archive"),
        (zipped(), "ledger.csv: has 0 files"),
        (zipped(*((str(number), LEDGER) for number in range(1001))), "ledger.csv: has 1001 files; a zip has 1 to 1000"),
        (zipped(("a.csv", LEDGER))[:-30], "ledger.csv: is damaged: File is not a zip file"),
        (zipped(("a.csv", LEDGER)) + zipped(("b.csv", LEDGER)), "ledger.csv: has more before or after its zip"),
        (zipped(("a.csv", LEDGER)) + LEDGER, "ledger.csv: has more before or after its zip"),
        (zipped(*(("n" * 60_000 + str(n), b"") for n in range(18))), "ledger.csv: is damaged: its list of files has"),
        (zipped(("a.csv", LEDGER), method=zipfile.ZIP_STORED).replace(b"bet-9,", b"bet-8,"), "is damaged: Bad CRC-32"),
        (_encrypted(zipped(("a.csv", LEDGER))), "ledger.csv/a.csv: is encrypted"),
        (zipped(("[Content_Types].xml", b""), ("xl/workbook.xml", b"")), "ledger.csv: is an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ledger.csv: is an Excel workbook"),
        (b"%PDF-1.7", "ledger.csv: is a PDF"),
        (b"BZh91AY", "ledger.csv: is bzip2; only gzip and zip are opened"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    assert fault_of(content, tmp_path).startswith(why) or why in fault_of(content, tmp_path)


@pytest.mark.parametrize("name", ["missing.csv", "", "a\0b", "x" * 300, "pipe", "noaccess.csv"])
def test_what_is_no_readable_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "noaccess.csv").symlink_to("noaccess.csv")
    with pytest.raises(LedgerFileError) as raised, open_ledger(tmp_path / name):
        pass
    assert str(raised.value).startswith(str(tmp_path))
    assert str(raised.value).isprintable()


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_bytes(LEDGER)
    with open_ledger(path) as ledger:
        parts = ledger.parts()
        assert len([*next(parts).lines()]) == 200
        with path.open("ab") as file:
            file.write(LEDGER)
        with pytest.raises(LedgerFileError, match="changed while it was read"):
            next(parts)


class _Endless:
    """Yields a block for ever."""

    def __init__(self, block: bytes, first: bytes = b"") -> None:
        self._blocks = self._all(first, block)

    def _all(self, first: bytes, block: bytes) -> Iterator[bytes]:
        yield first or block
        while True:
            yield block

    def read(self, _size: int, /) -> bytes:
        return next(self._blocks)


_HEADER = b"booked_at,amount,currency,bet_id,note\n"


@pytest.mark.parametrize(
    ("first", "block", "ledger_format", "why"),
    [
        (b"", b"x" * 100_000, "csv", "line 1: a record has more than 1048576 characters"),
        (_HEADER, b"x" * 100_000, "csv", "line 2: a record has more than"),
        (_HEADER + b'"', b"x" * 100_000, "csv", "line 2: a record has more than"),
        (_HEADER + b'1,2,3,4,"', b"note\n" * 10_000, "csv", "line 2: is no valid CSV: a value is too long"),
        (_HEADER, (b'"' + b"note" * 250 + b'\n",') * 100, "csv", "line 2: a record has more than"),
        (b"", b"x" * 100_000, "ndjson", "line 1: a record has more than"),
        (b"{}\n", b"x" * 100_000, "ndjson", "line 2: a record has more than"),
        (b'[{"a":"', b"x" * 100_000, "json", "line 1: is no valid JSON, or an object has more than 1048576 characters"),
        (
            b"[\n{",
            (b'"a":"' + b"note" * 250 + b'",\n') * 100,
            "json",
            "line 2: is no valid JSON, or an object has more than",
        ),
    ],
)
def test_a_record_without_an_end_is_refused_with_bounded_memory(
    first: bytes, block: bytes, ledger_format: str, why: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(LedgerFileError) as raised:
            [*read_records(LedgerPart("l", _Endless(block, first), _Unpacked(None)), _settings(ledger_format))]
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert why in str(raised.value)


@pytest.mark.parametrize("pack", [gzip.compress, lambda bomb: zipped(("a.csv", bomb), ("b.csv", bomb))])
def test_a_bomb_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_UNPACKED_BYTES_MIN", 700 * 1024)
    bomb = pack(_HEADER + b"\n" * (1024 if pack is gzip.compress else 512) * 1024)
    assert len(bomb) * 200 < 700 * 1024
    assert f"unpacks to more than {700 * 1024:,} bytes" in fault_of(bomb, tmp_path)


@pytest.mark.parametrize("ledger_format", ["csv", "ndjson", "json"])
def test_memory_is_flat_whatever_the_length_of_the_ledger(tmp_path: Path, ledger_format: str) -> None:
    note = "".join(random.Random(20).choices("abcdef", k=2000))
    if ledger_format == "csv":
        content = written(row(number, note=note) for number in range(5000))
    else:
        # Each of the first ones has another list of keys.
        names = [f"{number}{note * 4}" if number < 1000 else "note" for number in range(5000)]
        objects = [json.dumps({"amount": number, name: note}) for number, name in enumerate(names)]
        content = ("\n".join(objects) if ledger_format == "ndjson" else f"[{','.join(objects)}]").encode()
    path = tmp_path / "ledger.gz"
    path.write_bytes(gzip.compress(content, 1))
    count, content = 0, b""
    tracemalloc.start()
    try:
        with open_ledger(path) as ledger:
            for part in ledger.parts():
                count += sum(isinstance(one, Record) for one in read_records(part, _settings(ledger_format)))
        assert tracemalloc.get_traced_memory()[1] < 5 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert count == 5000


@given(st.integers(0, 2**31), st.sampled_from([gzip.compress(LEDGER, mtime=0), zipped(("a.csv", LEDGER))]))
def test_a_packed_file_with_flipped_bits_is_read_right_or_refused(seed: int, packed: bytes) -> None:
    damaged = bytearray(packed)
    for _ in range(1 + seed % 3):
        at = random.Random(seed).randrange(len(damaged))
        damaged[at] ^= 1 << seed % 8
    with tempfile.TemporaryDirectory() as folder, suppress(LedgerFileError):
        # Its name, its time and other bytes have no effect.
        assert amounts(of(bytes(damaged), Path(folder))) == AMOUNTS


def _settings(ledger_format: str) -> ReconcileSettings:
    return ReconcileSettings.model_validate({"format": ledger_format})
