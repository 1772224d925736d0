"""The examples of the section Finance are true, and the nightly unit reconciles two days."""

from __future__ import annotations

import asyncio
import re
import shlex
import sqlite3
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from predictu_dispatch.core.ledger_line import Ignored, LedgerLine, read_line
from predictu_dispatch.core.reconcile_settings import ReconcileSettings
from predictu_dispatch.reconciliation.files import open_ledger
from predictu_dispatch.reconciliation.record import Record
from predictu_dispatch.reconciliation.records import read_records
from tests.reference_operator.client import KEY, OPERATOR_ID, running
from tests.support.harness import Harness
from tests.support.postgres import Database

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = re.compile(r"(?ms):\n\n((?:    [^\n]+\n)+)\n```toml\n(\[reconcile\]\n.*?)^```$")


def lines_of(ledger: Path, settings: ReconcileSettings) -> Iterator[LedgerLine | Ignored]:
    with open_ledger(ledger) as file:
        for part in file.parts():
            for record in read_records(part, settings):
                assert isinstance(record, Record), record
                line = read_line(record.fields, settings, settings.days, {"EUR": 2})
                assert isinstance(line, LedgerLine | Ignored), line
                yield line


def test_each_settings_example_reads_the_lines_above_it(tmp_path: Path) -> None:
    found = []
    for ledger, toml in EXAMPLE.findall((DEPLOY / "README.md").read_text(encoding="utf-8")):
        file = tmp_path / "ledger"
        file.write_text(re.sub(r"(?m)^    ", "", ledger), encoding="utf-8")
        settings = ReconcileSettings.model_validate(tomllib.loads(toml)["reconcile"])
        found.append([line if isinstance(line, Ignored) else line[-2:] for line in lines_of(file, settings)])
        times = [line.booked_at for line in lines_of(file, settings) if isinstance(line, LedgerLine)]
        # 10:00 in Malta in winter.
        assert [f"{time:%H:%M}" for time in times] == ["09:00", "09:02"]
    assert found == [[(-1250, True), (2312, False), Ignored()], [(-1250, True), (2312, False)]]


async def test_the_nightly_unit_reconciles_the_last_two_days_by_pull(
    tmp_path: Path, harness: Harness, database: Database
) -> None:
    """With the operator's key as a credential only, as the unit has it."""
    credentials = tmp_path / "credentials"
    (tmp_path / "operators").mkdir()
    credentials.mkdir()
    (credentials / f"keys_{OPERATOR_ID}.pem").write_bytes(KEY.as_pem(private=True))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    async with running(tmp_path) as operator:
        (tmp_path / f"operators/{OPERATOR_ID}.toml").write_text(
            f'operator_id = "{OPERATOR_ID}"\ncallback_url = "{operator.url}"\n'
            "allow_insecure_http = true\nallow_private_addresses = true\n"
            f'[signing]\nkey_file = "keys/{OPERATOR_ID}.pem"\n[reconcile]\nurl = "{operator.url}/ledger"\n'
        )
        (tmp_path / "dispatcher.toml").write_text("")
        with closing(sqlite3.connect(operator.database)) as sql, sql:
            sql.execute(
                "insert into transactions values ('t-1', ?, 'BET_WIN', 'b-1', 'player-1', 'EUR', 500, ?)",
                (str(uuid4()), f"{yesterday:%Y-%m-%d}T12:00:00.000Z"),
            )
        unit = (DEPLOY / "predictu-dispatch-reconcile@.service").read_text(encoding="utf-8")
        [command] = re.findall(r"(?m)^ExecStart=/opt/predictu-dispatch/bin/predictu-dispatch (.*)$", unit)
        command = command.replace("%i", OPERATOR_ID).replace("/etc/predictu-dispatch", str(tmp_path))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "predictu_dispatch", *shlex.split(command)),
            env={"PREDICTU_DISPATCH_DSN": database.reconciler, "CREDENTIALS_DIRECTORY": str(credentials)},
            cwd=DEPLOY.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode()
    [run] = await harness.owner.fetch("select * from predictu_dispatch.reconciliation_run")
    assert (run["first_day"], run["last_day"]) == (yesterday.date() - timedelta(days=1), yesterday.date()), output
    assert run["finished_at"] is not None
    assert (run["is_complete"], run["lines_read"], run["done_by"]) == (True, 1, "timer")
    assert process.returncode == 1
    assert re.search(r"(?m)^missing here +1 .* over$", output), output
