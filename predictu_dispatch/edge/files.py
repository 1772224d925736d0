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
    """Where a file that an operator's file names is: beside it or, if nothing is there, among systemd's credentials."""
    beside = file.parent / name
    credentials = environ.get(CREDENTIALS_VARIABLE)
    # os.path and not Path.exists, which raises for a name that is too long or in a closed folder.
    if credentials and not os.path.lexists(beside) and Path(name).name == name:
        credential = Path(credentials) / name
        return credential if os.path.lexists(credential) else beside
    return beside


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
