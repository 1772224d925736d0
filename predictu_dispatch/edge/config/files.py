"""Files of a configuration, whoever names them: where they lie, and their bytes, bounded."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FILE_BYTES_MAX: Final = 1024 * 1024
"""A hundred times the longest sensible file; whatever is longer is not a configuration, a key or a certificate."""
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
"""Where systemd puts the credentials of a unit. Source: systemd.exec(5)."""


def located(name: str, file: Path, environ: Mapping[str, str]) -> Path:
    """Where a file that a configuration file names is: beside it or, if we can read none there, systemd's credential.

    A credential has the same name with `_` for each `/`, as systemd itself calls the files of a folder that a unit
    loads. So one line serves a person's shell, which reads the file, and the daemon, which may read only the other.
    """
    beside = file.parent / name
    credentials = environ.get(CREDENTIALS_VARIABLE)
    if credentials and not _is_readable(beside):
        credential = Path(credentials) / name.replace("/", "_")
        # os.path and not Path.exists, which raises for a name that is too long.
        return credential if os.path.lexists(credential) else beside
    return beside


def _is_readable(path: Path) -> bool:
    try:
        return os.access(path, os.R_OK)
    except ValueError:
        return False  # No path at all, as text with a zero byte.


def is_credential(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether systemd put the file there; then only the unit can change it."""
    credentials = environ.get(CREDENTIALS_VARIABLE)
    return bool(credentials) and path.parent == Path(str(credentials))


def bytes_of(path: Path) -> bytes:
    """The file's bytes; raises OSError also for what is no file or too long. A pipe would block the daemon for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except ValueError as error:
        raise OSError(errno.EINVAL, "not a path", str(path)) from error
    if len(content) > FILE_BYTES_MAX:
        raise OSError(errno.EFBIG, f"longer than {FILE_BYTES_MAX} bytes", str(path))
    return content


def why(error: OSError) -> str:
    """What the system said, for the middle of a sentence."""
    return (error.strerror or type(error).__name__).lower()
