"""What every command is told: where the configuration is, and whether a program is reading.

`common_options` gives a command both options and hands it one `Invocation`. Heavy modules are imported inside the
commands, so that `--help` and shell completion stay quick.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, NoReturn, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from predictu_dispatch.edge.config.files import ConfigError
    from predictu_dispatch.edge.config.loader import Config

EXIT_FAILED: Final = 1
EXIT_MISCONFIGURED: Final = 2
EXIT_NO_DATABASE: Final = 3
"""Source: DESIGN.md section 8; 2 is click's own code for a wrong usage as well."""

DEFAULT_CONFIG: Final = "config/dispatcher.toml"

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The options that every command has."""

    config: Path
    json: bool

    def load(self) -> Config:
        """The whole configuration; ends the command with every fault on stderr and exit code 2 if it has any."""
        from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415
        from predictu_dispatch.edge.config.loader import load_config  # noqa: PLC0415

        try:
            return load_config(self.config, os.environ)
        except ConfigError as error:
            self.refuse(error)

    def refuse(self, error: ConfigError) -> NoReturn:
        """Every fault on a line of its own on stderr, and all as JSON on stdout if a program reads; exit code 2."""
        if self.json:
            faults = [
                {"file": fault.file, "key": fault.key, "value": fault.value, "allowed": fault.allowed}
                for fault in error.faults
            ]
            print_json({"ok": False, "faults": faults})
        for fault in error.faults:
            click.echo(str(fault), err=True)
        sys.exit(EXIT_MISCONFIGURED)


def common_options(command: Callable[Concatenate[Invocation, _P], _R]) -> Callable[_P, _R]:
    """A command with `--config` and `--json`, called with the Invocation that they make as its first argument."""

    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=DEFAULT_CONFIG,
        show_default=True,
        envvar="PREDICTU_DISPATCH_CONFIG",
        show_envvar=True,
        help="The dispatcher's file; the operators' files are in operators/ beside it.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
    @functools.wraps(command)
    def with_invocation(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        config = kwargs.pop("config_path")
        as_json = kwargs.pop("as_json")
        assert isinstance(config, Path)  # noqa: S101 # click made it one.
        return command(Invocation(config=config, json=bool(as_json)), *args, **kwargs)

    return with_invocation


def print_json(value: object) -> None:
    """One JSON value on stdout, indented, for a program and still for a person."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
