"""`retry`, `cancel`, `resolve`, `pause`, `resume`: manual actions, recorded with name and time.

The database's functions decide what is allowed, and their refusals are shown as they are. Each
callback has its own transaction: a refusal stops none of the others, and what was done before an
outage stays done and is printed.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, database, why_not_one
from predictu_dispatch.commands.output import (
    Row,
    ask,
    count,
    duration,
    money,
    print_error,
    print_json,
    print_wrapped,
    timestamp,
)
from predictu_dispatch.commands.request_ids import WHOLE_REQUEST_ID
from predictu_dispatch.core.database import Refused
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_RETRIABLE: Final = ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK")
_PAGE_ROWS: Final = 500
_REFUSALS_SHOWN: Final = 20


def _person() -> str:
    """The person at the keyboard, also behind sudo, and the host."""
    try:
        login = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a uid without a name.
        login = f"uid {os.getuid()}"
    return f"{login}@{socket.gethostname()}"


def _not_empty(_context: click.Context, _parameter: click.Parameter, reason: str | None) -> str | None:
    if reason is not None and not reason.strip():
        raise click.UsageError("--reason must not be empty: it is recorded")
    return reason


_by = click.option("--by", default=_person, help="Your name, which is recorded. Default: login@host.")
_ids = click.argument("request_ids", metavar="REQUEST_ID...", type=WHOLE_REQUEST_ID, nargs=-1, required=True)
_operator = click.option("--operator", help="Needed only if several operators have the same REQUEST_ID.")
_reason = click.option("--reason", required=True, callback=_not_empty, help="The reason, which is recorded.")


@click.command()
@click.argument("request_ids", metavar="[REQUEST_ID]...", type=WHOLE_REQUEST_ID, nargs=-1)
@click.option(
    "--operator", help="With REQUEST_IDs: their operator. Alone: retry all of its callbacks that need review."
)
@click.option("--method", type=click.Choice(_RETRIABLE), help="With --operator alone: only callbacks of this method.")
@click.option("--yes", is_flag=True, help="With --operator alone: do not ask. Required without a terminal.")
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
    batch = _Batch()
    if request_ids or operator is None:
        batch.run(
            invocation,
            batch.call_for_each(invocation, "retry_callback", request_ids, operator, by),
            lambda done: [_retried(row) for row in done],
        )
    else:
        work = _retry_all(invocation, batch, operator, method, yes=yes, by=by)
        batch.run(invocation, work, lambda done: [_all_retried(operator, done)])


@click.command()
@_ids
@_operator
@_reason
@_by
@common_options
def cancel(invocation: Invocation, request_ids: tuple[UUID, ...], operator: str | None, reason: str, by: str) -> None:
    """Cancel callbacks that were never attempted. Their bets may then get other callbacks."""
    batch = _Batch()
    work = batch.call_for_each(invocation, "cancel_callback", request_ids, operator, reason, by)
    batch.run(invocation, work, lambda done: [_cancelled(row) for row in done])


@click.command()
@_ids
@_operator
@_reason
@_by
@common_options
def resolve(invocation: Invocation, request_ids: tuple[UUID, ...], operator: str | None, reason: str, by: str) -> None:
    """Remove callbacks from the review list after they were settled with the operator manually.

    They are never sent again.
    """
    batch = _Batch()
    work = batch.call_for_each(invocation, "resolve_callback", request_ids, operator, reason, by)
    batch.run(invocation, work, lambda done: [_resolved(row) for row in done])


@click.command()
@click.argument("operator")
@_reason
@_by
@common_options
def pause(invocation: Invocation, operator: str, reason: str, by: str) -> None:
    """Stop sending to OPERATOR until it is resumed; new bets fail at once, the rest waits."""
    batch = _Batch()
    work = batch.call_once(invocation, "pause_operator", operator, reason, by)
    batch.run(invocation, work, lambda done: [line for row in done for line in _paused(row)])


@click.command()
@click.argument("operator")
@click.option("--reason", callback=_not_empty, help="The reason, which is recorded.")
@_by
@common_options
def resume(invocation: Invocation, operator: str, reason: str | None, by: str) -> None:
    """End OPERATOR's pause and send the callbacks that waited."""
    batch = _Batch()
    work = batch.call_once(invocation, "resume_operator", operator, reason, by)
    batch.run(invocation, work, lambda done: [_resumed(row) for row in done])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The rows of what was done, and a row for each refusal."""

    done: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)

    def refuse(self, message: str, hint: str = "", **named: object) -> None:
        self.refused.append({**named, "message": message, "hint": hint})

    async def call(
        self, db: Database, statement: str, operator: str, request_id: UUID | None, *arguments: str | None
    ) -> None:
        """Call a database function in its own transaction, and record what it did or refused."""
        named = () if request_id is None else (request_id,)
        try:
            (row,) = await db.fetch(query(statement), operator, *named, *arguments)
        except Refused as error:
            if not error.is_for_a_person:
                raise
            named_columns = {"operator_id": operator, "request_id": request_id, "sqlstate": error.sqlstate}
            self.refuse(error.message, error.hint, **named_columns)
        else:
            self.done.append(dict(row))

    async def call_for_each(
        self, invocation: Invocation, statement: str, request_ids: Sequence[UUID], operator: str | None, *arguments: str
    ) -> None:
        """As `call`, once for each id; looks up its operator if none is given."""
        async with database(invocation) as db:
            for request_id in dict.fromkeys(request_ids):
                rows = await db.fetch(query("callback_operators"), request_id, operator)
                owners = [str(row["operator_id"]) for row in rows]
                if len(owners) == 1:
                    await self.call(db, statement, owners[0], request_id, *arguments)
                else:
                    message = await why_not_one(db, owners, request_id, operator)
                    self.refuse(message, operator_id=operator, request_id=request_id)

    async def call_once(self, invocation: Invocation, statement: str, operator: str, *arguments: str | None) -> None:
        """As `call`, for an operator itself."""
        async with database(invocation) as db:
            await self.call(db, statement, operator, None, *arguments)

    def run(
        self, invocation: Invocation, work: Coroutine[Any, Any, None], describe: Callable[[Sequence[Row]], list[str]]
    ) -> None:
        """Do the work and print the result; exit 1 if anything was refused."""
        try:
            asyncio.run(work)
        except (SystemExit, KeyboardInterrupt):
            # An outage or Ctrl-C: what was done before stays done.
            if self.done or self.refused:
                self._print(invocation, describe)
            raise
        self._print(invocation, describe)
        if self.refused:
            sys.exit(EXIT_FAILED)

    def _print(self, invocation: Invocation, describe: Callable[[Sequence[Row]], list[str]]) -> None:
        if invocation.json:
            print_json({"done": self.done, "refused": self.refused})
            return
        for line in describe(self.done):
            print_wrapped(line, hanging="  ")
        for refusal in self.refused[:_REFUSALS_SHOWN]:
            print_error(refusal["message"], refusal["hint"])
        if len(self.refused) > _REFUSALS_SHOWN:
            print_error(f"and {len(self.refused) - _REFUSALS_SHOWN} more were refused; --json lists all")


async def _retry_all(
    invocation: Invocation, batch: _Batch, operator: str, method: str | None, *, yes: bool, by: str
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


def _name(row: Row) -> str:
    return f"{row['method']} {row['request_id']} of operator {row['operator_id']}"


def _retried(row: Row) -> str:
    deadline = f", deadline {timestamp(row['expires_at'])}" if row["expires_at"] else ""
    return f"{_name(row)} is due again, as attempt {row['attempts'] + 1}{deadline}"


def _all_retried(operator: str, done: Sequence[Row]) -> str:
    if not done:
        return f"no callback of operator {operator} was sent again"
    methods = Counter(row["method"] for row in done)
    by_method = ", ".join(f"{number:,} {method}" for method, number in sorted(methods.items()))
    return f"{count(len(done), 'callback')} of operator {operator} due again: {by_method}"


def _cancelled(row: Row) -> str:
    if row["bet_id"] is None:
        bet = ""
    elif row["method"] == "BET_MAKE":
        bet = f"; its bet {row['bet_id']} is void"
    else:
        bet = f"; another callback may be enqueued for its bet {row['bet_id']}"
    return f"{_name(row)} is cancelled and will not be sent{bet}"


def _resolved(row: Row) -> str:
    return f"{_name(row)} is resolved: it stays {row['state']} and will never be sent again"


def _paused(row: Row) -> list[str]:
    return [
        f"operator {row['operator_id']} was paused at {timestamp(row['paused_at'])}: nothing is sent to it",
        "new bets fail at once, everything else waits; attempts in flight finish",
        f"to end the pause: predictu-dispatch resume {row['operator_id']}",
    ]


def _resumed(row: Row) -> str:
    return (
        f"operator {row['operator_id']} is resumed; it was paused for {duration(row['paused_s'])}"
        f" by {row['paused_by']}: {row['pause_reason']}"
    )
