"""`demo`, `reference-operator`, `completion`: commands without configuration and database."""

from __future__ import annotations

import secrets
import sys
from typing import Final

import click
from click.shell_completion import get_completion_class

from predictu_dispatch.commands.output import print_error, print_lines

_BETS: Final = 300
_BETS_MIN: Final = 40
"""Enough for one bet of every scenario and some ordinary traffic."""
_BETS_MAX: Final = 20_000
"""One machine cannot play more in the demo's half minute of traffic."""
_SEED_BITS: Final = 31
_EXIT_INTERRUPTED: Final = 130
"""The shells' code for Ctrl-C."""

_PROGRAM: Final = "predictu-dispatch"
_COMPLETION_VARIABLE: Final = "_PREDICTU_DISPATCH_COMPLETE"
"""Click's name for it, derived from the program's."""


@click.command()
@click.option(
    "--bets", type=click.IntRange(_BETS_MIN, _BETS_MAX), default=_BETS, show_default=True, help="Number of bets."
)
@click.option("--seed", type=int, help="Random seed, to repeat an earlier demo. The default is random and printed.")
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and print how to inspect it.")
@click.option("--json", "as_json", is_flag=True, help="Print the final summary as JSON; other output goes to stderr.")
def demo(bets: int, seed: int | None, *, keep: bool, as_json: bool) -> None:
    """Run a demo, and check that wallets, bets and audit agree to the cent.

    Exits 1 if they do not.

    It starts Postgres, three operators and the daemon on this machine, and stops them at the end.
    """
    try:
        from predictu_dispatch.demo import Options, run_demo  # noqa: PLC0415 - loaded only where used
    except KeyboardInterrupt:
        # Half a second in which a person may notice that this was the wrong terminal.
        print_error("interrupted; nothing was started")
        sys.exit(_EXIT_INTERRUPTED)

    seed = secrets.randbits(_SEED_BITS) if seed is None else seed
    sys.exit(run_demo(Options(bets=bets, seed=seed, keep=keep, as_json=as_json)))


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def reference_operator(arguments: tuple[str, ...]) -> None:
    """Run a complete operator backend to integrate with. See --help for its options."""
    from predictu_dispatch.reference_operator.cli import main  # noqa: PLC0415 - loaded only where used

    sys.exit(main(list(arguments)))


@click.command()
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL: verbs, options, states, methods and operator ids.

    \b
    bash, in ~/.bashrc:
      source <(predictu-dispatch completion bash)
    zsh, in ~/.zshrc, after compinit:
      source <(predictu-dispatch completion zsh)
    fish:
      predictu-dispatch completion fish \\
        >~/.config/fish/completions/predictu-dispatch.fish

    Operator ids are the names of the files in operators/ beside --config, or beside
    PREDICTU_DISPATCH_CONFIG. The database is never asked.
    """  # noqa: D301 - \b is click's mark for lines that are not rewrapped
    script = get_completion_class(shell)
    assert script is not None  # noqa: S101 - click knows all three
    print_lines(script(context.find_root().command, {}, _PROGRAM, _COMPLETION_VARIABLE).source())
