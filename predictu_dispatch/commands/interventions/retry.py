"""`retry`: sends callbacks again that need review."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import click

from predictu_dispatch.commands.interventions.batch import Batch, by_option, name_of
from predictu_dispatch.commands.invocation import Invocation, common_options, database
from predictu_dispatch.commands.output import Row, ask, count, money, print_error, timestamp
from predictu_dispatch.commands.request_ids import WHOLE_REQUEST_ID
from predictu_dispatch.edge.postgres.sql_files import query

_RETRIABLE: Final = ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK")
_PAGE_ROWS: Final = 500


@click.command()
@click.argument("request_ids", metavar="[REQUEST_ID]...", type=WHOLE_REQUEST_ID, nargs=-1)
@click.option(
    "--operator", help="With REQUEST_IDs: their operator. Alone: retry all of its callbacks that need review."
)
@click.option("--method", type=click.Choice(_RETRIABLE), help="With --operator alone: only callbacks of this method.")
@click.option("--yes", is_flag=True, help="With --operator alone: do not ask. Required without a terminal.")
@by_option
@common_options
def retry(
    invocation: Invocation,
    request_ids: tuple[UUID, ...],
    *,
    operator: str | None,
    method: str | None,
    yes: bool,
    by: str,
) -> None:
    """Retry callbacks that need review, with the same request_id and the same bytes.

    The attempt budget and the deadline start again.
    """
    if not request_ids and operator is None:
        raise click.UsageError(
            "give REQUEST_IDs, or --operator to retry all callbacks of one operator that need review"
        )
    if request_ids and method is not None:
        raise click.UsageError("--method goes with --operator alone: a REQUEST_ID names one callback")
    if not request_ids and not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("--operator alone asks for confirmation; without a terminal it needs --yes")
    batch = Batch()
    if request_ids or operator is None:
        batch.run(
            invocation,
            batch.call_for_each(invocation, "retry_callback", request_ids, operator, by),
            lambda done: [_retried(row) for row in done],
        )
    else:
        work = _retry_all(invocation, batch, operator, method, yes=yes, by=by)
        batch.run(invocation, work, lambda done: [_all_retried(operator, done)])


async def _retry_all(
    invocation: Invocation, batch: Batch, operator: str, method: str | None, *, yes: bool, by: str
) -> None:
    """Retry everything of the operator that may be sent again, after a yes on the terminal."""
    async with database(invocation) as db:
        counts = await db.fetch(query("retriable_counts"), operator, method)
        if not counts:
            batch.refuse(f"unknown operator {operator}", "predictu-dispatch status lists them.", operator_id=operator)
            return
        total = sum(row["retriable"] for row in counts)
        if others := sum(row["others"] for row in counts):
            next_step = "settle them with the operator manually, then: predictu-dispatch resolve"
            print_error(f"{count(others, 'other')} cannot be retried: {next_step}")
        if total and not yes:
            sent = [row for row in counts if row["retriable"]]
            sums = [money(int(row["amount"]), row["currency"], row["minor_digits"]) for row in sent]
            if unreadable := sum(row["unreadable"] for row in counts):
                sums.append(f"and {unreadable:,} whose amount cannot be read")
            ask(f"Send {count(total, 'callback')} of operator {operator} again: {', '.join(sums)}?")
        after: tuple[Any, Any] = (None, None)
        while page := await db.fetch(query("retriable"), operator, method, counts[0]["counted_at"], *after, _PAGE_ROWS):
            for row in page:
                await batch.call(db, "retry_callback", operator, row["request_id"], by)
            after = (page[-1]["review_since"], page[-1]["request_id"])


def _retried(row: Row) -> str:
    deadline = f", deadline {timestamp(row['expires_at'])}" if row["expires_at"] else ""
    return f"{name_of(row)} is due again, as attempt {row['attempts'] + 1}{deadline}"


def _all_retried(operator: str, done: Sequence[Row]) -> str:
    if not done:
        return f"no callback of operator {operator} was sent again"
    methods = Counter(row["method"] for row in done)
    by_method = ", ".join(f"{number:,} {method}" for method, number in sorted(methods.items()))
    return f"{count(len(done), 'callback')} of operator {operator} due again: {by_method}"
