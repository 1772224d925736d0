"""`why`: every reason why a callback is not being sent now, the decisive one first."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from predictu_dispatch.commands.invocation import Invocation, common_options, database, the_one
from predictu_dispatch.commands.output import print_json, print_line, print_wrapped
from predictu_dispatch.commands.request_ids import REQUEST_ID, the_request

if TYPE_CHECKING:
    from predictu_dispatch.core.diagnosis import Reason
    from predictu_dispatch.core.diagnosis_facts import Facts, FileFacts
    from predictu_dispatch.core.request_id import Beginning


@click.command()
@click.argument("request_id", type=REQUEST_ID)
@click.option("--operator", help="Needed only if several operators have the same REQUEST_ID.")
@common_options
def why(invocation: Invocation, request_id: Beginning, operator: str | None) -> None:
    """Explain why the callback REQUEST_ID is not being sent now; the decisive reason first.

    Any beginning of the id that is not ambiguous is enough.
    """
    from predictu_dispatch.core.diagnosis import reasons  # noqa: PLC0415 - loaded only where used

    facts = asyncio.run(_read(invocation, request_id, operator))
    found = reasons(facts)
    callback = facts.callback
    if invocation.json:
        names = ("request_id", "operator_id", "method", "bet_id", "lane", "state")
        described = {name: getattr(callback, name) for name in names}
        print_json({**described, "at": facts.at, "reasons": [_as_json(reason, facts) for reason in found]})
        return
    print_wrapped(
        f"{callback.method} {callback.request_id} of operator {callback.operator_id} is {callback.state}:", bold=True
    )
    _print_reasons(found, facts, indent="  ")


def _as_json(reason: Reason, facts: Facts) -> dict[str, Any]:
    from predictu_dispatch.commands.why.texts import explain  # noqa: PLC0415 - loaded only where used

    text, next_step = explain(reason.code, facts)
    because = [_as_json(deeper, facts.earlier) for deeper in reason.because] if facts.earlier else []
    return {"code": reason.code, "text": text, "next": next_step, "because": because}


def _print_reasons(found: tuple[Reason, ...], facts: Facts, *, indent: str) -> None:
    from predictu_dispatch.commands.why.texts import explain  # noqa: PLC0415 - loaded only where used

    for number, reason in enumerate(found, start=1):
        mark = f"{number}. " if len(found) > 1 else ""
        text, next_step = explain(reason.code, facts)
        print_wrapped(text, indent=indent + mark, bold=number == 1)
        print_wrapped(next_step, indent=f"{indent}{' ' * len(mark)}→ ")
        if reason.because and facts.earlier is not None:
            print_line(f"{indent}The earlier callback is not settled because:")
            _print_reasons(reason.because, facts.earlier, indent=indent + "  ")


async def _read(invocation: Invocation, beginning: Beginning, operator: str | None) -> Facts:
    from predictu_dispatch.edge.postgres.diagnosis_facts import callbacks_with_id, read_facts  # noqa: PLC0415 - loaded only where used

    async with database(invocation) as db:
        owner, request_id = await the_request(db, beginning, operator)
        row = await the_one(db, await callbacks_with_id(db, request_id, owner), request_id, owner)
        path = invocation.config.parent / "operators" / f"{row['operator_id']}.toml"
        file = _operator_file(path, is_without_config=invocation.is_without_config)
        return await read_facts(db, row, file)


def _operator_file(path: Path, *, is_without_config: bool) -> FileFacts:
    from predictu_dispatch.core.diagnosis_facts import FileFacts, FileState  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415
    from predictu_dispatch.edge.config.operator_file import read_operator  # noqa: PLC0415

    if is_without_config:
        return FileFacts(path=str(path), state=FileState.NO_CONFIGURATION)
    # Path.exists would raise if this user may not read the folder.
    if not os.path.lexists(path):
        return FileFacts(path=str(path), state=FileState.MISSING)
    try:
        read_operator(path, os.environ)
    except ConfigError as error:
        return FileFacts(path=str(path), state=FileState.FAULTY, faults=tuple(map(str, error.faults)))
    return FileFacts(path=str(path), state=FileState.USABLE)
