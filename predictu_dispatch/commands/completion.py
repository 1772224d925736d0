"""`completion`: what a shell reads to complete this command's verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_PROGRAM = "predictu-dispatch"
_VARIABLE = "_PREDICTU_DISPATCH_COMPLETE"
"""Click's own name for it, made of the program's."""


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what SHELL reads to complete verbs and options.

    \b
    bash: predictu-dispatch completion bash > /etc/bash_completion.d/predictu-dispatch
    zsh:  predictu-dispatch completion zsh > "${fpath[1]}/_predictu-dispatch"
    fish: predictu-dispatch completion fish > ~/.config/fish/completions/predictu-dispatch.fish
    """  # noqa: D301 - click's own mark, a backspace: the lines below it stay as they are
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - click knows all three
    click.echo(made(context.find_root().command, {}, _PROGRAM, _VARIABLE).source())
