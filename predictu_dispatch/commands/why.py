"""`why`: in words, why a callback is not being sent this moment."""

from __future__ import annotations

import asyncio
import shutil
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from predictu_dispatch.commands import words
from predictu_dispatch.commands.connection import database
from predictu_dispatch.commands.invocation import Invocation, common_options, print_json
from predictu_dispatch.commands.lookup import the_one

if TYPE_CHECKING:
    from predictu_dispatch.core.diagnosis import Reason
    from predictu_dispatch.core.diagnosis_facts import Facts

_COLUMNS_MOST = 100
"""Longer lines of prose are hard to read, however wide the terminal."""


@click.command()
@click.argument("request_id", type=click.UUID)
@click.option("--operator", help="Needed only where several operators have the same REQUEST_ID.")
@common_options
def why(invocation: Invocation, request_id: UUID, operator: str | None) -> None:
    """Say in words why the callback REQUEST_ID is not being sent this moment, the decisive reason first."""
    from predictu_dispatch.core.diagnosis import reasons  # noqa: PLC0415 - loaded only where used

    facts = asyncio.run(_read(invocation, request_id, operator))
    found = reasons(facts)
    callback = facts.callback
    if invocation.json:
        print_json(
            {
                "request_id": str(callback.request_id),
                "operator_id": callback.operator_id,
                "method": callback.method,
                "bet_id": callback.bet_id,
                "lane": callback.lane,
                "state": callback.state,
                "at": words.moment(facts.at),
                "reasons": [_plain(reason, facts) for reason in found],
            }
        )
        return
    state = click.style(callback.state, bold=True)
    click.echo(f"{callback.method} {callback.request_id} of operator {callback.operator_id} is {state}:")
    for line in _lines(found, facts, indent="  "):
        click.echo(line)


def _plain(reason: Reason, facts: Facts) -> dict[str, Any]:
    from predictu_dispatch.commands.why_words import said  # noqa: PLC0415 - loaded only where used

    text, then = said(reason.code, facts)
    earlier = facts.earlier
    because = [_plain(deeper, earlier) for deeper in reason.because] if earlier else []
    return {"code": reason.code, "text": text, "next": then, "because": because}


def _lines(found: tuple[Reason, ...], facts: Facts, *, indent: str) -> Iterator[str]:
    from predictu_dispatch.commands.why_words import said  # noqa: PLC0415 - loaded only where used

    width = min(_COLUMNS_MOST, shutil.get_terminal_size().columns)
    for number, reason in enumerate(found, start=1):
        mark = f"{number}. " if len(found) > 1 else ""
        text, then = said(reason.code, facts)
        for line in _wrapped(f"{mark}{text}", width, indent, " " * len(mark)):
            yield click.style(line, bold=True) if number == 1 else line
        yield from _wrapped(f"→ {then}", width, indent + " " * len(mark), "  ")
        if reason.because and facts.earlier is not None:
            yield f"{indent}That one is not done because:"
            yield from _lines(reason.because, facts.earlier, indent=indent + "  ")


def _wrapped(text: str, width: int, indent: str, hanging: str) -> list[str]:
    """Lines that never break a word: an id or a command is there to be copied."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


async def _read(invocation: Invocation, request_id: UUID, operator: str | None) -> Facts:
    from predictu_dispatch.edge.postgres.diagnosis_facts import callbacks_with_id, facts_of  # noqa: PLC0415 - loaded only where used

    async with database(invocation) as db:
        row = await the_one(db, await callbacks_with_id(db, request_id, operator), request_id, operator)
        return await facts_of(db, row, config=invocation.config)
