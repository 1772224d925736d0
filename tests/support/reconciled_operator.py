"""A reference operator with bets that a daemon played, and `reconcile` as a person runs it."""

import csv
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from predictu_dispatch.core.accounting_days import AccountingDays
from predictu_dispatch.reference_operator.ledger import COLUMNS
from tests.certification.sandbox import PLAYERS, Sandbox, changed_operator
from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import WAIT_S, Fleet
from tests.support.environment import Environment
from tests.support.harness import OPERATOR, enqueue, know_operators, open_harness, placement_params
from tests.support.operators import Operator
from tests.support.postgres import Database

Row = dict[str, Any]
"""A line of the ledger, by column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciledOperator:
    """The operator, and our side: a fleet, its producer and a login that reconciles."""

    environment: Environment
    sandbox: Sandbox
    cli: CommandLine
    days: AccountingDays
    """Half a day away from its next edge, so that no test sees one."""

    @property
    def today(self) -> date:
        return self.days.day_of(datetime.now(UTC))

    def write_operator(self, **reconcile: Any) -> None:
        """Writes the operator's file, with these further keys of [reconcile]."""
        section = {"settle_s": 0, "day_starts": f"{self.days.day_starts:%H:%M}", **reconcile}
        self.environment.fleet.write_operator(
            self.sandbox.url, signing={"key_file": str(self.sandbox.key_file)}, reconcile=section
        )

    def use_database(self, dsn: str) -> None:
        """Lets the commands use this DSN from now on."""
        command_line_for(self.cli.folder, dsn)

    async def play(self, *bets: str) -> None:
        """Places these bets and wins every second one; returns when all is final."""
        harness = self.environment.harness
        for number, bet_id in enumerate(bets):
            params = placement_params(bet_id, player_id=PLAYERS[number % 2], amount=100 + number)
            await enqueue(harness.producer, "BET_MAKE", params)
        await self.environment.until_all_final()
        for bet_id in bets[::2]:
            await harness.end("BET_WIN", bet_id)
        await self.environment.until_all_final()

    def rows(self) -> list[Row]:
        """The operator's own ledger, in order."""
        with closing(sqlite3.connect(self.sandbox.folder / "wallet.db")) as sql:
            sql.row_factory = sqlite3.Row
            found = sql.execute(
                "select * from transactions where method <> 'DEPOSIT' order by created_at, transaction_id"
            )
            return [{**dict(row), "booked_at": row["created_at"]} for row in found]

    def write(self, name: str, rows: Sequence[Row]) -> Path:
        """Writes a ledger file and returns its path."""
        path = self.cli.folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    async def reconcile(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Returns exit code, stdout and stderr of a run over today."""
        return await self.cli.run("reconcile", OPERATOR, "--day", str(self.today), *map(str, arguments))

    def process(self, *arguments: str | Path) -> list[str]:
        """Returns the command line of such a run."""
        return self.cli.process("reconcile", OPERATOR, "--day", str(self.today), *map(str, arguments))


@asynccontextmanager
async def reconciled_operator(folder: Path, database: Database) -> AsyncIterator[ReconciledOperator]:
    """Runs the operator and a daemon; both end with the block."""
    half_a_day_ago = datetime.now(UTC) - timedelta(hours=12)
    days = AccountingDays(zone=UTC, day_starts=time(half_a_day_ago.hour))
    (folder / "operator").mkdir()
    async with (
        open_harness(database) as harness,
        changed_operator(folder / "operator") as sandbox,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as session,
    ):
        sandbox.key_file.chmod(0o600)
        fleet = Fleet(folder=folder, dsn=database.dispatcher, session=session)
        environment = Environment(harness=harness, operator=Operator(OPERATOR, b""), fleet=fleet)
        cli = command_line_for(folder, database.reconciler)
        books = ReconciledOperator(environment=environment, sandbox=sandbox, cli=cli, days=days)
        books.write_operator(url=f"{sandbox.url}/ledger")
        await know_operators(harness.daemon, interactive_deadline_s=60.0)
        try:
            await fleet.start("host-1")
            yield books
        finally:
            fleet.end()
