"""Writes a ZIP that has one form only: the same files give the same bytes (FORMAT.md, "Bundles").

Files are stored, sorted by name, dated 1980-01-01, without comments and extra fields.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import BinaryIO, Final
from zlib import crc32

LAST: Final = "bundle.json"
"""It lists all other files, so it is known last and written last."""
FILES_MAX: Final = 65_000
BYTES_MAX: Final = 2**31 - 1
NAME_BYTES_MAX: Final = 200

_LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<4sHHHHIIH")
_VERSION: Final = 20
_UNIX: Final = 3 << 8
_DATE: Final = 0x21
_MODE: Final = 0o100644 << 16


class ZipTooLargeError(ValueError):
    """The archive would need more than the format allows."""


class StoredZip:
    """An archive that is being written; `hashes` has the SHA-256 of each file so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._directory: list[bytes] = []
        self._position = 0
        self.hashes: dict[str, str] = {}

    def add(self, name: str, content: bytes) -> None:
        """Append a file. Names come in ascending order, except LAST."""
        before = next(reversed(self.hashes), "")
        if before == LAST or (name != LAST and name <= before) or not name.isascii() or len(name) > NAME_BYTES_MAX:
            raise ValueError(f"{name} cannot come after {before}")
        if self._position + len(content) > BYTES_MAX or len(self.hashes) == FILES_MAX:
            raise ZipTooLargeError(f"more than {BYTES_MAX:,} bytes or {FILES_MAX:,} files")
        encoded = name.encode("ascii")
        fixed = (_VERSION, 0, 0, 0, _DATE, crc32(content), len(content), len(content), len(encoded))
        self._file.write(_LOCAL.pack(b"PK\x03\x04", *fixed, 0) + encoded)
        self._file.write(content)
        line = _CENTRAL.pack(b"PK\x01\x02", _UNIX | _VERSION, *fixed, 0, 0, 0, 0, _MODE, self._position)
        self._directory.append(line + encoded)
        self._position += _LOCAL.size + len(encoded) + len(content)
        self.hashes[name] = sha256(content).hexdigest()

    def close(self) -> int:
        """Write the directory; return the archive's size."""
        directory = b"".join(self._directory)
        count = len(self._directory)
        self._file.write(directory)
        self._file.write(_END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), self._position, 0))
        return self._position + len(directory) + _END.size
