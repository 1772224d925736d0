"""`audit prove`: writes the proof that an attempt is in its operator's log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from predictu_dispatch.commands.audit.common import reader, refuse
from predictu_dispatch.commands.invocation import Invocation, common_options, database
from predictu_dispatch.commands.output import print_json, print_lines, print_wrapped
from predictu_dispatch.commands.request_ids import REQUEST_ID, the_request

if TYPE_CHECKING:
    from uuid import UUID

    from predictu_dispatch.core.request_id import Beginning
    from predictu_dispatch.evidence.proofs import Proof


@click.command(short_help="Prove that an attempt is in its log.")
@click.argument("request_id", type=REQUEST_ID)
@click.option("--attempt", metavar="N", type=click.IntRange(min=1), help="The attempt; default: the last one.")
@click.option("--operator", metavar="OPERATOR", help="The operator, if several have this request id.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write FILE, and FILE.entry.json, the entry.",
)
@common_options
def prove(
    invocation: Invocation, request_id: Beginning, attempt: int | None, operator: str | None, output: Path | None
) -> None:
    """Print the proof (c2sp.org/tlog-proof) that an attempt of REQUEST_ID is in its log.

    With the entry's bytes, which -o and --json give, and the log's policy, anybody can verify it
    without us. evidence/FORMAT.md specifies the entry. `dispute` writes all of this, and what was
    sent and received, into one file.
    """
    if operator is not None and request_id.is_whole:
        # Its callback may have been removed.
        operator_id, whole_id = operator, request_id.first
    else:
        operator_id, whole_id = asyncio.run(_find(invocation, request_id, operator))
    number, proof = asyncio.run(_prove(invocation, operator_id, whole_id, attempt))
    entry_file = output and output.with_name(f"{output.name}.entry.json")
    if output and entry_file:
        try:
            for file in (output, entry_file):
                file.touch(exist_ok=False)
            output.write_text(proof.log_proof.text(), encoding="utf-8")
            entry_file.write_bytes(proof.entry)
        except FileExistsError as error:
            refuse(invocation, f"{error.filename} exists and is not changed; give another file: -o FILE")
        except OSError as error:
            refuse(invocation, f"{error.filename or output}: {error.strerror}")
    if invocation.json:
        print_json(
            {
                "operator_id": operator_id,
                "request_id": whole_id,
                "attempt": number,
                "index": proof.log_proof.index,
                "size": proof.size,
                "entry": proof.entry.decode(),
                "tlog_proof": proof.log_proof.text(),
            }
        )
    elif output:
        print_wrapped(
            f"{output} proves that attempt {number} of {whole_id} is entry {proof.log_proof.index} of the log of"
            f" {operator_id}, which had {proof.size:,} entries. The entry is in {entry_file}."
        )
    else:
        print_lines(proof.log_proof.text())


async def _find(invocation: Invocation, beginning: Beginning, operator: str | None) -> tuple[str, UUID]:
    async with database(invocation) as db:
        return await the_request(db, beginning, operator)


async def _prove(invocation: Invocation, operator_id: str, request_id: UUID, attempt: int | None) -> tuple[int, Proof]:
    from predictu_dispatch.evidence import proofs  # noqa: PLC0415 - loaded only where used

    async with reader(invocation) as opened:
        rows: Sequence[Any] = await opened.fetch("audit_attempts_of", operator_id, request_id)
        deciding = {row["attempt"]: row for row in reversed(rows)}
        if attempt is None and deciding:
            attempt = max(deciding)
        if attempt not in deciding:
            has = f"it has {', '.join(map(str, sorted(deciding)))}" if deciding else "it was never attempted"
            refuse(invocation, f"{request_id} has no attempt {attempt}: {has}" if deciding else f"{request_id}: {has}")
        row = deciding[attempt]
        try:
            return row["attempt"], await proofs.prove(opened, operator_id, row["report_id"], row["started_at"])
        except proofs.NotProvableError as error:
            refuse(invocation, f"attempt {attempt} of {request_id} cannot be proved: {error}")
