"""`retain`: removes what is older than `[daemon] audit_retention_months`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, exit_on_database_errors, fail
from predictu_dispatch.commands.output import duration, print_json, print_line, timestamp
from predictu_dispatch.core.database import LOCK_NOT_AVAILABLE, DatabaseUnavailable, Refused

if TYPE_CHECKING:
    from predictu_dispatch.core.retention import AuditPart, RetentionResult

_NEXT_STEPS: Final = {
    "PD003": "nothing was removed",
    "PD006": "another retention run is active; run it again later",
    LOCK_NOT_AVAILABLE: "another transaction has locked a table; run it again later",
}
"""What to do, by SQLSTATE, about errors that are no outage."""
_CLOCK_AHEAD_MAX_S: Final = 86_400.0
"""Whole months are kept, so a day more or less changes little."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@common_options
def retain(invocation: Invocation, *, dry_run: bool) -> None:
    """Remove bets, callbacks and audit that ended more than audit_retention_months months ago.

    Runs of `reconcile` that are as old are removed too.

    If interrupted, run it again.

    Its database login needs the role predictu_retention, which no daemon has.
    """
    settings = invocation.dispatcher()
    months = settings.daemon.audit_retention_months
    if months == 0:
        if invocation.json:
            print_json({"keep_months": 0})
        else:
            print_line("everything is kept: [daemon] audit_retention_months is 0")
        return
    with exit_on_database_errors(invocation):
        try:
            result = asyncio.run(_run(settings.database.dsn.get_secret_value(), months, dry_run=dry_run))
        except (DatabaseUnavailable, Refused) as error:
            if error.sqlstate not in _NEXT_STEPS:
                raise
            hint = error.hint if isinstance(error, Refused) else ""
            fail(f"{error.message}: {_NEXT_STEPS[error.sqlstate]}", hint=hint)
    if invocation.json:
        print_json(_as_json(result, months))
    else:
        for line in _planned(result, months) if dry_run else _done(result, months):
            print_line(line)
    if not dry_run and not result.is_complete:
        sys.exit(EXIT_FAILED)


async def _run(dsn: str, months: int, *, dry_run: bool) -> RetentionResult:
    from predictu_dispatch.edge.postgres.retention_store import open_retention_store  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.flow.retention import Retention  # noqa: PLC0415

    async with open_retention_store(dsn, keep_months=months) as store:
        ahead_s = await store.clock_at_s() - time.time()
        if ahead_s > _CLOCK_AHEAD_MAX_S and not dry_run:
            # It would remove rows that are not old yet.
            fail(
                f"the database's clock is {duration(ahead_s)} ahead of this host's; nothing was removed:"
                " correct the clock that is wrong"
            )
        retention = Retention(store)
        return await (retention.preview() if dry_run else retention.run())


def _as_json(result: RetentionResult, months: int) -> dict[str, Any]:
    columns = ("part", "bytes", "kept", "is_done", "why_not")
    return {
        "keep_months": months,
        "cutoff": result.cutoff,
        "is_complete": result.is_complete,
        "callbacks": result.callbacks,
        "bets": result.bets,
        "locked": result.locked,
        "held": result.held,
        "runs": result.runs,
        "why_not": result.why_not,
        "audit": [{name: value for name, value in part._asdict().items() if name in columns} for part in result.parts],
    }


def _before(result: RetentionResult, months: int) -> str:
    return f"before {timestamp(result.cutoff)} ({months} whole months are kept)"


def _size(part: AuditPart) -> str:
    return f"{part.bytes / 1_000_000:,.1f} MB"


def _planned(result: RetentionResult, months: int) -> Iterator[str]:
    yield f"A run removes what ended {_before(result, months)}."
    yield f"Old bets and callbacks: {'already removed' if result.is_purged else 'not counted; a run scans the table'}."
    for part in result.parts:
        yield f"Old audit: {part.part}, about {part.rows:,} rows, {_size(part)}."
    if not result.parts:
        yield "Old audit: none."
    yield "Nothing was removed."


def _done(result: RetentionResult, months: int) -> Iterator[str]:
    yield f"Removed bets: {result.bets:,}, callbacks: {result.callbacks:,}, which ended {_before(result, months)}."
    if result.why_not:
        yield f"The scan stopped early, and the next run continues it: {result.why_not}"
    if result.held:
        yield f"Under legal hold: {result.held:,} old callbacks stay."
    if result.runs:
        yield f"Removed runs of reconciliation: {result.runs:,}."
    for part in result.parts:
        yield _part_done(part)
    if result.locked:
        yield f"Locked by other transactions: {result.locked:,} bets and callbacks; the next run removes them."


def _part_done(part: AuditPart) -> str:
    if not part.is_done:
        return f"Audit {part.part}: not removed; the next run tries again: {part.why_not}"
    if part.kept:
        return f"Audit {part.part}: {part.kept:,} rows kept for their callbacks or a legal hold; the rest was removed."
    return f"Audit {part.part}: dropped, {_size(part)}."
