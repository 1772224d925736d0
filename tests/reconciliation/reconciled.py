"""Runs a reconciliation: the real command on files, or the database's functions on lines."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from predictu_dispatch.edge.config.loader import VARIABLES
from tests.reconciliation.naive_lines import Line
from tests.reconciliation.naive_matching import Period

_BEGIN = "select (predictu_dispatch.begin_reconciliation($1, $2, $3, $4, $5, $6, $7, $8, 'proof')).run_id"
_FINISH = "select predictu_dispatch.finish_reconciliation($1, $2, $3::text::jsonb, $4, 0, $5, $6::text::jsonb, $7, $8)"
_BEFORE_SECTION = "\n# How its ledger is read.\n"
_COLUMNS = (
    *("operator_id", "run_id", "source", "line", "booked_at", "day", "transaction_id", "request_id", "method"),
    *("bet_id", "player_id", "currency", "amount", "is_debit"),
)


async def classify(
    connection: asyncpg.Connection[asyncpg.Record], operator_id: str, period: Period, lines: Sequence[Line]
) -> UUID:
    """Classify these lines by the database's functions; returns the run's id."""
    days = (period.last_day - period.first_day).days + 1
    run_id: UUID = await connection.fetchval(
        _BEGIN,
        *(operator_id, period.first_day, period.last_day, period.dialect.time_zone),
        time.fromisoformat(period.dialect.day_starts),
        [period.dialect.start_of(period.first_day + timedelta(days=number)) for number in range(days + 1)],
        *(period.settle_s, period.no_end_days),
    )
    records: list[tuple[Any, ...]] = [
        (
            *(operator_id, run_id, line.source, line.number, line.booked_at, line.day, line.transaction_id),
            *(line.request_id, line.method, line.bet_id, line.player_id, line.currency, line.amount, line.is_debit),
        )
        for line in lines
    ]
    await connection.copy_records_to_table(
        "reconciliation_line", schema_name="predictu_dispatch", records=records, columns=_COLUMNS
    )
    cut_at = await connection.fetchval(
        "select cut_at from predictu_dispatch.reconciliation_run where run_id = $1", run_id
    )
    times = [line.booked_at for line in lines]
    await connection.execute(
        _FINISH,
        *(operator_id, run_id, json.dumps([]), len(lines), 0, json.dumps([])),
        *(min([period.start, *times]), max([cut_at, *times])),
    )
    return run_id


async def reconcile(
    folder: Path, dsn: str, operator_id: str, *, settings: Mapping[str, Any], period: Period, paths: Sequence[Path]
) -> UUID:
    """Run the command on files; returns the run's id.

    `folder` has the operator's file, which gets a section [reconcile].
    """
    file = folder / "operators" / f"{operator_id}.toml"
    (folder / "reconcile.toml").write_text(f"[database]\ndsn = {json.dumps(dsn)}\n", encoding="utf-8")
    written, _, _ = file.read_text(encoding="utf-8").partition(_BEFORE_SECTION)
    file.write_text(written + _BEFORE_SECTION + _section("reconcile", settings), encoding="utf-8")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "predictu_dispatch", "reconcile", operator_id),
        *("--from", period.first_day.isoformat(), "--until", period.last_day.isoformat(), "--by", "proof"),
        *("--json", "--config", str(folder / "reconcile.toml"), *map(str, paths)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name not in VARIABLES.values()},
    )
    out, err = await command.communicate()
    assert command.returncode in (0, 1), f"exit {command.returncode}: {err.decode()}"
    assert out, err.decode()
    report = json.loads(out)
    assert report["ok"] == (command.returncode == 0)
    assert all(one["holds"] for one in report["identity"])
    assert report["are_rows_complete"]
    return UUID(report["run_id"])


def _section(name: str, settings: Mapping[str, Any]) -> str:
    plain = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in settings.items() if not _is_table(value)]
    tables = [_section(f"{name}.{key}", value) for key, value in settings.items() if _is_table(value)]
    return "\n".join([f"[{name}]", *plain, *tables]) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)
