"""Loads the whole configuration at the start, and reloads it while the daemon runs.

`load_config` takes everything or refuses with every fault of every file. `reload_config` takes the
good files and keeps the running settings of operators whose files are bad.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from predictu_dispatch.core.dsn import Surroundings
from predictu_dispatch.core.section import Section
from predictu_dispatch.core.settings import DispatcherSettings, shown
from predictu_dispatch.edge.config.audit_key import AuditKeys, read_audit_keys, shared_audit_key
from predictu_dispatch.edge.config.files import (
    ConfigError,
    Fault,
    faults_of,
    located,
    read_file,
    read_toml,
    system_message,
)
from predictu_dispatch.edge.config.operator_file import OperatorConfig, operator_files, read_operator
from predictu_dispatch.edge.config.secrecy import exposures

DSN_VARIABLE: Final = "PREDICTU_DISPATCH_DSN"
VARIABLES: Final = {
    "database.dsn": DSN_VARIABLE,
    "daemon.instance": "PREDICTU_DISPATCH_INSTANCE",
    "http.listen": "PREDICTU_DISPATCH_LISTEN",
    "http.keys_listen": "PREDICTU_DISPATCH_KEYS_LISTEN",
}
"""Environment variables win over the file, so that a host's daemons can share `dispatcher.toml`."""
_NOT_USED_BY_DAEMONS: Final = frozenset({"certify"})
"""Sections of dispatcher.toml whose change needs no restart."""
_DSN_FILE_PREFIX: Final = "file:"
_IF_MISSING: Final = "; set --config or PREDICTU_DISPATCH_CONFIG to its path"


def read_dispatcher(path: Path, environ: Mapping[str, str], *, needs_file: bool = True) -> DispatcherSettings:
    """Returns the settings of a daemon; raises ConfigError with all faults.

    Environment variables win, `file:NAME` is replaced by the DSN in that file, and the default of
    `daemon.instance` is the host's name. Without `needs_file`, a missing file is an empty one if
    the environment has the DSN.
    """
    if not needs_file and environ.get(DSN_VARIABLE) and not os.path.lexists(path):
        given: dict[str, Any] = {}
    else:
        given = read_toml(path, if_missing=_IF_MISSING if needs_file else f"{_IF_MISSING}, or {DSN_VARIABLE} to a DSN")
    overridden = {key: variable for key, variable in VARIABLES.items() if environ.get(variable)}
    for key, variable in overridden.items():
        section, _, name = key.partition(".")
        given[section] = _with(given.get(section, {}), **{name: environ[variable]})
    dsn_files, unread = _read_dsn_files(given.get("database"), path, environ)
    daemon = given.get("daemon", {})
    if isinstance(daemon, dict) and daemon.get("instance", "") == "":
        given["daemon"] = _with(daemon, instance=socket.gethostname())
    try:
        return DispatcherSettings.model_validate(
            given, context=Surroundings(environ=environ, unusable_file=_unusable_file)
        )
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

    Returns, by dotted key, the replaced texts, and why a file could not be read.
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
        file = located(text.removeprefix(_DSN_FILE_PREFIX), path, environ)
        try:
            # A file written by an editor or `echo` ends with a newline.
            content = read_file(file).decode().strip()
            exposed = "; ".join(exposures([file], environ))
        except OSError as error:
            unread[key] = f"{system_message(error)}; must be a file that holds a DSN, or a systemd credential"
        except UnicodeDecodeError:
            unread[key] = "is not text; must be a file that holds a DSN"
        else:
            # An empty listen_dsn would mean something else.
            if content and not exposed:
                database[name] = content
            else:
                unread[key] = exposed or "is empty; must be a file that holds a DSN"
    return named, unread


def _unusable_file(files: Mapping[str, str]) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, file in files.items():
        try:
            if name in ("sslrootcert", "sslcrl"):
                context.load_verify_locations(cafile=file)
            elif name == "sslcert":
                context.load_cert_chain(file, files.get("sslkey"), lambda: files.get("sslpassword", ""))
            elif name != "sslpassword":
                Path(file).read_bytes()
        except (OSError, ValueError):
            return name
    return None


def _with(table: object, **values: str) -> object:
    return {**table, **values} if isinstance(table, dict) else table


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A daemon's whole configuration. `operators` is read-only, by operator_id, sorted by name."""

    path: Path
    dispatcher: DispatcherSettings
    operators: Mapping[str, OperatorConfig]
    audit_keys: AuditKeys | None = None
    """None if no log is sealed."""


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Returns the configuration; raises ConfigError with all faults of all files."""
    faults: list[Fault] = []
    dispatcher: DispatcherSettings | None = None
    operators: dict[str, OperatorConfig] = {}
    files: tuple[Path, ...] = ()
    try:
        dispatcher = read_dispatcher(path, environ)
    except ConfigError as error:
        faults += error.faults
    try:
        files = operator_files(path)
    except ConfigError as error:
        faults += error.faults
    for file in files:
        try:
            operators[file.stem] = read_operator(file, environ)
        except ConfigError as error:
            faults += error.faults
    faults += _shared_keys(operators).values()
    audit_keys = None
    if dispatcher is not None:
        audit_keys, audit_faults = _read_audit_keys(dispatcher, path, operators, environ)
        faults += audit_faults
    if faults or dispatcher is None:
        raise ConfigError(tuple(faults))
    return Config(path=path, dispatcher=dispatcher, operators=MappingProxyType(operators), audit_keys=audit_keys)


def _read_audit_keys(
    dispatcher: DispatcherSettings, path: Path, operators: Mapping[str, OperatorConfig], environ: Mapping[str, str]
) -> tuple[AuditKeys | None, list[Fault]]:
    try:
        keys = read_audit_keys(dispatcher.audit, path, environ)
    except ConfigError as error:
        return None, [*error.faults]
    published = {operator_id: operator.published_keys for operator_id, operator in operators.items()}
    return keys, [] if keys is None else shared_audit_key(keys, published, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """The configuration to run with from now on, and what to report about it."""

    config: Config
    """`dispatcher` is as at the start. An unchanged operator is the same object as before."""
    faults: tuple[Fault, ...]
    kept: tuple[str, ...]
    """The operators that keep their running settings, because their files are bad now."""
    needs_restart: tuple[str, ...]
    """Changed keys of `dispatcher.toml`, reported at each reload until the next start."""


def reload_config(running: Config, environ: Mapping[str, str]) -> Reload:
    """Takes good files, keeps running settings for bad ones, drops operators without a file.

    Never raises.
    """
    faults: list[Fault] = []
    needs_restart: tuple[str, ...] = ()
    try:
        dispatcher = read_dispatcher(running.path, environ)
        changed = _changed_keys(running.dispatcher, dispatcher)
        needs_restart = tuple(key for key in changed if key.partition(".")[0] not in _NOT_USED_BY_DAEMONS)
    except ConfigError as error:
        faults += error.faults
    operators: Mapping[str, OperatorConfig]
    try:
        operators, kept, operator_faults = _reload_operators(running, environ)
        faults += operator_faults
    except ConfigError as error:
        # The folder is missing or unreadable, which says nothing about any operator.
        operators, kept = running.operators, tuple(running.operators)
        faults += error.faults
    # The settings are those of the start; the key files may have been rotated.
    audit_keys, audit_faults = _read_audit_keys(running.dispatcher, running.path, operators, environ)
    faults += audit_faults
    return Reload(
        config=replace(
            running,
            operators=MappingProxyType(dict(operators)),
            audit_keys=running.audit_keys if audit_faults else audit_keys,
        ),
        faults=tuple(faults),
        kept=kept,
        needs_restart=needs_restart,
    )


def take_back(reload: Reload, running: Config, failed: Mapping[str, Exception]) -> Reload:
    """Takes back the operators for which no connections can be made, as if their files were bad."""
    operators = dict(reload.config.operators)
    faults = [
        Fault(
            file=str(operators[operator_id].file),
            allowed=f"no connections can be made with it: {type(error).__name__}: {error}; correct it and reload",
        )
        for operator_id, error in failed.items()
    ]
    kept = _take_back(operators, running, failed)
    more_kept, more_faults = _part_shared_keys(operators, running)
    return replace(
        reload,
        config=replace(reload.config, operators=MappingProxyType(operators)),
        faults=(*reload.faults, *faults, *more_faults),
        kept=(*reload.kept, *kept, *more_kept),
    )


def _reload_operators(
    running: Config, environ: Mapping[str, str]
) -> tuple[dict[str, OperatorConfig], tuple[str, ...], list[Fault]]:
    operators: dict[str, OperatorConfig] = {}
    kept: list[str] = []
    faults: list[Fault] = []
    for file in operator_files(running.path):
        current = running.operators.get(file.stem)
        try:
            loaded = read_operator(file, environ)
        except ConfigError as error:
            faults += error.faults
            if current is not None:
                operators[file.stem] = current
                kept.append(file.stem)
        else:
            operators[file.stem] = current if current is not None and current == loaded else loaded
    more_kept, more_faults = _part_shared_keys(operators, running)
    return operators, (*kept, *more_kept), [*faults, *more_faults]


def _part_shared_keys(operators: dict[str, OperatorConfig], running: Config) -> tuple[list[str], list[Fault]]:
    """Takes back changes until no two operators share a key; returns who is kept, and why."""
    kept: list[str] = []
    faults: list[Fault] = []
    # Every round takes back at least one change; what runs shares no key.
    while shared := {
        operator_id: fault
        for operator_id, fault in _shared_keys(operators).items()
        if operators[operator_id] is not running.operators.get(operator_id)
    }:
        faults += shared.values()
        kept += _take_back(operators, running, shared)
    return kept, faults


def _take_back(operators: dict[str, OperatorConfig], running: Config, names: Iterable[str]) -> list[str]:
    """Replaces these by what runs, or removes new ones; returns those that run."""
    kept = []
    for operator_id in names:
        if (current := running.operators.get(operator_id)) is not None:
            operators[operator_id] = current
            kept.append(operator_id)
        else:
            del operators[operator_id]
    return kept


def _shared_keys(operators: Mapping[str, OperatorConfig]) -> dict[str, Fault]:
    """A fault for each operator that has a key of another one, which could then act in its name."""
    owners: dict[str, list[str]] = {}
    for operator_id, operator in operators.items():
        for key in operator.published_keys:
            owners.setdefault(key.kid, []).append(operator_id)
    return {
        operator_id: Fault(
            file=str(operators[operator_id].file),
            key="signing.key_file",
            value=shown(operators[operator_id].settings.signing.key_file),
            allowed=f"key {kid} is also that of {', '.join(one for one in names if one != operator_id)}; each operator"
            f" needs its own: set another key_file, then predictu-dispatch keys new {operator_id}",
        )
        for kid, names in owners.items()
        if len(names) > 1
        for operator_id in names
    }


def _changed_keys(before: Section, after: Section, prefix: str = "") -> Iterator[str]:
    """The keys whose values differ, as `section.key`; never a value, which may be a password."""
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, Section) and isinstance(new, Section):
            yield from _changed_keys(old, new, f"{prefix}{name}.")
        elif old != new:
            yield prefix + name
