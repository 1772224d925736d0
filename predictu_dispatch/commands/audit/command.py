"""The group `audit`."""

from __future__ import annotations

from typing import ClassVar

import click

from predictu_dispatch.commands.audit.proving import prove
from predictu_dispatch.commands.audit.publishing import checkpoint, export, key, policy
from predictu_dispatch.commands.audit.state import status
from predictu_dispatch.commands.audit.verifying import verify
from predictu_dispatch.commands.verb_group import VerbGroup


class _AuditGroup(VerbGroup):
    synonyms: ClassVar = {
        "check": "verify",
        "proof": "prove",
        "keys": "key",
        "vkey": "key",
        "head": "checkpoint",
        "list": "status",
        "publish": "export",
    }


@click.group(cls=_AuditGroup)
def audit() -> None:
    """Verify the audit against its logs, and prove to others what it says.

    Every attempt, every action of a person and every signing key is sealed in its operator's log,
    a Merkle tree whose signed checkpoints are kept elsewhere as well. A row that was changed,
    removed or added afterwards no longer fits it.

    The database login needs the role predictu_auditor.
    """


for _verb in (status, verify, prove, checkpoint, key, policy, export):
    audit.add_command(_verb)
