"""The group `keys`."""

from __future__ import annotations

from typing import ClassVar

import click

from predictu_dispatch.commands.keys.creation import new, public
from predictu_dispatch.commands.keys.rotation import activate, retire, revert, stage
from predictu_dispatch.commands.verb_group import VerbGroup


class _KeysGroup(VerbGroup):
    synonyms: ClassVar = {
        "create": "new",
        "print": "public",
        "show": "public",
        "rotate": "stage",
        "next": "stage",
        "undo": "revert",
        "rollback": "revert",
        "remove": "retire",
    }


@click.group(cls=_KeysGroup)
def keys() -> None:
    """Create and rotate an operator's signing keys, and print the public keys.

    A rotation is `stage`, `activate`, `retire`, with a reload of every daemon after each step;
    `revert` undoes `activate`. Each verb prints the next step.
    """


for _verb in (new, public, stage, activate, revert, retire):
    keys.add_command(_verb)
