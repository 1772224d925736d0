"""Completes operator ids by the names of the files in operators/; never asks the database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem
from typing_extensions import override

from predictu_dispatch.commands.invocation import CONFIG_VARIABLE, DEFAULT_CONFIG

if TYPE_CHECKING:
    from collections.abc import Sequence

_BET: Final = "--bet"


class OperatorId(click.types.StringParamType):
    """The id of an operator."""

    name = "operator"

    @override
    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in _operator_ids(ctx) if name.startswith(incomplete)]


class OperatorAndBet(click.types.StringParamType):
    """The two values of `--bet`: an operator's id, and a bet's id, which is not completed."""

    name = "bet"

    @override
    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        words = os.environ.get("COMP_WORDS", "").split()
        before = words[:-1] if incomplete and words[-1:] == [incomplete] else words
        return OperatorId().shell_complete(ctx, param, incomplete) if before[-1:] == [_BET] else []


def complete_operators(command: click.Command) -> None:
    """Make the operator ids of a verb, and of its verbs, completable."""
    for param in command.params:
        if param.type is click.STRING and param.name == "operator":
            param.type = OperatorId()
        elif _BET in param.opts and param.nargs > 1:
            param.type = OperatorAndBet()
    if isinstance(command, click.Group):
        own = getattr(command, "without_verb", None)
        for verb in (*command.commands.values(), *([own] if own else [])):
            complete_operators(verb)


def _operator_ids(ctx: click.Context) -> Sequence[str]:
    # The variables are not read while a line is completed.
    config = ctx.params.get("config_path") or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG
    try:
        return sorted(file.stem for file in (Path(config).parent / "operators").glob("*.toml"))
    except OSError:
        return ()
