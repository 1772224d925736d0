"""The command `reconcile` as a process that is watched: its phase, memory, CPU and end."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.backlog import Connection, owner_of
from tests.bench.cpu_clock import cpu_s
from tests.bench.ledger_day import OPERATOR
from tests.support.daemons import until

LOGIN: Final = "bench_reconciler"
_POLL_S: Final = 0.03
_END_S: Final = 60.0
"""Time for a command whose database session was ended."""
_SESSION: Final = """
    select pid, extract(epoch from query_start)::float8 as since_s,
           case when query ~ 'finish_reconciliation' then case state when 'active' then 'classifying' else 'ending' end
                when query ~ 'repeated_lines' then 'comparing' when query ~ 'reconciliation_line' then 'reading'
                else 'beginning' end as phase
      from pg_stat_activity where usename = $1 and datname = current_database() order by backend_start desc limit 1
"""
_TEMPORARY: Final = "select temp_files, temp_bytes from pg_stat_database where datname = current_database()"
_NEWEST: Final = """
    select extract(epoch from started_at)::float8 as started_s, extract(epoch from finished_at)::float8 as finished_s
      from predictu_dispatch.reconciliation_run where operator_id = $1 and finished_at is not null
     order by finished_at desc limit 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A process that has ended. The times are of the run, not of the process's start."""

    code: int
    output: str
    took_s: float
    memory_mb: float
    # CPU seconds.
    command_s: float
    session_s: float
    reading_s: float
    classifying_s: float
    # For each phase, when it was first and last seen, in seconds from the process's start.
    seen_s: Mapping[str, tuple[float, float]]
    temporary_mb: float

    @property
    def report(self) -> Any:
        return json.loads(self.output)


class RunningReconcile:
    """A running command, and what its session does."""

    def __init__(self, postgres: EmbeddedPostgres, database: str, process: asyncio.subprocess.Process) -> None:
        self._postgres, self._database = postgres, database
        self.process = process
        self._began_s = time.monotonic()
        self._memory_mb = self._command_s = self._session_s = 0.0
        self._seen_s: dict[str, tuple[float, float]] = {}
        self._classifying_since_s = 0.0
        self._output = asyncio.create_task(self._read())

    async def _read(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.read()).decode()

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    async def session(self, owner: Connection) -> asyncpg.Record | None:
        """The database session of the command, and its phase."""
        row = await owner.fetchrow(_SESSION, LOGIN)
        if row is not None:
            at_s = time.monotonic() - self._began_s
            first_s, _ = self._seen_s.get(row["phase"], (at_s, at_s))
            self._seen_s[row["phase"]] = first_s, at_s
            if row["phase"] == "classifying":
                self._classifying_since_s = row["since_s"]
            self._session_s = cpu_s(row["pid"]) or self._session_s
        self._command_s = cpu_s(self.process.pid) or self._command_s
        self._memory_mb = max(self._memory_mb, _peak_mb(self.process.pid))
        return row

    async def reached(self, phase: str, owner: Connection) -> bool:
        """Wait for a phase; false if the command ends before."""
        while self.is_alive:
            row = await self.session(owner)
            if row is not None and row["phase"] == phase:
                return True
            await asyncio.sleep(_POLL_S)
        return False

    async def ended(self) -> Ended:
        """Wait for the end, and watch until then."""
        async with owner_of(self._postgres, self._database) as owner:
            temporary = await owner.fetchrow(_TEMPORARY)
            while self.is_alive:
                await self.session(owner)
                await asyncio.sleep(_POLL_S)
            took_s = time.monotonic() - self._began_s
            # The statistics of a session are written when it ends.
            await owner.execute("select pg_stat_clear_snapshot()")
            afterwards = await owner.fetchrow(_TEMPORARY)
            run = await owner.fetchrow(_NEWEST, OPERATOR)
        assert temporary is not None
        assert afterwards is not None
        times: defaultdict[str, float] = defaultdict(float)
        if run is not None and self._classifying_since_s > run["started_s"]:
            times["reading"] = self._classifying_since_s - run["started_s"]
            times["classifying"] = run["finished_s"] - self._classifying_since_s
        return Ended(
            code=self.process.returncode or 0,
            output=await self._output,
            took_s=took_s,
            memory_mb=self._memory_mb,
            command_s=self._command_s,
            session_s=self._session_s,
            reading_s=times["reading"],
            classifying_s=times["classifying"],
            seen_s=self._seen_s,
            temporary_mb=(afterwards["temp_bytes"] - temporary["temp_bytes"]) / 1e6,
        )

    async def watched_for(self, seconds: float, owner: Connection) -> None:
        """Watch for this time, or until the end."""
        until_s = time.monotonic() + seconds
        while self.is_alive and (left_s := until_s - time.monotonic()) > 0:
            await self.session(owner)
            await asyncio.sleep(min(_POLL_S, left_s))

    async def session_gone(self, owner: Connection) -> None:
        """Wait until the database has ended the session of a killed command."""

        async def is_gone() -> bool:
            return await owner.fetchrow(_SESSION, LOGIN) is None

        await until("the session of the command has ended", is_gone, within_s=_END_S)

    async def killed(self) -> None:
        """Kill the process; returns when it has ended."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._output

    async def ended_by_itself(self) -> int:
        """The exit code of a command that lost its session. Raises TimeoutError if it goes on."""
        async with asyncio.timeout(_END_S):
            await self.process.wait()
            await self._output
        return self.process.returncode or 0


def _peak_mb(pid: int) -> float:
    """The peak of the resident memory of a process so far; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return max((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), default=0.0)
