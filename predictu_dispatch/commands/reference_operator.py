"""`reference-operator`: hands all its arguments to the reference operator, which knows nothing of us."""

from __future__ import annotations

import sys

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def reference_operator(arguments: tuple[str, ...]) -> None:
    """Run a complete operator's backend to integrate against; all arguments are its own, see --help."""
    from predictu_dispatch.reference_operator.cli import main  # noqa: PLC0415 - loaded only where used

    sys.exit(main(list(arguments)))
