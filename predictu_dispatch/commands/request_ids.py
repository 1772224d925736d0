"""Request ids as arguments: whole, or by any beginning that is not ambiguous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click
from typing_extensions import override

from predictu_dispatch.commands.invocation import EXIT_FAILED, fail, is_unknown, unknown_operator, why_not_one
from predictu_dispatch.commands.output import Row, print_error, print_line, table, timestamp
from predictu_dispatch.core.request_id import Beginning, parse_beginning
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_MATCHES_SHOWN: Final = 20


class _BeginningType(click.ParamType[Beginning]):
    name = "request_id"

    @override
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Beginning:
        if isinstance(value, Beginning):
            return value
        try:
            return parse_beginning(str(value))
        except ValueError as error:
            self.fail(f"'{value}': {error}", param, ctx)


class _WholeType(click.ParamType[UUID]):
    name = "request_id"

    @override
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        if isinstance(value, UUID):
            return value
        try:
            beginning = parse_beginning(str(value))
        except ValueError:
            self.fail(f"'{value}' is not a valid UUID", param, ctx)
        if not beginning.is_whole:
            self.fail(
                f"'{value}' is the beginning of an id; a command that changes something takes whole ids only",
                param,
                ctx,
            )
        return beginning.first


REQUEST_ID: Final = _BeginningType()
"""The type of an argument of a command that only reads; the_request() looks it up."""
WHOLE_REQUEST_ID: Final = _WholeType()
"""The type of an argument of a command that changes something."""


async def the_request(db: Database, beginning: Beginning, operator: str | None) -> tuple[str, UUID]:
    """The operator and the whole id of the only match; ends the command if there is not one."""
    arguments = (beginning.first, beginning.last, operator, _MATCHES_SHOWN + 1)
    found = await db.fetch(query("requests_with_beginning"), *arguments)
    ids = {row["request_id"] for row in found}
    if len(found) == 1:
        return found[0]["operator_id"], found[0]["request_id"]
    if len(ids) == 1 or beginning.is_whole:
        owners = sorted(row["operator_id"] for row in found)
        fail(await why_not_one(db, owners, found[0]["request_id"] if found else beginning.first, operator))
    if not found:
        fail(await _why_none(db, beginning, operator))
    _print_matches(found, beginning)
    raise SystemExit(EXIT_FAILED)


async def _why_none(db: Database, beginning: Beginning, operator: str | None) -> str:
    message = f"no callback begins with {beginning.text}"
    if operator is not None and await is_unknown(db, operator):
        return f"{message}: {unknown_operator(operator)}"
    removed = await db.fetch(query("removed_with_beginning"), beginning.first, beginning.last, operator)
    for row in removed:
        name = f"{row['method']} {row['request_id']} of operator {row['operator_id']}"
        message += f"; retention removed {name} at {timestamp(row['removed_at'])}"
    return message


def _print_matches(found: Sequence[Row], beginning: Beginning) -> None:
    """Print the callbacks on stderr, the newest first, with whole ids to copy."""
    number = f"more than {_MATCHES_SHOWN}" if len(found) > _MATCHES_SHOWN else str(len(found))
    print_error(f"{number} callbacks begin with {beginning.text}; give more digits, or one of these ids:")
    shown = [
        (str(row["request_id"]), row["operator_id"], row["method"], timestamp(row["created_at"], timespec="seconds"))
        for row in found[:_MATCHES_SHOWN]
    ]
    for line in table(shown, gap=" "):
        print_line(f"  {line.rstrip()}", err=True)
