"""The group `reconcile`, which without one of its verbs reconciles an operator's ledger."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import ClassVar, Final

import click
from typing_extensions import Unpack

from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options
from predictu_dispatch.commands.output import print_json
from predictu_dispatch.commands.reconcile.differences import accept, explain, list_differences, show_difference
from predictu_dispatch.commands.reconcile.options import Options, reconcile_options
from predictu_dispatch.commands.verb_group import VerbGroup


@click.command()
@reconcile_options
@common_options
def run(invocation: Invocation, operator: str, files: tuple[Path, ...], **options: Unpack[Options]) -> None:
    """Compare our records with an operator's ledger, to the cent."""
    from predictu_dispatch.commands.reconcile.lines import as_json, print_report  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.commands.reconcile.running import run_reconciliation  # noqa: PLC0415

    words = {
        word: f"reconcile {verb}"
        for word, verb in ({verb: verb for verb in reconcile.commands} | _ReconcileGroup.synonyms).items()
    }
    result = asyncio.run(run_reconciliation(invocation, operator, files, options, verbs=words))
    if invocation.json:
        print_json(as_json(result))
    else:
        print_report(result, shows_unreadable=options["shows_unreadable"])
    sys.exit(0 if result.is_settled else EXIT_FAILED)


class _ReconcileGroup(VerbGroup):
    without_verb = run
    synonyms: ClassVar = {"differences": "list", "runs": "list", "approve": "accept"}


@click.group(cls=_ReconcileGroup)
def reconcile() -> None:
    """Compare our records with an operator's ledger, to the cent.

    Each callback and each line of the ledger gets exactly one class, and the differences of all
    classes add up. FILE is the ledger as the operator exports it, also packed with gzip or zip;
    [reconcile] in the operator's file says how it is written. Without FILE it is pulled from
    [reconcile] url.

    A run computes everything from the start, from the files that it is given. If a file came late,
    give it with all other files of the period: the run closes the differences that it explains.

    The database login needs the role predictu_reconciler.
    """


_VERBS: Final[tuple[click.Command, ...]] = (list_differences, show_difference, explain, accept)

for _verb in _VERBS:
    reconcile.add_command(_verb)
