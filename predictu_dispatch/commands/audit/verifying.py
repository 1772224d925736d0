"""`audit verify`: compares every row with its log; exit 1 if anything does not fit."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from predictu_dispatch.commands.audit.common import configured_keys, reader, refuse
from predictu_dispatch.commands.invocation import EXIT_FAILED, EXIT_MISCONFIGURED, Invocation, common_options
from predictu_dispatch.commands.output import count, duration, print_json, print_wrapped, timestamp
from predictu_dispatch.core.database import INSUFFICIENT_PRIVILEGE, DatabaseUnavailable, Refused

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.audit_reader import AuditReader
    from predictu_dispatch.evidence.export import EarlierExport
    from predictu_dispatch.evidence.faults import Fault
    from predictu_dispatch.evidence.log_check import KeptCheckpoint
    from predictu_dispatch.evidence.trusted_keys import TrustedKeys
    from predictu_dispatch.evidence.verification_result import LogResult, Verification

_SHOWN: Final = 10
"""Faults of each log; --json has more."""


@click.command(short_help="Compare every row of the audit with its log.")
@click.option("--operator", metavar="OPERATOR", help="Verify this operator's log only.")
@click.option(
    "--checkpoint",
    "checkpoints",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A checkpoint that was kept elsewhere: the log must continue it. May be repeated.",
)
@click.option(
    "--against",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="An earlier export (audit export DIR): the logs must continue it.",
)
@click.option(
    "--key",
    "keys",
    metavar="VKEY|FILE",
    multiple=True,
    help="Trust this key of the log, or those of a file or policy, besides [audit] key_file and the file audit.vkeys"
    " beside dispatcher.toml. May be repeated.",
)
@common_options
def verify(
    invocation: Invocation,
    operator: str | None,
    checkpoints: Sequence[Path],
    against: Path | None,
    keys: Sequence[str],
) -> None:
    """Compare every row of the audit with its operator's log, and every log with itself.

    Names rows that were changed, removed, added or copied, entries that were edited or reordered,
    and checkpoints that no trusted key signed. What retention removed must be recorded in the log.
    A database that was restored from a backup of an earlier time fits itself: only --checkpoint or
    --against, with what was kept elsewhere, shows it.

    It reads the whole audit, some 40,000 rows a second, and needs no daemon. The result is stored
    for metrics and `audit status`.
    """
    from predictu_dispatch.evidence.faults import FaultKind  # noqa: PLC0415 - loaded only where used

    configured = configured_keys(invocation)
    trusted = _given_keys(invocation, keys).with_more(configured.trusted())
    export, outside = _outside(invocation, checkpoints, against)
    began_at_s = time.monotonic()
    result, warnings = asyncio.run(_run(invocation, operator, trusted, export, outside))
    if any(FaultKind.SIGNATURE in kinds for kinds in result.faults.counts.values()):
        warnings.append("if the logs' key was replaced, give the earlier one too: --key VKEY, or in audit.vkeys")
    if not trusted:
        warnings.insert(0, f"signatures are not checked: there is no trusted key ({configured.why_none}; see --key)")
    if invocation.json:
        print_json(_as_json(result, warnings, has_keys=bool(trusted)))
    else:
        for line in _lines(result):
            print_wrapped(line, hanging="    ")
        for warning in warnings:
            print_wrapped(f"warning: {warning}", hanging="    ")
        print_wrapped(_summary(result, time.monotonic() - began_at_s))
    if not result.is_clean:
        sys.exit(EXIT_FAILED)


async def _run(
    invocation: Invocation,
    operator: str | None,
    trusted: TrustedKeys,
    export: EarlierExport | None,
    outside: Sequence[KeptCheckpoint],
) -> tuple[Verification, list[str]]:
    from predictu_dispatch.evidence.verification import verify as verify_logs  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.evidence.verification_result import NotVerifiableError, Request  # noqa: PLC0415

    request = Request(operator_id=operator, keys=trusted, outside=outside)
    if export is not None:
        request = Request(operator_id=operator, keys=trusted, outside=outside, earlier_hashes=export.leaf_hashes)
    async with reader(invocation) as opened:
        if operator is not None:
            request = replace(request, outside=await _of_operator(invocation, opened, operator, request.outside))
        try:
            result = await verify_logs(opened, request)
        except NotVerifiableError as error:
            refuse(invocation, str(error))
        warnings = list(result.warnings)
        if result.has_backlog:
            warnings.append("rows from before the logs began are still being sealed; those are not compared yet")
        if result.unnamed_sums:
            warnings.append("there are too many differences to name all of them: not every fault is counted")
        return result, [*warnings, *await _record(opened, result)]


async def _of_operator(
    invocation: Invocation, opened: AuditReader, operator: str, outside: Sequence[KeptCheckpoint]
) -> Sequence[KeptCheckpoint]:
    """What was kept of this operator's log; a file of another log is a mistake."""
    [log, *_] = await opened.fetch("audit_logs", operator) or [{"origin": None}]
    if log["origin"] is None:
        return outside
    for each in outside:
        if each.origin != log["origin"] and each.is_single:
            refuse(invocation, f"{each.source} is of the log {each.origin}, not of {log['origin']}", EXIT_MISCONFIGURED)
    return [each for each in outside if each.origin == log["origin"]]


async def _record(opened: AuditReader, result: Verification) -> Sequence[str]:
    """Store the result; say why if that is impossible, as on a standby."""
    for operator_id in sorted({*result.logs, *result.faults.counts, *result.without_log}):
        log = result.logs.get(operator_id)
        first = [_fault_json(fault) for fault in result.faults.first.get(operator_id, [])]
        try:
            await opened.record(operator_id, log.size if log else 0, result.faults.number_of(operator_id), first)
        except (Refused, DatabaseUnavailable) as error:
            is_lacking = isinstance(error, Refused) and error.sqlstate == INSUFFICIENT_PRIVILEGE
            needs = "; only a login with the role predictu_auditor records it" if is_lacking else ""
            return [f"the result was not recorded: {error}{needs}"]
    return []


def _given_keys(invocation: Invocation, given: Sequence[str]) -> TrustedKeys:
    from predictu_dispatch.core.merkle.note import NoteError  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.evidence.trusted_keys import read_given_keys  # noqa: PLC0415

    try:
        return read_given_keys(given)
    except NoteError as error:
        refuse(invocation, f"--key: {error}", EXIT_MISCONFIGURED)
    except OSError as error:
        refuse(invocation, f"--key: {error.filename}: {error.strerror}", EXIT_MISCONFIGURED)


def _outside(
    invocation: Invocation, files: Sequence[Path], folder: Path | None
) -> tuple[EarlierExport | None, Sequence[KeptCheckpoint]]:
    from predictu_dispatch.core.merkle.note import NoteError  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.evidence.export import EarlierExport, outside_checkpoint  # noqa: PLC0415

    export = EarlierExport(folder) if folder is not None else None
    try:
        found = [outside_checkpoint(file)._replace(is_single=True) for file in files]
        exported = list(export.checkpoints()) if export else []
    except NoteError as error:
        refuse(invocation, str(error), EXIT_MISCONFIGURED)
    except OSError as error:
        refuse(invocation, f"{error.filename}: {error.strerror}", EXIT_MISCONFIGURED)
    if export and not exported:
        refuse(invocation, f"{folder} has no export: there is no {folder}/OPERATOR/checkpoint", EXIT_MISCONFIGURED)
    return export, [*found, *exported]


def _lines(result: Verification) -> Iterator[str]:
    for operator_id in sorted({*result.logs, *result.faults.counts}):
        faults = result.faults.number_of(operator_id)
        log = result.logs.get(operator_id)
        yield f"{operator_id}: {count(faults, 'fault') if faults else 'clean'}; {_described(log)}"
        for fault in result.faults.first.get(operator_id, [])[:_SHOWN]:
            yield f"  {fault.kind.value}: {fault.text}"
        if faults > _SHOWN:
            kinds = ", ".join(f"{number} {kind.value}" for kind, number in result.faults.counts[operator_id].items())
            yield f"  … {faults} in all: {kinds}"


def _described(log: LogResult | None) -> str:
    if log is None:
        return "no log"
    parts = [f"{log.size:,} entries", count(log.checkpoints, "checkpoint")]
    if log.cosignatures:
        parts.append(count(log.cosignatures, "cosignature"))
    if log.removed:
        parts.append(f"{log.removed:,} removed by retention")
    if log.pending:
        parts.append(f"{log.pending:,} not sealed yet")
    return ", ".join(parts)


def _summary(result: Verification, seconds: float) -> str:
    compared = f"{result.rows:,} rows compared in {duration(seconds)}; sealed up to {timestamp(result.sealed_at)}"
    if result.is_clean:
        return f"clean: {compared}"
    return f"{count(result.faults.total, 'fault')}: {compared}"


def _fault_json(fault: Fault) -> dict[str, object]:
    return {"kind": fault.kind.value, "subject": fault.subject, "index": fault.index, "message": fault.text}


def _as_json(result: Verification, warnings: Sequence[str], *, has_keys: bool) -> dict[str, Any]:
    logs = []
    for operator_id in sorted({*result.logs, *result.faults.counts}):
        log = result.logs.get(operator_id)
        logs.append(
            {
                "operator_id": operator_id,
                "origin": log and log.origin,
                "size": log and log.size,
                "checkpoints": log and log.checkpoints,
                "cosignatures": log and log.cosignatures,
                "removed": log and log.removed,
                "pending": log and log.pending,
                "faults": result.faults.number_of(operator_id),
                "kinds": {kind.value: number for kind, number in result.faults.counts.get(operator_id, {}).items()},
                "first_faults": [_fault_json(fault) for fault in result.faults.first.get(operator_id, [])],
            }
        )
    return {
        "ok": result.is_clean,
        "read_at": result.read_at,
        "sealed_at": result.sealed_at,
        "rows": result.rows,
        "faults": result.faults.total,
        "are_signatures_checked": has_keys,
        "logs": logs,
        "warnings": warnings,
    }
