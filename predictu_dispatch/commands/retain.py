"""`retain`: removes what is older than `[daemon] audit_retention_months`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from predictu_dispatch.commands import output
from predictu_dispatch.commands.connection import reported_outages
from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, print_json
from predictu_dispatch.core.database_errors import DatabaseUnavailable, Refused

if TYPE_CHECKING:
    from predictu_dispatch.core.retention import AuditPart, RetentionResult

_SAID: Final = {
    "PD003": "Nothing was removed.",
    "PD006": "Another run is at it; what is left is the next one's.",
    "55P03": "A table is locked by another transaction; what is left is the next run's.",
}
"""Of errors that do not mean that the database is away."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what is old, and remove nothing.")
@common_options
def retain(invocation: Invocation, *, dry_run: bool) -> None:
    """Remove what ended more than audit_retention_months whole months ago; interrupted, it is simply run again.

    Its database login needs the role predictu_retention, which no daemon has.
    """
    from predictu_dispatch.edge.config.dispatcher_file import read_dispatcher  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415

    try:
        settings = read_dispatcher(invocation.config, os.environ)
    except ConfigError as error:
        invocation.refuse(error)
    months = settings.daemon.audit_retention_months
    if months == 0:
        if invocation.json:
            print_json({"keep_months": 0})
        else:
            click.echo("everything is kept for ever: [daemon] audit_retention_months is 0")
        return
    with reported_outages(invocation):
        try:
            result = asyncio.run(_run(settings.database.dsn.get_secret_value(), months, dry_run=dry_run))
        except (DatabaseUnavailable, Refused) as error:
            said = _SAID.get(error.sqlstate)
            if said is None:
                raise
            click.echo(f"{error.message}. {said}", err=True)
            sys.exit(EXIT_FAILED)
    if invocation.json:
        print_json(_plain(result, months))
    else:
        for line in _planned(result, months) if dry_run else _done(result, months):
            click.echo(line)
    if not dry_run and not result.is_complete:
        sys.exit(EXIT_FAILED)


async def _run(dsn: str, months: int, *, dry_run: bool) -> RetentionResult:
    from predictu_dispatch.edge.postgres.retention_store import open_retention_store  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.flow.retention import Retention  # noqa: PLC0415

    async with open_retention_store(dsn, keep_months=months) as store:
        retention = Retention(store)
        return await (retention.preview() if dry_run else retention.run())


def _plain(result: RetentionResult, months: int) -> dict[str, Any]:
    return {
        "keep_months": months,
        "cutoff": result.cutoff.isoformat(),
        "is_complete": result.is_complete,
        "callbacks": result.callbacks,
        "bets": result.bets,
        "locked": result.locked,
        "why_not": result.why_not,
        "audit": [
            {"part": one.part, "bytes": one.bytes, "kept": one.kept, "is_done": one.is_done, "why_not": one.why_not}
            for one in result.parts
        ],
    }


def _before(result: RetentionResult, months: int) -> str:
    return f"before {output.timestamp(result.cutoff)} ({months} whole months are kept)"


def _size(part: AuditPart) -> str:
    return f"{part.bytes / 1_000_000:,.1f} MB"


def _planned(result: RetentionResult, months: int) -> list[str]:
    return [
        f"Old is what ended {_before(result, months)}.",
        "Old bets and callbacks: "
        + ("removed already." if result.is_purged else "they are found on the way, by a walk through all."),
        *(f"Old audit: {part.part}, about {part.rows:,} rows, {_size(part)}." for part in result.parts),
        *([] if result.parts else ["Old audit: none."]),
        "Nothing was removed.",
    ]


def _done(result: RetentionResult, months: int) -> list[str]:
    why, locked = result.why_not, result.locked
    return [
        f"Removed bets: {result.bets:,}, callbacks: {result.callbacks:,}, that ended {_before(result, months)}.",
        *([f"The walk through the callbacks stopped and goes on with the next run: {why}"] if why else []),
        *map(_became, result.parts),
        *(
            [f"Bets and callbacks locked by other transactions: {locked:,}; they go with the next run."]
            if locked
            else []
        ),
    ]


def _became(part: AuditPart) -> str:
    if not part.is_done:
        return f"Audit {part.part} could not be removed, the next run tries again: {part.why_not}"
    if part.kept:
        return f"Audit {part.part}: rows kept, because their callbacks are: {part.kept:,}; the rest is gone."
    return f"Audit {part.part}: dropped, {_size(part)}."
