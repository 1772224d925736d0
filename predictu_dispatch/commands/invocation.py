"""The options of every command, the configuration, and how a command ends early."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, NoReturn, ParamSpec, TypeVar

import click

from predictu_dispatch.commands.output import print_error, print_json

if TYPE_CHECKING:
    from predictu_dispatch.core.settings import DispatcherSettings
    from predictu_dispatch.edge.config.files import ConfigError
    from predictu_dispatch.edge.config.loader import Config

EXIT_FAILED: Final = 1
EXIT_MISCONFIGURED: Final = 2
"""Also click's code for wrong usage."""
EXIT_NO_DATABASE: Final = 3

DEFAULT_CONFIG: Final = "config/dispatcher.toml"

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The options that every command has."""

    config: Path
    json: bool

    def load(self) -> Config:
        """Read the whole configuration; exit 2 with every fault if it has any."""
        from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415 - loaded only where used
        from predictu_dispatch.edge.config.loader import load_config  # noqa: PLC0415

        try:
            return load_config(self.config, os.environ)
        except ConfigError as error:
            self.refuse(error)

    def dispatcher(self) -> DispatcherSettings:
        """Read dispatcher.toml only: an operator's faulty file does not stop the command."""
        from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415
        from predictu_dispatch.edge.config.loader import read_dispatcher  # noqa: PLC0415 - loaded only where used

        try:
            return read_dispatcher(self.config, os.environ)
        except ConfigError as error:
            self.refuse(error)

    def refuse(self, error: ConfigError) -> NoReturn:
        """Exit 2 with every fault on its own line on stderr.

        With --json, all of them on stdout as well.
        """
        if self.json:
            print_json({"ok": False, "faults": [asdict(fault) for fault in error.faults]})
        for fault in error.faults:
            print_error(str(fault))
        sys.exit(EXIT_MISCONFIGURED)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print the message on stderr and exit."""
    print_error(message)
    sys.exit(code)


def common_options(command: Callable[Concatenate[Invocation, _P], _R]) -> Callable[_P, _R]:
    """Add `--config` and `--json`, and call the command with an Invocation made of them."""

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
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @functools.wraps(command)
    def with_invocation(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        config = kwargs.pop("config_path")
        as_json = kwargs.pop("as_json")
        assert isinstance(config, Path)  # noqa: S101 - click converted it
        return command(Invocation(config=config, json=bool(as_json)), *args, **kwargs)

    return with_invocation
