"""`audit status`: the size of each log, its newest checkpoint, its witnesses and verifications."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from predictu_dispatch.commands.audit.common import ConfiguredKeys, configured_keys, logs_of, reader
from predictu_dispatch.commands.invocation import Invocation, common_options
from predictu_dispatch.commands.output import (
    count,
    duration,
    print_json,
    print_line,
    print_wrapped,
    rounded,
    table,
    timestamp,
)

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.audit_reader import AuditPosition

_COLUMNS: Final = 80


@click.command(short_help="Show each log: size, checkpoint, witnesses, last verification.")
@click.argument("operator", required=False)
@common_options
def status(invocation: Invocation, operator: str | None) -> None:
    """Show the logs of all operators, or of OPERATOR.

    For each: its entries, its newest checkpoint, when it was verified last and with which result,
    and how many of its witnesses have cosigned what there is.
    """
    configured = configured_keys(invocation)
    position, logs, witnesses = asyncio.run(_read(invocation, operator))
    known = {witness.name: witness for witness in configured.witnesses}
    witnesses = [
        row for row in witnesses if row["witness"] not in known or known[row["witness"]].knows(row["operator_id"])
    ]
    if invocation.json:
        print_json(_as_json(position, logs, witnesses, configured))
        return
    now = position.read_at
    age = duration((now - position.sealed_at).total_seconds())
    print_line(f"Everything up to {timestamp(position.sealed_at)} is sealed, {age} ago.")
    if position.backlog is not None:
        print_wrapped("Rows from before the logs began are still being sealed.")
    print_line()
    rows: list[tuple[str, ...]] = [("operator", "entries", "newest checkpoint", "witnesses", "verified")]
    rows += [_row(log, [each for each in witnesses if each["operator_id"] == log["operator_id"]], now) for log in logs]
    for line in fitting(rows):
        print_line(line.rstrip())
    if operator is not None:
        for key in configured.trusted().of_log(logs[0]["origin"]):
            print_line(f"key {key}")
    for line in _problems(logs, witnesses, configured if invocation.config.exists() else None):
        print_wrapped(line, hanging="    ")


def fitting(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """A table; if long operator ids make it too wide, each has a line of its own."""
    lines = list(table(rows, right=(1,)))
    if max(map(len, lines)) <= _COLUMNS:
        yield from lines
        return
    for row, line in zip(rows, table([row[1:] for row in rows], right=(0,)), strict=True):
        yield row[0]
        yield f"  {line}"


async def _read(invocation: Invocation, operator: str | None) -> tuple[AuditPosition, Sequence[Any], Sequence[Any]]:
    async with reader(invocation) as opened:
        logs = await logs_of(invocation, opened, operator)
        position = await opened.position()
        assert position is not None  # noqa: S101 - there are logs
        return position, logs, await opened.fetch("audit_witnesses", operator)


def _row(log: Any, witnesses: Sequence[Any], now: datetime) -> tuple[str, ...]:  # noqa: ANN401 - a row
    current = sum(each["size"] >= log["size"] for each in witnesses)
    verified = "never"
    if log["verified_at"] is not None:
        result = f"{count(log['faults'], 'fault')}" if log["faults"] else "clean"
        verified = f"{result}, {duration((now - log['verified_at']).total_seconds())} ago"
    return (
        log["operator_id"],
        f"{log['size']:,}" if log["size"] < 1_000_000_000 else rounded(log["size"]),  # noqa: PLR2004 - fits the column
        timestamp(log["checkpoint_at"], timespec="seconds") if log["checkpoint_at"] else "none",
        f"{current} of {len(witnesses)}" if witnesses else "none",
        verified,
    )


def _problems(logs: Sequence[Any], witnesses: Sequence[Any], configured: ConfiguredKeys | None) -> Iterator[str]:
    for log in logs:
        if log["faults"]:
            yield f"{log['operator_id']}: verification found faults; to see them: predictu-dispatch audit verify"
    for each in witnesses:
        if each["failed_at"] is not None and (each["cosigned_at"] is None or each["failed_at"] > each["cosigned_at"]):
            what = "refused to cosign" if each["is_refused"] else "did not answer"
            at = timestamp(each["failed_at"])
            yield f"{each['operator_id']}: witness {each['witness']} {what} at {at}: {each['failure']}"
    if configured is not None and not configured.origin:
        yield "dispatcher.toml here has no [audit] origin: a daemon with this file seals nothing"


def _as_json(
    position: AuditPosition, logs: Sequence[Any], witnesses: Sequence[Any], configured: ConfiguredKeys
) -> dict[str, Any]:
    columns = ("size", "cosigned_at", "failed_at", "is_refused", "failure")
    return {
        "sealed_at": position.sealed_at,
        "read_at": position.read_at,
        "has_backlog": position.backlog is not None,
        "logs": [
            {
                "operator_id": log["operator_id"],
                "origin": log["origin"],
                "started_at": log["started_at"],
                "size": log["size"],
                "root": log["root"].hex(),
                "sealed_at": log["updated_at"],
                "checkpoint_size": log["checkpoint_size"],
                "checkpoint_at": log["checkpoint_at"],
                "verified_at": log["verified_at"],
                "verified_size": log["verified_size"],
                "faults": log["faults"],
                "keys": [str(key) for key in configured.trusted().of_log(log["origin"])],
                "witnesses": [
                    {"witness": each["witness"], **{column: each[column] for column in columns}}
                    for each in witnesses
                    if each["operator_id"] == log["operator_id"]
                ],
            }
            for log in logs
        ],
    }
