"""Options of manual actions, and a batch of calls: what was done and what was refused.

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
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, database, why_not_one
from predictu_dispatch.commands.output import Row, print_error, print_json, print_wrapped
from predictu_dispatch.commands.request_ids import WHOLE_REQUEST_ID
from predictu_dispatch.core.database import Refused
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_REFUSALS_SHOWN: Final = 20


def _person() -> str:
    """The person at the keyboard, also behind sudo, and the host."""
    try:
        login = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a uid without a name.
        login = f"uid {os.getuid()}"
    return f"{login}@{socket.gethostname()}"


def not_empty(_context: click.Context, _parameter: click.Parameter, reason: str | None) -> str | None:
    """Refuse a reason without a letter, which would explain nothing."""
    if reason is not None and not reason.strip():
        raise click.UsageError("--reason must not be empty: it is recorded")
    return reason


by_option = click.option("--by", default=_person, help="Your name, which is recorded. Default: login@host.")
ids_argument = click.argument("request_ids", metavar="REQUEST_ID...", type=WHOLE_REQUEST_ID, nargs=-1, required=True)
operator_option = click.option("--operator", help="Needed only if several operators have the same REQUEST_ID.")
reason_option = click.option("--reason", required=True, callback=not_empty, help="The reason, which is recorded.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The rows of what was done, and a row for each refusal."""

    done: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)

    def refuse(self, message: str, hint: str = "", **named: object) -> None:
        self.refused.append({**named, "message": message, "hint": hint})

    async def call(
        self,
        db: Database,
        statement: str,
        operator: str,
        request_id: UUID | None,
        *arguments: str | None,
        timeout_s: float | None = None,
        id_name: str = "request_id",
    ) -> None:
        """Call a database function in its own transaction, and record what it did or refused."""
        named = () if request_id is None else (request_id,)
        given = (query(statement), operator, *named, *arguments)
        try:
            (row,) = await (db.fetch(*given) if timeout_s is None else db.fetch_apart(*given, timeout_s=timeout_s))
        except Refused as error:
            if not error.is_for_a_person:
                raise
            named_columns = {"operator_id": operator, id_name: request_id, "sqlstate": error.sqlstate}
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

    async def call_once(
        self,
        invocation: Invocation,
        statement: str,
        operator: str,
        *arguments: str | None,
        timeout_s: float | None = None,
    ) -> None:
        """As `call`, for an operator itself."""
        async with database(invocation) as db:
            await self.call(db, statement, operator, None, *arguments, timeout_s=timeout_s)

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


def name_of(row: Row) -> str:
    """The callback in a message."""
    return f"{row['method']} {row['request_id']} of operator {row['operator_id']}"
