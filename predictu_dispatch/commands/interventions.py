"""`retry`, `cancel`, `resolve`, `pause`, `resume`: what a person does, recorded with who and when."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import click

from predictu_dispatch.commands import output
from predictu_dispatch.commands.batch_result import BatchResult, Row
from predictu_dispatch.commands.connection import database
from predictu_dispatch.commands.invocation import Invocation, common_options

_REDRIVABLE: Final = ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK")
_PAGE: Final = 500
"""So many ids are read at once, however many there are."""


def _whoami() -> str:
    """The person at the keyboard, also behind sudo, and the host."""
    try:
        login = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a uid that has no name.
        login = f"uid {os.getuid()}"
    return f"{login}@{socket.gethostname()}"


def _given(reason: str) -> str:
    if not reason.strip():
        raise click.UsageError("--reason is empty: say why, whoever looks at it later has nothing else")
    return reason


_by = click.option("--by", default=_whoami, help="Who does it, for the record. Default: your login name @ host.")
_ids = click.argument("request_ids", metavar="REQUEST_ID...", type=click.UUID, nargs=-1, required=True)
_operator = click.option("--operator", help="Needed only where several operators have the same REQUEST_ID.")
_reason = click.option("--reason", required=True, help="Why; whoever looks at it later has nothing else.")


@click.command()
@click.argument("request_ids", metavar="[REQUEST_ID]...", type=click.UUID, nargs=-1)
@click.option("--operator", help="With REQUEST_IDs: whose they are. Alone: all of this operator's that need review.")
@click.option("--method", type=click.Choice(_REDRIVABLE), help="With --operator alone: only callbacks of this method.")
@click.option("--yes", is_flag=True, help="Do not ask before sending all of an operator's again.")
@_by
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
    """Send callbacks again that need review: same request_id, same bytes, attempts and deadline start afresh."""
    if not request_ids and operator is None:
        raise click.UsageError("give REQUEST_IDs, or --operator for all of one operator's that need review")
    if request_ids and method is not None:
        raise click.UsageError("--method goes with --operator alone: a REQUEST_ID names its callback already")
    result = BatchResult()
    if request_ids or operator is None:
        work = result.ask_for_each(invocation, "retry_callback", request_ids, operator, by)
        result.run(invocation, work, lambda done: [_retried(row) for row in done])
    else:
        work = _retry_all(invocation, result, operator, method, yes=yes, by=by)
        result.run(invocation, work, lambda done: [_all_retried(operator, done)])


@click.command()
@_ids
@_operator
@_reason
@_by
@common_options
def cancel(invocation: Invocation, request_ids: tuple[UUID, ...], operator: str | None, reason: str, by: str) -> None:
    """Take back callbacks that were never attempted; of a bet, another one may be enqueued in their place."""
    result = BatchResult()
    work = result.ask_for_each(invocation, "cancel_callback", request_ids, operator, _given(reason), by)
    result.run(invocation, work, lambda done: [_cancelled(row) for row in done])


@click.command()
@_ids
@_operator
@_reason
@_by
@common_options
def resolve(invocation: Invocation, request_ids: tuple[UUID, ...], operator: str | None, reason: str, by: str) -> None:
    """Take callbacks off the review list that were settled with the operator by other means; never sent again."""
    result = BatchResult()
    work = result.ask_for_each(invocation, "resolve_callback", request_ids, operator, _given(reason), by)
    result.run(invocation, work, lambda done: [_resolved(row) for row in done])


@click.command()
@click.argument("operator")
@_reason
@_by
@common_options
def pause(invocation: Invocation, operator: str, reason: str, by: str) -> None:
    """Send OPERATOR nothing until it is resumed: new bets fail at once, everything else waits."""
    result = BatchResult()
    work = result.ask_once(invocation, "pause_operator", operator, _given(reason), by)
    result.run(invocation, work, lambda done: [line for row in done for line in _paused(row)])


@click.command()
@click.argument("operator")
@click.option("--reason", help="Why, for the record.")
@_by
@common_options
def resume(invocation: Invocation, operator: str, reason: str | None, by: str) -> None:
    """End OPERATOR's pause: what has waited is sent."""
    result = BatchResult()
    given = None if reason is None else _given(reason)
    work = result.ask_once(invocation, "resume_operator", operator, given, by)
    result.run(invocation, work, lambda done: [_resumed(row) for row in done])


async def _retry_all(
    invocation: Invocation, result: BatchResult, operator: str, method: str | None, *, yes: bool, by: str
) -> None:
    """Everything of the operator that may be sent again is due again; on a terminal only after a yes."""
    from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

    async with database(invocation) as db:
        counts = await db.fetch(query("redrivable_counts"), operator, method)
        if not counts:
            result.refuse(f"unknown operator {operator}", "predictu-dispatch status lists them.", operator_id=operator)
            return
        total, others = sum(row["redrivable"] for row in counts), sum(row["others"] for row in counts)
        if others:
            rest = f"{_callbacks(others)} more on the review list must not be sent again"
            click.echo(f"{rest}: settle with the operator, then predictu-dispatch resolve", err=True)
        if total and not yes and sys.stdin.isatty():
            click.confirm(f"Send {_callbacks(total)} of operator {operator} again?", abort=True, err=True)
        after: tuple[Any, Any] = (None, None)
        while page := await db.fetch(query("redrivable"), operator, method, counts[0]["counted_at"], *after, _PAGE):
            for row in page:
                await result.ask(db, "retry_callback", operator, row["request_id"], by)
            after = (page[-1]["review_since"], page[-1]["request_id"])


# ── What is said of what was done ───────────────────────────────────────────────────────────────────────────────────


def _name(row: Row) -> str:
    return f"{row['method']} {row['request_id']} of operator {row['operator_id']}"


def _callbacks(count: int) -> str:
    return "1 callback" if count == 1 else f"{count} callbacks"


def _retried(row: Row) -> str:
    deadline = f", deadline {output.timestamp(row['expires_at'])}" if row["expires_at"] else ""
    return f"{_name(row)} is due again, as attempt {row['attempts'] + 1}{deadline}"


def _all_retried(operator: str, done: Sequence[Row]) -> str:
    if not done:
        return f"nothing of operator {operator} was sent again"
    methods = Counter(row["method"] for row in done)
    by_method = ", ".join(f"{count} {method}" for method, count in sorted(methods.items()))
    return f"{_callbacks(len(done))} of operator {operator} due again: {by_method}"


def _cancelled(row: Row) -> str:
    if row["bet_id"] is None:
        bet = ""
    elif row["method"] == "BET_MAKE":
        bet = f"; its bet {row['bet_id']} is void"
    else:
        bet = f"; another may be enqueued for its bet {row['bet_id']}"
    return f"{_name(row)} is taken back and will not be sent{bet}"


def _resolved(row: Row) -> str:
    return f"{_name(row)} is off the review list; it stays {row['state']} and will never be sent again"


def _paused(row: Row) -> list[str]:
    since = output.timestamp(row["paused_at"])
    return [
        f"operator {row['operator_id']} is paused since {since}: nothing is sent to it",
        "new bets fail at once, everything else waits; what is in flight is finished",
        f"to end it: predictu-dispatch resume {row['operator_id']}",
    ]


def _resumed(row: Row) -> str:
    return (
        f"operator {row['operator_id']} is sent to again; it was paused for {output.duration(row['paused_s'])}"
        f" by {row['paused_by']}: {row['pause_reason']}"
    )
