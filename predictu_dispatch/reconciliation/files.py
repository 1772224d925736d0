"""Opens an operator's ledger file: plain, gzip or zip, recognized by its content; UTF-8 only.

Memory is bounded whatever the file holds. Every fault that makes the rest of a file unreadable is a
LedgerFileError, so that it never looks like the end of the file.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

from typing_extensions import override

from predictu_dispatch.core.printable import printable

RECORD_CHARS_MAX: Final = 1024 * 1024
"""Limit of a record, of one line or several."""
_BLOCK_BYTES: Final = 256 * 1024
_MEMBERS_MAX: Final = 1000
_DIRECTORY_BYTES_MAX: Final = 1024 * 1024
"""Of the list of files in a zip, which zipfile reads at once."""
_UNPACKED_RATIO_MAX: Final = 200
"""Ledgers shrink to a tenth or twentieth; a zip bomb to a thousandth."""
_UNPACKED_BYTES_MIN: Final = 64 * 1024 * 1024
"""Less is never a bomb."""

_GZIP: Final = b"\x1f\x8b"
_ZIP_END: Final = b"PK\x05\x06"
_ZIP_END_BYTES: Final = 22
"""Of the record at the end of a zip, without its comment."""
_ZIPS: Final = (b"PK\x03\x04", _ZIP_END, b"PK\x07\x08")
_REFUSED: Final = (
    (codecs.BOM_UTF32_LE, "is UTF-32; it must be UTF-8"),
    (codecs.BOM_UTF16_LE, "is UTF-16; it must be UTF-8"),
    (codecs.BOM_UTF16_BE, "is UTF-16; it must be UTF-8"),
    (codecs.BOM_UTF32_BE, "is UTF-32; it must be UTF-8"),
    (b"BZh", "is bzip2; only gzip and zip are opened"),
    (b"\xfd7zXZ", "is xz; only gzip and zip are opened"),
    (b"\x28\xb5\x2f\xfd", "is zstd; only gzip and zip are opened"),
    (b"7z\xbc\xaf", "is 7z; only gzip and zip are opened"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook; it must be text, such as CSV"),
    (b"%PDF", "is a PDF; it must be text, such as CSV"),
)
_EXCEL_MEMBER: Final = "[Content_Types].xml"
_MAC_FOLDER: Final = "__MACOSX/"
"""Holds what macOS adds to a zip about its files."""
_WHOLE: Final = ('"', "\r")
"""A line without a newline is complete if it ends with one of these."""


class LedgerFileError(Exception):
    """A file that cannot be read to its end: its name, the line if known, and why."""

    def __init__(self, name: str, why: str, *, line: int | None = None) -> None:
        super().__init__(f"{name}: {why}" if line is None else f"{name}: line {line}: {why}")
        self.name = name
        self.line = line
        self.why = why


class _Unpacked:
    """Limits what is read of a packed file, in all its members together."""

    def __init__(self, packed: int | None, bytes_max: int | None = None) -> None:
        by_ratio = None if packed is None else max(_UNPACKED_BYTES_MIN, packed * _UNPACKED_RATIO_MAX)
        self.limit = min((limit for limit in (by_ratio, bytes_max) if limit is not None), default=None)
        self._left = self.limit

    def is_too_much(self, read: int) -> bool:
        if self._left is not None:
            self._left -= read
        return self._left is not None and self._left < 0


class _Content(Protocol):
    def read(self, size: int, /) -> bytes: ...


class LedgerPart:
    """The text of a file, or of one member of a zip; to be read once."""

    def __init__(self, name: str, content: _Content, unpacked: _Unpacked) -> None:
        self.name = name
        self.is_cut = False
        """True if the last line that was read has no end: the file may be incomplete."""
        self.record_line = 1
        """The first line of the record that is being read; set by the reader of the lines."""
        self._content = content
        self._unpacked = unpacked

    def fault(self, why: str, *, line: int | None = None) -> LedgerFileError:
        """Return the error that ends the reading of this part."""
        return LedgerFileError(self.name, why, line=line)

    def texts(self) -> Iterator[str]:
        """Yield the text in pieces of any length."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        line = 0
        with _translated(self.name):
            while block := self._content.read(_BLOCK_BYTES):
                if line == 0:
                    self._check_beginning(block[:8])
                    line = 1
                if self._unpacked.is_too_much(len(block)):
                    raise self.fault(f"unpacks to more than {self._unpacked.limit:,} bytes")
                try:
                    text = decoder.decode(block)
                except UnicodeDecodeError as error:
                    line += error.object.count(b"\n", 0, error.start)
                    raise self.fault("is not UTF-8", line=line) from error
                line += block.count(b"\n")
                yield text
            if decoder.getstate()[0]:
                raise self.fault("is not UTF-8", line=line)

    def lines(self) -> Iterator[str]:
        """Yield every line with its end. Lines end at a newline only."""
        rest, chars, of_line = "", 0, 0
        for text in self.texts():
            chars = len(text) + (chars if self.record_line == of_line else 0)
            of_line = self.record_line
            if chars > RECORD_CHARS_MAX:
                raise self.fault(f"a record has more than {RECORD_CHARS_MAX} characters", line=of_line)
            found = io.StringIO(rest + text, newline="\n").readlines()
            rest = found.pop() if found and not found[-1].endswith("\n") else ""
            yield from found
        if rest:
            self.is_cut = not rest.endswith(_WHOLE)
            yield rest

    def _check_beginning(self, beginning: bytes) -> None:
        if beginning.startswith((_GZIP, *_ZIPS)):
            raise self.fault("is an archive in an archive; pack the ledger once")
        if why := next((why for magic, why in _REFUSED if beginning.startswith(magic)), None):
            raise self.fault(why)
        if b"\0" in beginning[:4]:
            raise self.fault("is UTF-16 or not text; it must be UTF-8")


class _Archive(io.BufferedReader):
    """A zip whose list of files is not longer than allowed."""

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        # Without a size, zipfile reads the end of the file, which has a limit.
        if size is not None and size > _DIRECTORY_BYTES_MAX:
            raise zipfile.BadZipFile(f"its list of files has more than {_DIRECTORY_BYTES_MAX} bytes")
        return super().read(size)


class LedgerFile:
    """An open file."""

    def __init__(self, name: str, file: IO[bytes], *, bytes_max: int | None = None) -> None:
        """`bytes_max` also limits what a packed file unpacks to."""
        self.name = name
        self._file = file
        self._bytes_max = bytes_max
        self._version = _version(file)
        self.size_bytes = self._version[0]
        self.sha256 = _sha256(file)
        """Lower-case hex, of the file as it was given."""

    def parts(self) -> Iterator[LedgerPart]:
        """Yield the file, or the members of a zip; each must be read before the next one."""
        with _translated(self.name):
            self._file.seek(0)
            beginning = self._file.read(4)
            self._file.seek(0)
            if beginning.startswith(_ZIPS):
                yield from self._members()
            elif beginning.startswith(_GZIP):
                with gzip.GzipFile(fileobj=self._file) as content:
                    yield LedgerPart(self.name, content, _Unpacked(self.size_bytes, self._bytes_max))
            else:
                yield LedgerPart(self.name, self._file, _Unpacked(None))
            if _version(self._file) != self._version:
                raise LedgerFileError(self.name, "changed while it was read")

    def _members(self) -> Iterator[LedgerPart]:
        unpacked = _Unpacked(self.size_bytes, self._bytes_max)
        raw = io.FileIO(self._file.fileno(), closefd=False)
        with _Archive(raw) as file, zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith(_MAC_FOLDER)]
            if not 0 < len(members) <= _MEMBERS_MAX:
                raise LedgerFileError(self.name, f"has {len(members)} files; a zip has 1 to {_MEMBERS_MAX}")
            if any(member.filename == _EXCEL_MEMBER for member in members):
                raise LedgerFileError(self.name, "is an Excel workbook; it must be text, such as CSV")
            # Of joined zips, zipfile reads the last one only.
            file.seek(-_ZIP_END_BYTES - len(archive.comment), os.SEEK_END)
            if file.read(4) != _ZIP_END or min(member.header_offset for member in archive.infolist()):
                raise LedgerFileError(self.name, "has more before or after its zip; give each file by itself")
            for member in members:
                name = f"{self.name}/{printable(member.filename)}"
                if member.flag_bits & 1:
                    raise LedgerFileError(name, "is encrypted")
                with archive.open(member) as content:
                    yield LedgerPart(name, content, unpacked)


@contextmanager
def open_ledger(path: Path) -> Iterator[LedgerFile]:
    """Open a ledger file and compute its hash; raises LedgerFileError."""
    full_name = printable(str(path))
    with _translated(full_name):
        # A pipe has no size, cannot be read twice, and may block.
        if not stat.S_ISREG(path.stat().st_mode):
            raise LedgerFileError(full_name, "is not a regular file")
        file = path.open("rb")
    with file:
        with _translated(full_name):
            ledger = LedgerFile(printable(path.name), file)
        yield ledger


def _version(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turn what reading may raise into LedgerFileError."""
    try:
        yield
    except EOFError as error:
        raise LedgerFileError(name, "is truncated: the archive has no end") from error
    except (zlib.error, lzma.LZMAError, struct.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise LedgerFileError(name, f"is damaged: {error}") from error
    except NotImplementedError as error:
        raise LedgerFileError(name, f"cannot be unpacked: {error}") from error
    except OSError as error:
        raise LedgerFileError(name, f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        # A path with a zero byte, or an archive with impossible numbers.
        raise LedgerFileError(name, f"cannot be read: {error}") from error
