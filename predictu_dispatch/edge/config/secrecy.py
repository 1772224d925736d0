"""Whether other users of this machine can read or replace a secret on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from predictu_dispatch.edge.config.files import is_credential

_ROOT: Final = 0


def exposures(secrets: Iterable[Path], environ: Mapping[str, str]) -> list[str]:
    """How others can read or replace these files, each with what to do; empty if they are private.

    Credentials are not checked: systemd gives them to the unit's user by an ACL. Files that do not
    exist are refused elsewhere.
    """
    files = [file for file in secrets if not is_credential(file, environ) and _is_there(file)]
    # Both paths count: a link can be replaced as well as the file that it names.
    folders = dict.fromkeys(
        folder for file in files for path in (file.absolute(), file.resolve()) for folder in path.parents
    )
    return [*filter(None, map(_file_exposure, files)), *filter(None, map(_folder_exposure, folders))]


def _is_there(file: Path) -> bool:
    try:
        file.stat()
    except (OSError, ValueError):
        return False
    return True


def _file_exposure(file: Path) -> str | None:
    found, us = file.stat(), os.geteuid()
    mode = stat.S_IMODE(found.st_mode)
    if us not in (_ROOT, found.st_uid) and found.st_uid != _ROOT:
        return f"{file} belongs to another user; run: chown {us} {file}"
    # A file of root may be readable by our group, because we have no other way to read it.
    allowed = 0o640 if found.st_uid == _ROOT != us else 0o600
    if mode & ~allowed & 0o077:
        return f"others can access {file} (mode {mode:04o}); run: chmod {allowed:o} {file}"
    return None


def _folder_exposure(folder: Path) -> str | None:
    """A user who can write to a folder can replace its files, unless it is sticky as /tmp is."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return f"others can write to the folder {folder} (mode {mode:04o}); run: chmod go-w {folder}"
    return None
