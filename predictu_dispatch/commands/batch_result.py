"""What an intervention has done and what was refused: asked of the database one by one, told at the end.

What is allowed is decided by the database's functions (sql/functions/interventions/), which hold it against
daemons and other people too; their refusals are shown as they are. Each callback has a transaction of its own: a
refusal stops none of the others, and what was done before the database went away stays done and is told.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from predictu_dispatch.commands.connection import database
from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, print_json
from predictu_dispatch.commands.lookup import not_one
from predictu_dispatch.core.database_errors import Refused

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

Row = Mapping[str, Any]
Saying = Callable[[Sequence[Row]], list[str]]
"""The lines that tell a person what was done."""

_REFUSALS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """How far a command has come: the rows of what was done, and a row for each refusal with its words."""

    done: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)

    def refuse(self, message: str, hint: str = "", **named: object) -> None:
        """One more was refused."""
        self.refused.append({**named, "message": message, "hint": hint})

    async def ask(
        self, db: Database, statement: str, operator: str, request_id: UUID | None, *arguments: str | None
    ) -> None:
        """The database's function has done it or refused it, in a transaction of its own, and the result has it."""
        from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

        named = () if request_id is None else (request_id,)
        try:
            (row,) = await db.fetch(query(statement), operator, *named, *arguments)
        except Refused as error:
            if not error.is_for_a_person:
                raise
            self.refuse(
                error.message,
                error.hint,
                operator_id=operator,
                request_id=request_id,
                sqlstate=error.sqlstate,
            )
        else:
            self.done.append(dict(row))

    async def ask_for_each(
        self, invocation: Invocation, statement: str, request_ids: Sequence[UUID], operator: str | None, *arguments: str
    ) -> None:
        """As `ask` for each id once, whose operator is looked up where it is not given."""
        async with database(invocation) as db:
            for request_id in dict.fromkeys(request_ids):
                owner = await self._owner(db, request_id, operator)
                if owner is not None:
                    await self.ask(db, statement, owner, request_id, *arguments)

    async def ask_once(self, invocation: Invocation, statement: str, operator: str, *arguments: str | None) -> None:
        """As `ask` for an operator itself."""
        async with database(invocation) as db:
            await self.ask(db, statement, operator, None, *arguments)

    async def _owner(self, db: Database, request_id: UUID, operator: str | None) -> str | None:
        """Whose callback it is; None, and one more refusal, where nobody's or several operators'."""
        from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

        owners = [str(row["operator_id"]) for row in await db.fetch(query("callback_operators"), request_id, operator)]
        if len(owners) == 1:
            return owners[0]
        message = await not_one(owners, db, request_id, operator)
        self.refuse(message, operator_id=operator, request_id=request_id)
        return None

    def run(self, invocation: Invocation, work: Coroutine[Any, Any, None], say: Saying) -> None:
        """The work is done and told; ends the command with exit code 1 where anything was refused."""
        try:
            asyncio.run(work)
        except (SystemExit, KeyboardInterrupt):
            # The database or the person went away: what was done before that stays done.
            if self.done or self.refused:
                self._tell(invocation, say)
            raise
        self._tell(invocation, say)
        if self.refused:
            sys.exit(EXIT_FAILED)

    def _tell(self, invocation: Invocation, say: Saying) -> None:
        if invocation.json:
            print_json({"done": [_plain(row) for row in self.done], "refused": [_plain(row) for row in self.refused]})
            return
        for line in say(self.done):
            click.echo(line)
        for refusal in self.refused[:_REFUSALS_SHOWN]:
            click.echo(refusal["message"], err=True)
            if refusal["hint"]:
                click.echo(f"    {refusal['hint']}", err=True)
        if len(self.refused) > _REFUSALS_SHOWN:
            click.echo(f"and {len(self.refused) - _REFUSALS_SHOWN} more were refused; --json lists all", err=True)


def _plain(row: Row) -> dict[str, Any]:
    return {key: value if value is None or isinstance(value, int | float) else str(value) for key, value in row.items()}
