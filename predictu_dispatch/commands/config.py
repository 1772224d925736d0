"""`check`: whether the configuration is right."""

from __future__ import annotations

import click

from predictu_dispatch.commands.invocation import Invocation, common_options, print_json


@click.command()
@common_options
def check(invocation: Invocation) -> None:
    """Validate every file, key and certificate; exit 2 with every fault on a line of its own."""
    operators = invocation.load().operators
    rows = [
        (
            operator_id,
            "enabled" if operator.settings.enabled else "disabled",
            operator.settings.signing.algorithm,
            operator.signing_key.kid,
            operator.settings.callback_url,
        )
        for operator_id, operator in operators.items()
    ]
    if invocation.json:
        names = ("operator_id", "enabled", "algorithm", "key_id", "callback_url")
        listed = [dict(zip(names, (row[0], row[1] == "enabled", *row[2:]), strict=True)) for row in rows]
        print_json({"ok": True, "operators": listed, "faults": []})
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"{len(rows)} operator{'' if len(rows) == 1 else 's'}, no fault")
