"""`currencies`: lists the currencies that amounts may be in, and adds further ones."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import click
from typing_extensions import override

from predictu_dispatch.commands.invocation import Invocation, common_options, database, fail
from predictu_dispatch.commands.output import Row, count, money, print_json, print_line, print_wrapped, timestamp
from predictu_dispatch.commands.verb_group import VerbGroup
from predictu_dispatch.core.database import Refused
from predictu_dispatch.edge.postgres.sql_files import query

_LARGEST_AMOUNT: Final = 10**18 - 1
"""The protocol's largest amount: 18 digits, in subunits."""
_ADD: Final = "predictu-dispatch currencies add CODE DIGITS"


class _ListsByDefault(VerbGroup):
    """Without a verb, the group runs `list`, with all options of it."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args.insert(0, "list")
        return super().parse_args(ctx, args)


@click.group(cls=_ListsByDefault)
def currencies() -> None:
    """List the currencies that amounts may be in, and add further ones.

    All of ISO 4217 are there. Without a verb, it lists them.
    """


@currencies.command("list")
@common_options
def list_currencies(invocation: Invocation) -> None:
    """List the currencies with their minor digits."""
    rows = asyncio.run(_fetch(invocation, query("currencies")))
    if invocation.json:
        print_json([dict(row) for row in rows])
        return
    print_line("ISO 4217")
    for digits, codes in _by_digits(rows):
        head = f"  {_digits(digits)}  "
        print_wrapped(" ".join(codes), indent=head, hanging=" " * len(head))
    added = [row for row in rows if not row["is_iso_4217"]]
    print_line("Added" if added else f"Added: none; `{_ADD}` adds one")
    for row in added:
        added_by = f"{timestamp(row['added_at'])} by {row['added_by']}"
        print_line(f"  {_digits(row['minor_digits'])}  {row['currency']:10}  {added_by}")


@currencies.command("add")
@click.argument("code")
@click.argument("digits", type=click.IntRange(0, 18))
@common_options
def add(invocation: Invocation, code: str, digits: int) -> None:
    """Add the currency CODE, such as USDT. One unit of it is 10^DIGITS subunits.

    Its digits can never be changed, and it can never be removed: stored amounts are in its
    subunits. An amount has at most 18 digits, so a currency with 18 has no amounts of 1 or more; 8
    is usual for BTC, 6 for USDT.

    Its database login must own the schema, as the login that runs `migrate` does.
    """
    [row] = asyncio.run(_add(invocation, code, digits))
    if invocation.json:
        print_json({"currency": code, "minor_digits": digits, "is_new": row["is_new"]})
    elif row["is_new"]:
        print_line(
            f"added {code}: 1 {code} is {10**digits:,} subunits; the largest amount is"
            f" {money(_LARGEST_AMOUNT, code, digits)}"
        )
    else:
        print_line(f"{code} is there already, with {count(digits, 'minor digit')}")


async def _fetch(invocation: Invocation, statement: str, *args: str | int) -> list[Row]:
    async with database(invocation) as db:
        return await db.fetch(statement, *args)


async def _add(invocation: Invocation, code: str, digits: int) -> list[Row]:
    async with database(invocation) as db:
        try:
            return await db.fetch(query("add_currency"), code, digits)
        except Refused as error:
            if not error.is_for_a_person:
                raise
            fail(error.message, hint=error.hint)


def _by_digits(rows: list[Row]) -> Iterator[tuple[int, list[str]]]:
    codes: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        if row["is_iso_4217"]:
            codes[row["minor_digits"]].append(row["currency"])
    yield from sorted(codes.items())


def _digits(number: int) -> str:
    return f"{number:2} digit{'' if number == 1 else 's'}{' ' if number == 1 else ''}"
