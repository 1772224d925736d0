"""Reads `dispatcher.toml`, with the environment variables and DSN files that complete it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from predictu_dispatch.core.settings import DispatcherSettings, shown
from predictu_dispatch.edge.config.files import (
    ConfigError,
    Fault,
    faults_of,
    located,
    read_file,
    read_toml,
    system_message,
)

DSN_VARIABLE: Final = "PREDICTU_DISPATCH_DSN"
VARIABLES: Final = {
    "database.dsn": DSN_VARIABLE,
    "daemon.instance": "PREDICTU_DISPATCH_INSTANCE",
    "http.listen": "PREDICTU_DISPATCH_LISTEN",
}
"""Environment variables win over the file, so that several daemons of a host can share one
`dispatcher.toml`."""
_DSN_FILE_PREFIX: Final = "file:"


def read_dispatcher(path: Path, environ: Mapping[str, str]) -> DispatcherSettings:
    """Returns the settings of a daemon; raises ConfigError with all faults.

    Environment variables win, `file:NAME` is replaced by the DSN in that file, and the host's name
    is the default of `daemon.instance`.
    """
    given = read_toml(path, if_missing="; set --config or PREDICTU_DISPATCH_CONFIG to its path")
    overridden = {key: variable for key, variable in VARIABLES.items() if environ.get(variable)}
    for key, variable in overridden.items():
        section, _, name = key.partition(".")
        given[section] = _with(given.get(section, {}), **{name: environ[variable]})
    dsn_files, unread = _read_dsn_files(given.get("database"), path, environ)
    daemon = given.get("daemon", {})
    if isinstance(daemon, dict) and daemon.get("instance", "") == "":
        given["daemon"] = _with(daemon, instance=socket.gethostname())
    try:
        return DispatcherSettings.model_validate(given)
    except ValidationError as error:
        found = faults_of(error, DispatcherSettings, given, path)

    def with_source(fault: Fault) -> Fault:
        key = fault.key
        if key in dsn_files:
            fault = replace(fault, value=shown(dsn_files[key]), allowed=unread.get(key, fault.allowed))
        return replace(fault, file="environment", key=overridden[key]) if key in overridden else fault

    raise ConfigError(tuple(map(with_source, found)))


def _read_dsn_files(database: object, path: Path, environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Replaces each DSN of `database` that is written as `file:NAME` by what the file holds.

    Returns, by dotted key, the texts that were replaced, and why a file could not be read. A key
    whose file cannot be read stays as it is, which is not a valid DSN.
    """
    named: dict[str, str] = {}
    unread: dict[str, str] = {}
    if not isinstance(database, dict):
        return named, unread
    for name in ("dsn", "listen_dsn"):
        key, text = f"database.{name}", database.get(name)
        if not isinstance(text, str) or not text.startswith(_DSN_FILE_PREFIX):
            continue
        named[key] = text
        try:
            # A file written by an editor or `echo` ends with a newline.
            content = read_file(located(text.removeprefix(_DSN_FILE_PREFIX), path, environ)).decode().strip()
        except OSError as error:
            unread[key] = f"{system_message(error)}; must be a file that holds a DSN, or a systemd credential"
        except UnicodeDecodeError:
            unread[key] = "is not text; must be a file that holds a DSN"
        else:
            # An empty listen_dsn would mean something else.
            if content:
                database[name] = content
            else:
                unread[key] = "is empty; must be a file that holds a DSN"
    return named, unread


def _with(table: object, **values: str) -> object:
    return {**table, **values} if isinstance(table, dict) else table
