"""A DSN that is kept in a file of its own, because it holds a password: `dsn = "file:NAME"`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from predictu_dispatch.edge.config.files import bytes_of, located, why

_PREFIX: Final = "file:"


def read_dsn_files(database: object, path: Path, environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Each DSN in `database` that is named by its file is replaced by what the file holds.

    NAME is relative to `path`, or a systemd credential, as for `key_file`. Returns by dotted key what was said there,
    and why a file could not be read; such a key is left as it is, which is no DSN.
    """
    named: dict[str, str] = {}
    unread: dict[str, str] = {}
    if not isinstance(database, dict):
        return named, unread
    for key in ("dsn", "listen_dsn"):
        said = database.get(key)
        if not isinstance(said, str) or not said.startswith(_PREFIX):
            continue
        named[f"database.{key}"] = said
        try:
            # A file that an editor or `echo` wrote ends with a newline.
            content = bytes_of(located(said.removeprefix(_PREFIX), path, environ)).decode().strip()
        except OSError as error:
            unread[f"database.{key}"] = f"{why(error)}; must be a file that holds a DSN, or a systemd credential"
        except UnicodeDecodeError:
            unread[f"database.{key}"] = "is not text; must be a file that holds a DSN"
        else:
            # An empty listen_dsn would mean something else.
            if content:
                database[key] = content
            else:
                unread[f"database.{key}"] = "is empty; must be a file that holds a DSN"
    return named, unread
