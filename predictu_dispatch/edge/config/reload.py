"""What a running daemon takes from files that may have changed: every good one, and nothing of a bad one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from predictu_dispatch.core.settings import Section
from predictu_dispatch.edge.config.loader import (
    Config,
    ConfigError,
    Fault,
    OperatorConfig,
    operator_files,
    read_dispatcher,
    read_operator,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What to run by from now on, and what a person has to know of it."""

    config: Config
    """Of `dispatcher.toml` as it was at the start; an operator that did not change is the very same object."""
    faults: tuple[Fault, ...]
    kept: tuple[str, ...]
    """The operators that go on with their running settings, because what their files say now is bad."""
    needs_restart: tuple[str, ...]
    """The keys of `dispatcher.toml` whose new values wait for the next start; told at each reload until then."""


def reload_config(running: Config, environ: Mapping[str, str]) -> Reload:
    """The files as they are now, over what runs: good ones taken, bad ones kept as they ran, missing ones dropped.

    Never raises: a daemon goes on whatever its files say.
    """
    faults: list[Fault] = []
    needs_restart: tuple[str, ...] = ()
    try:
        dispatcher = read_dispatcher(running.path, environ)
        needs_restart = tuple(_changed(running.dispatcher, dispatcher))
    except ConfigError as error:
        faults += error.faults
    operators: Mapping[str, OperatorConfig]
    try:
        operators, kept, operators_faults = _operators(running, environ)
        faults += operators_faults
    except ConfigError as error:
        # The folder itself is missing or closed, which says nothing of any operator.
        operators, kept = running.operators, tuple(running.operators)
        faults += error.faults
    return Reload(
        config=replace(running, operators=MappingProxyType(dict(operators))),
        faults=tuple(faults),
        kept=kept,
        needs_restart=needs_restart,
    )


def _operators(
    running: Config, environ: Mapping[str, str]
) -> tuple[dict[str, OperatorConfig], tuple[str, ...], list[Fault]]:
    operators: dict[str, OperatorConfig] = {}
    kept: list[str] = []
    faults: list[Fault] = []
    for file in operator_files(running.path):
        runs = running.operators.get(file.stem)
        try:
            found = read_operator(file, environ)
        except ConfigError as error:
            faults += error.faults
            if runs is not None:
                operators[file.stem] = runs
                kept.append(file.stem)
        else:
            operators[file.stem] = runs if runs is not None and runs == found else found
    return operators, tuple(kept), faults


def _changed(before: Section, after: Section, prefix: str = "") -> Iterator[str]:
    """The keys whose values differ, as `section.key`; never a value, which may be a password."""
    for name in type(before).model_fields:
        one, other = getattr(before, name), getattr(after, name)
        if isinstance(one, Section) and isinstance(other, Section):
            yield from _changed(one, other, f"{prefix}{name}.")
        elif one != other:
            yield prefix + name
