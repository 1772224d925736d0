"""`audit checkpoint`, `key`, `policy` and `export`: what others need to verify the logs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from predictu_dispatch.commands.audit.common import ConfiguredKeys, configured_keys, logs_of, reader, refuse
from predictu_dispatch.commands.invocation import (
    EXIT_FAILED,
    EXIT_MISCONFIGURED,
    Invocation,
    common_options,
    unknown_operator,
)
from predictu_dispatch.commands.output import count, print_error, print_json, print_line, print_lines, print_wrapped


@click.command(short_help="Print a log's newest signed checkpoint.")
@click.argument("operator")
@common_options
def checkpoint(invocation: Invocation, operator: str) -> None:
    """Print the newest checkpoint of OPERATOR's log, with the cosignatures of its witnesses.

    Keep it outside of this database: `audit verify --checkpoint FILE` shows later whether the log
    still continues it.
    """
    from predictu_dispatch.core.merkle.note import with_lines  # noqa: PLC0415 - loaded only where used

    [newest, *_] = asyncio.run(_newest(invocation, operator))
    note = with_lines(newest["checkpoint"], newest["cosignatures"])
    if invocation.json:
        print_json({"operator_id": operator, "size": newest["size"], "checkpoint": note})
    else:
        print_lines(note)


@click.command(short_help="Print the public key of a log, or of all.")
@click.argument("operator", required=False)
@common_options
def key(invocation: Invocation, operator: str | None) -> None:
    """Print the vkey of OPERATOR's log, or of every operator's; the active key first.

    It is read from [audit] key_file: run it on a host that runs a daemon, and give the lines to
    everybody who verifies the logs.
    """
    configured = _readable(invocation)
    operators = [operator] if operator is not None else _configured_operators(invocation)
    if operator is not None and not (invocation.config.parent / "operators" / f"{operator}.toml").exists():
        print_error(f"warning: {operator} has no file in {invocation.config.parent / 'operators'}; is its name right?")
    found = {one: _vkeys(configured, one) for one in operators}
    if invocation.json:
        print_json([{"operator_id": one, "vkeys": vkeys} for one, vkeys in found.items()])
        return
    for vkeys in found.values():
        for vkey in vkeys:
            print_line(vkey)


@click.command(short_help="Print the policy by which a log is verified.")
@click.argument("operator")
@common_options
def policy(invocation: Invocation, operator: str) -> None:
    """Print the policy (c2sp.org/tlog-policy) of OPERATOR's log: its keys and its witnesses.

    Its keys are those of [audit] key_file, and the earlier ones in audit.vkeys beside
    dispatcher.toml. Its comments say how long the audit is kept. Save it as a file for
    `audit verify --key`, and give it to everybody who verifies proofs.
    """
    configured = configured_keys(invocation)
    if not configured.trusted():
        configured = _readable(invocation)
    months = invocation.dispatcher(needs_file=False).daemon.audit_retention_months
    origin, floor, holds = asyncio.run(_log_and_retention(invocation, operator))
    if origin is None and not configured.origin:
        refuse(invocation, f"operator {operator} has no log yet, and [audit] origin is not set", EXIT_MISCONFIGURED)
    text = configured.policy_of(origin or f"{configured.origin}/{operator}", operator)
    if invocation.json:
        print_json(
            {
                "operator_id": operator,
                "policy": text,
                "audit_retention_months": months,
                "floor_months": floor,
                "legal_holds": holds,
            }
        )
        return
    kept = f"The audit is kept for {months} months" if months else "The audit is kept for ever"
    print_line(f"# {kept}; the database refuses less than {floor}.")
    for hold in holds:
        what = f"bet {hold['bet_id']}" if hold["bet_id"] else "everything of this operator"
        print_line(f"# Legal hold since {hold['placed_at']}: {what} is kept: {hold['reason']}")
    print_lines(text)


@click.command(short_help="Export the logs as static files.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--operator", metavar="OPERATOR", help="Export this operator's log only.")
@click.option(
    "--since",
    metavar="SIZE",
    type=click.IntRange(min=0),
    help="Write the tiles that are new since this size; default: since the last export to DIR.",
)
@common_options
def export(invocation: Invocation, folder: Path, operator: str | None, since: int | None) -> None:
    """Export the logs to DIR/OPERATOR/ as static files (c2sp.org/tlog-tiles).

    Any web server can serve them, and any tlog-tiles client reads them. The export has the entries,
    which have hashes of what was sent and received and name no player. Entries whose rows retention
    has removed cannot be written; their entry bundles are left out and counted.

    A log that does not continue what DIR has is not exported: exit 1. `audit verify --against DIR`
    compares the database with them later.
    """
    done, refused = asyncio.run(_export(invocation, folder, operator, since))
    refused = [*refused, *_unexplained(done)]
    if invocation.json:
        print_json({"ok": not refused, "exported": [each._asdict() for each in done], "refused": refused})
    else:
        for each in done:
            new = f"{each.size - each.since:,} new" if each.since else "all"
            written = f"{count(each.tiles, 'tile')} and {count(each.bundles, 'bundle')} of entries written"
            gone = f", {count(each.left_out, 'bundle')} left out" if each.left_out else ""
            print_wrapped(f"{each.operator_id}: {each.size:,} entries, {new}, {written}{gone}")
    for message in refused:
        print_error(message)
    if refused:
        sys.exit(EXIT_FAILED)


def _unexplained(done: Sequence[Any]) -> list[str]:
    return [
        f"entries of {each.operator_id} that cannot be written: {each.unexplained:,}; their rows were changed or"
        " removed, but not by retention; run predictu-dispatch audit verify"
        for each in done
        if each.unexplained
    ]


async def _export(
    invocation: Invocation, folder: Path, operator: str | None, since: int | None
) -> tuple[Sequence[Any], Sequence[str]]:
    from predictu_dispatch.core.merkle.note import NoteError  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.evidence.export import NotExportedError, export_log  # noqa: PLC0415

    done, refused = [], []
    async with reader(invocation) as opened:
        for log in await logs_of(invocation, opened, operator):
            try:
                done.append(await export_log(opened, log["operator_id"], folder, since=since))
            except (NotExportedError, NoteError) as error:
                refused.append(str(error))
            except OSError as error:
                refuse(invocation, f"{error.filename or folder}: {error.strerror}")
    return done, refused


async def _newest(invocation: Invocation, operator: str) -> Sequence[Any]:
    async with reader(invocation) as opened:
        await logs_of(invocation, opened, operator)
        return await opened.fetch("audit_newest_checkpoints", operator)


async def _log_and_retention(invocation: Invocation, operator: str) -> tuple[str | None, int, Sequence[Any]]:
    """The name of the log, which may be older than [audit] origin, and how long rows are kept."""
    async with reader(invocation) as opened:
        found = await opened.fetch("audit_logs", operator)
        if not found:
            refuse(invocation, unknown_operator(operator))
        [row] = await opened.fetch("audit_holds", operator)
        return found[0]["origin"], row["floor_months"], json.loads(row["holds"] or "[]")


def _readable(invocation: Invocation) -> ConfiguredKeys:
    configured = configured_keys(invocation)
    if not configured.origin:
        refuse(
            invocation,
            f'[audit] origin is not set in {invocation.config}; set it, such as "audit.example.com", and create the'
            " key: predictu-dispatch keys new --audit",
            EXIT_MISCONFIGURED,
        )
    if not configured.public_keys:
        refuse(
            invocation,
            f"{configured.why_none}; run this where it can be read, or create it: predictu-dispatch keys new --audit",
            EXIT_MISCONFIGURED,
        )
    return configured


def _vkeys(configured: ConfiguredKeys, operator: str) -> list[str]:
    from predictu_dispatch.evidence.trusted_keys import TrustedKeys  # noqa: PLC0415 - loaded only where used

    keys = TrustedKeys(public_keys=tuple(configured.public_keys))
    return [str(each) for each in keys.of_log(f"{configured.origin}/{operator}")]


def _configured_operators(invocation: Invocation) -> list[str]:
    folder = invocation.config.parent / "operators"
    found = sorted(file.stem for file in folder.glob("*.toml"))
    if not found:
        refuse(invocation, f"no operator has a file in {folder}; name one: predictu-dispatch audit key OPERATOR")
    return found
