"""Reads a bundle's ZIP in the only form that FORMAT.md allows, in bounded memory.

The files are uncompressed and sorted by name with bundle.json last, and every other field of the
headers is fixed. Each byte is compared with that form, so the archive cannot have compression, a
comment, an extra field, a second directory or hidden data.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

MANIFEST: Final = "bundle.json"
FILES_MAX: Final = 65_000
ARCHIVE_BYTES_MAX: Final = 2**31 - 1
"""Below the limit of ZIP without its 64-bit extension."""
_NAME_BYTES_MAX: Final = 200
_CHUNK_BYTES: Final = 1 << 16
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII)

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_DATE: Final = 0x21
"""1980-01-01, the first day that ZIP knows."""
_FIXED: Final = (20, 0, 0, 0, _DATE)
"""Version 2.0, no flags, stored, the time 00:00 and the date."""
_MADE_BY: Final = 3 << 8 | 20
_MODE: Final = 0o100644 << 16


class RefusedError(Exception):
    """The bundle is not of the form that FORMAT.md describes; `file` is the part at fault."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive: where its bytes are, and their hash."""

    name: str
    offset: int
    size: int
    sha256: str


class Archive:
    """An archive whose form has been verified. Files are read when they are asked for."""

    def __init__(self, file: BinaryIO, members: dict[str, Member]) -> None:
        self._file = file
        self.members = members

    def read(self, name: str, bytes_max: int) -> bytes:
        """Return a file's bytes; refused if it has more than `bytes_max`."""
        member = self.members[name]
        if member.size > bytes_max:
            raise RefusedError(name, f"it has {member.size:,} bytes; at most {bytes_max:,} are read")
        self._file.seek(member.offset)
        content = self._file.read(member.size)
        if sha256(content).hexdigest() != member.sha256:
            raise RefusedError(name, "it was changed while it was read")
        return content


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a bundle and verify its form. Raises RefusedError or OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size > ARCHIVE_BYTES_MAX:
            raise RefusedError(path.name, f"it has {size:,} bytes; at most {ARCHIVE_BYTES_MAX:,} are read")
        file.seek(0)
        yield Archive(file, _members(file, path.name))


def _members(file: BinaryIO, archive: str) -> dict[str, Member]:
    members: dict[str, Member] = {}
    directory = []
    position, before = 0, ""
    while (signature := _exactly(file, 4, before or archive)) == b"PK\x03\x04":
        member, crc = _member(file, signature, position, before or archive)
        _check_order(member.name, before)
        if len(members) == FILES_MAX:
            raise RefusedError(member.name, f"it is one more than the {FILES_MAX:,} files that are read")
        members[member.name] = member
        name = member.name.encode()
        sizes = (crc, member.size, member.size)
        directory.append(
            _CENTRAL.pack(b"PK\x01\x02", _MADE_BY, *_FIXED, *sizes, len(name), 0, 0, 0, 0, _MODE, position) + name
        )
        position, before = member.offset + member.size, member.name
    if signature != b"PK\x01\x02":
        where = archive if before in ("", MANIFEST) else f"{before} (the file after it)"
        raise RefusedError(where, "neither a file nor the directory follows")
    file.seek(position)
    for listed, expected in zip(members, directory, strict=True):
        if file.read(len(expected)) != expected:
            raise RefusedError(listed, "its line in the archive's directory is not the one that fits the file")
    count, length = len(members), sum(map(len, directory))
    if file.read(_END.size) != _END.pack(b"PK\x05\x06", 0, 0, count, count, length, position, 0):
        raise RefusedError(archive, "the end of the archive does not fit its files")
    if file.read(1):
        raise RefusedError(archive, "there are bytes behind the end of the archive")
    if before != MANIFEST:
        raise RefusedError(MANIFEST, "it is missing, or not the last file")
    return members


def _member(file: BinaryIO, signature: bytes, position: int, before: str) -> tuple[Member, int]:
    after = f"{before} (the file after it)"
    header = _LOCAL.unpack(signature + _exactly(file, _LOCAL.size - 4, after))
    *fixed, crc, packed, size, name_bytes, extra_bytes = header[1:]
    if name_bytes > _NAME_BYTES_MAX:
        raise RefusedError(after, f"its name has more than {_NAME_BYTES_MAX} bytes")
    raw = _exactly(file, name_bytes, after)
    name = raw.decode("ascii", "backslashreplace")
    if not _NAME.fullmatch(name):
        raise RefusedError(ascii(name), "no file of a bundle has such a name")
    if tuple(fixed) != _FIXED:
        raise RefusedError(name, "its header is not that of a plain stored file of 1980-01-01")
    if packed != size or extra_bytes:
        raise RefusedError(name, "its header has two sizes or an extra field")
    offset = position + _LOCAL.size + name_bytes
    found_crc, digest, left = 0, sha256(), size
    while left:
        chunk = _exactly(file, min(left, _CHUNK_BYTES), name)
        found_crc = crc32(chunk, found_crc)
        digest.update(chunk)
        left -= len(chunk)
    if found_crc != crc:
        raise RefusedError(name, "its bytes do not have the checksum of its header")
    return Member(name, offset, size, digest.hexdigest()), crc


def _check_order(name: str, before: str) -> None:
    if before == MANIFEST:
        raise RefusedError(name, f"it comes after {MANIFEST}, which must be the last file")
    if name != MANIFEST and before and name <= before:
        raise RefusedError(name, f"the files are not sorted: it comes after {before}")


def _exactly(file: BinaryIO, count: int, name: str) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise RefusedError(name, "the archive ends in the middle of it")
    return content
