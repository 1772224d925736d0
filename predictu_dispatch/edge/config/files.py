"""Finds and reads the files of a configuration, and describes what is wrong with them."""

from __future__ import annotations

import errno
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from typing_extensions import override

from predictu_dispatch.core.section import Section
from predictu_dispatch.core.settings import refusals

FILE_BYTES_MAX: Final = 1024 * 1024
"""A hundred times the longest sensible configuration, key or certificate file."""
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
"""The folder in which systemd puts the credentials of a unit. Source: systemd.exec(5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing to fix; never holds a secret. `key` and `value` are "" for the file as a whole."""

    file: str
    key: str = ""
    value: str = ""
    allowed: str

    @override
    def __str__(self) -> str:
        """One line: file, dotted key, value, what is allowed or what to do."""
        where = f"{self.key} = {self.value}" if self.value else self.key
        line = ": ".join(part for part in (self.file, where, self.allowed) if part)
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


class ConfigError(Exception):
    """The configuration cannot be used: `faults` has every reason, `str` has one line for each."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


def faults_of(
    error: ValidationError, model: type[Section], given: Mapping[str, object], file: Path
) -> tuple[Fault, ...]:
    """Every key of `file` that `model` refused."""
    return tuple(
        Fault(file=str(file), key=refusal.key, value=refusal.value, allowed=refusal.allowed)
        for refusal in refusals(error, model, given)
    )


def located(name: str, file: Path, environ: Mapping[str, str]) -> Path:
    """Returns the path of a file that the configuration file `file` names, relative to it.

    If it cannot be read, it is the systemd credential of that name, with `_` for each `/`, as
    systemd names a loaded folder's files. So one line serves a person's shell and the daemon.
    """
    beside = file.parent / name
    credentials = environ.get(CREDENTIALS_VARIABLE)
    if credentials and not _is_readable(beside):
        credential = Path(credentials) / name.replace("/", "_")
        # Path.exists raises for a name that is too long.
        return credential if os.path.lexists(credential) else beside
    return beside


def _is_readable(path: Path) -> bool:
    try:
        return os.access(path, os.R_OK)
    except ValueError:
        return False  # Not a path: the text has a zero byte.


def is_credential(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether systemd provides the file; then only the unit can change it."""
    credentials = environ.get(CREDENTIALS_VARIABLE)
    return bool(credentials) and path.parent == Path(str(credentials))


def read_file(path: Path) -> bytes:
    """Returns the file's bytes; raises OSError also if it is too long or not a regular file."""
    # A pipe would block the daemon forever.
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


def read_toml(path: Path, *, if_missing: str = "") -> dict[str, Any]:
    """Returns the file's tables. Raises ConfigError; `if_missing` is added for a missing file."""
    try:
        return tomllib.loads(read_file(path).decode())
    except OSError as error:
        hint = if_missing if isinstance(error, FileNotFoundError) else ""
        allowed = f"{system_message(error)}; must be a readable TOML file{hint}"
    except tomllib.TOMLDecodeError as error:
        allowed = f"not valid TOML: {error}"
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        allowed = f"not valid TOML: not UTF-8 (at line {line}, column {column})"
    except (ValueError, RecursionError):
        allowed = "not valid TOML: a number has too many digits, or brackets are nested too deeply"
    raise ConfigError((Fault(file=str(path), allowed=allowed),))


def system_message(error: OSError) -> str:
    """The system's message, to be used inside a sentence."""
    return (error.strerror or type(error).__name__).lower()
