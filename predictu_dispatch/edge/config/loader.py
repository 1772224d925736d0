"""Loads the whole configuration at the start, and reloads it while the daemon runs.

`load_config` takes everything or refuses with every fault of every file. `reload_config` takes the
good files and keeps the running settings of operators whose files are bad.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from predictu_dispatch.core.settings import DispatcherSettings, Section
from predictu_dispatch.edge.config.dispatcher_file import read_dispatcher
from predictu_dispatch.edge.config.files import ConfigError, Fault
from predictu_dispatch.edge.config.operator_file import OperatorConfig, operator_files, read_operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A daemon's whole configuration. `operators` is read-only, by operator_id, sorted by name."""

    path: Path
    dispatcher: DispatcherSettings
    operators: Mapping[str, OperatorConfig]


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
    if faults or dispatcher is None:
        raise ConfigError(tuple(faults))
    return Config(path=path, dispatcher=dispatcher, operators=MappingProxyType(operators))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """The configuration to run with from now on, and what to report about it."""

    config: Config
    """`dispatcher` is as it was at the start. An unchanged operator is the same object as
    before."""
    faults: tuple[Fault, ...]
    kept: tuple[str, ...]
    """The operators that keep their running settings, because their files are bad now."""
    needs_restart: tuple[str, ...]
    """The keys of `dispatcher.toml` whose new values take effect at the next start; reported at
    each reload."""


def reload_config(running: Config, environ: Mapping[str, str]) -> Reload:
    """Takes good files, keeps running settings for bad ones, drops operators without a file.

    Never raises: the daemon keeps running whatever its files say.
    """
    faults: list[Fault] = []
    needs_restart: tuple[str, ...] = ()
    try:
        dispatcher = read_dispatcher(running.path, environ)
        needs_restart = tuple(_changed_keys(running.dispatcher, dispatcher))
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
    return Reload(
        config=replace(running, operators=MappingProxyType(dict(operators))),
        faults=tuple(faults),
        kept=kept,
        needs_restart=needs_restart,
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
    return operators, tuple(kept), faults


def _changed_keys(before: Section, after: Section, prefix: str = "") -> Iterator[str]:
    """The keys whose values differ, as `section.key`; never a value, which may be a password."""
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, Section) and isinstance(new, Section):
            yield from _changed_keys(old, new, f"{prefix}{name}.")
        elif old != new:
            yield prefix + name
