"""A database with a large day, runs of `reconcile` on it, and what they have stored."""

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg

from predictu_dispatch.core.accounting_days import AccountingDays
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.backlog import owner_of
from tests.bench.ledger_day import OPERATOR, LedgerDay, Result, write_day
from tests.bench.reconcile_process import LOGIN, Ended, RunningReconcile

_ZONE: Final = "Europe/Malta"
_DAY: Final = timedelta(days=1)
_OPERATOR_TOML: Final = f"""\
operator_id = "{OPERATOR}"
callback_url = "https://wallet.example/predictu"
[signing]
key_file = "../key.pem"
[reconcile]
time_zone = "{_ZONE}"
"""
_FINISHED: Final = """
    select run_id, is_complete from predictu_dispatch.reconciliation_run
     where operator_id = $1 and finished_at is not null order by finished_at
"""
_TOTALS: Final = """
    select class, currency, sum(items)::bigint as items, sum(theirs - ours)::bigint as difference
      from predictu_dispatch.reconciliation_total where operator_id = $1 and run_id = $2 group by class, currency
"""
_ITEMS: Final = """
    select i.class, coalesce(
               (select min(l ->> 'transaction_id') from jsonb_array_elements(i.lines) l
                 where starts_with(l ->> 'transaction_id', 'other-') and i.class <> 'booked_twice'),
               i.request_id::text) as item
      from predictu_dispatch.reconciliation_item i where i.operator_id = $1 and i.run_id = $2
"""
# All that a run stores, except its id, its times, and what depends on earlier runs.
_DIGEST: Final = """
    select md5(string_agg(part.row::text, e'\\n' order by part.row::text)) from (
        select to_jsonb(t) - 'run_id' as row from predictu_dispatch.reconciliation_total t
         where t.operator_id = $1 and t.run_id = $2
        union all
        select to_jsonb(i) - array['run_id', 'is_open'] from predictu_dispatch.reconciliation_item i
         where i.operator_id = $1 and i.run_id = $2
        union all
        select to_jsonb(r) - array['run_id', 'started_at', 'finished_at', 'opened', 'closed']
          from predictu_dispatch.reconciliation_run r
         where r.operator_id = $1 and r.run_id = $2) part
"""
_OPEN: Final = """
    select md5(coalesce(string_agg(item_id::text, ',' order by item_id), ''))
      from predictu_dispatch.reconciliation_item where operator_id = $1 and is_open
"""


class ReconcileBench:
    """A database with a large day, its ledger, and the command's configuration."""

    def __init__(self, postgres: EmbeddedPostgres, folder: Path, *, database: str, day: date) -> None:
        self.postgres = postgres
        self.database = database
        self.day = day
        self._folder = folder
        self.ledger = folder / "ledger.csv"
        self.written: LedgerDay | None = None

    async def prepare(self, *, lines: int, faults: int, seed: int) -> LedgerDay:
        """Create the database, and write the day, the ledger and the configuration."""
        async with owner_of(self.postgres, "postgres") as owner:
            if not await owner.fetchval("select true from pg_database where datname = $1", self.database):
                await owner.execute(f"create database {self.database} template template0 encoding 'UTF8'")
                await migrate(self.postgres.dsn(self.database))
            if not await owner.fetchval("select true from pg_roles where rolname = $1", LOGIN):
                await owner.execute(f"create role {LOGIN} login; grant predictu_reconciler to {LOGIN}")
        days = AccountingDays(zone=ZoneInfo(_ZONE))
        async with owner_of(self.postgres, self.database) as owner:
            self.written = await write_day(
                owner,
                self.ledger,
                begins_at=days.start_of(self.day),
                ends_at=days.start_of(self.day + _DAY),
                lines=lines,
                faults=faults,
                seed=seed,
            )
        operators = self._folder / "operators"
        operators.mkdir(parents=True, exist_ok=True)
        (operators / f"{OPERATOR}.toml").write_text(_OPERATOR_TOML, encoding="utf-8")
        if not (self._folder / "key.pem").exists():
            create_key_file(self._folder / "key.pem", "EdDSA")
        self._config.write_text(f'[database]\ndsn = "{self.postgres.dsn(self.database, LOGIN)}"\n', encoding="utf-8")
        return self.written

    @property
    def _config(self) -> Path:
        return self._folder / "dispatcher.toml"

    async def start(self, *, nice: int = 0) -> RunningReconcile:
        """Start the command on the ledger."""
        process = await asyncio.create_subprocess_exec(
            *("nice", "-n", str(nice)),
            *(sys.executable, "-m", "predictu_dispatch", "reconcile", OPERATOR, str(self.ledger)),
            *("--day", str(self.day), "--by", "bench", "--json", "--config", str(self._config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        _set_autogroup(process.pid, nice)
        return RunningReconcile(self.postgres, self.database, process)

    async def run(self) -> Ended:
        """Run the command to its end."""
        return await (await self.start()).ended()

    async def finished(self) -> list[asyncpg.Record]:
        """The finished runs, oldest first."""
        async with owner_of(self.postgres, self.database) as owner:
            return await owner.fetch(_FINISHED, OPERATOR)

    async def digest(self, run: asyncpg.Record) -> str:
        """A hash of everything that a run has stored."""
        async with owner_of(self.postgres, self.database) as owner:
            return str(await owner.fetchval(_DIGEST, OPERATOR, run["run_id"]))

    async def open_digest(self) -> str:
        """A hash of the open differences, whichever runs found them."""
        async with owner_of(self.postgres, self.database) as owner:
            return str(await owner.fetchval(_OPEN, OPERATOR))

    async def wrong(self, run: asyncpg.Record) -> list[str]:
        """What a run did not find, or found although it was not planted."""
        assert self.written is not None
        async with owner_of(self.postgres, self.database) as owner:
            totals = {
                (row["class"], row["currency"]): (row["items"], row["difference"])
                for row in await owner.fetch(_TOTALS, OPERATOR, run["run_id"])
            }
            items = {(row["class"], row["item"]) for row in await owner.fetch(_ITEMS, OPERATOR, run["run_id"])}
        found = [f"{name} not found: {item}" for name, item in sorted(self.written.planted - items)]
        found += [f"{name} not planted: {item}" for name, item in sorted(items - self.written.planted)]
        found += _different(self.written.expected, totals)
        if not run["is_complete"]:
            found.append("the run is not complete")
        return found


def _different(expected: Result, found: Result) -> list[str]:
    return [
        f"{' '.join(key)}: (items, difference) is {found.get(key)}, not {expected.get(key)}"
        for key in sorted(expected.keys() | found.keys())
        if found.get(key) != expected.get(key)
    ]


def _set_autogroup(pid: int, nice: int) -> None:
    """Set the niceness of the process's session, which the kernel compares between sessions."""
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")


def yesterday() -> date:
    """The last whole day in the operator's zone."""
    return AccountingDays(zone=ZoneInfo(_ZONE)).day_of(datetime.now(UTC)) - _DAY
