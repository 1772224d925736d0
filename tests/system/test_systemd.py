"""The units in deploy/ under a real systemd: start, reload, watchdog, outage, stop, nightly."""

import asyncio
import dataclasses
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.core.settings import DaemonSettings
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.reference_operator.client import KEY
from tests.reference_operator.client import running as running_reference_operator
from tests.support.daemons import WAIT_S, Fleet, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import OPERATOR, open_harness
from tests.support.postgres import Database, cloned_database, create_template, server_of
from tests.support.sealing import ORIGIN, SEED, insert_attempts, open_sealer
from tests.support.systemd_machine import ROOT, Machine, running_machine, why_no_systemd

UNIT = ROOT / "deploy" / "predictu-dispatch@.service"
NAME = "predictu-dispatch@host-1.service"
EXPOSURE_MAX = 1.2
WATCHDOG_S = 2
_REASON = why_no_systemd()
needs_a_machine = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt install systemd")


@needs_analyze
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # The only allowed error: the program is not installed.
    unit.write_text(UNIT.read_text().replace("/opt/predictu-dispatch/bin/predictu-dispatch", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],  # noqa: S607 - found on PATH
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_the_unit_is_sandboxed() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(UNIT)],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    overall = re.search(r"Overall exposure level for \S+ ([0-9.]+)", done.stdout)
    assert overall is not None
    assert float(overall[1]) <= EXPOSURE_MAX


def test_the_units_stop_timeout_is_longer_than_a_drain() -> None:
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), flags=re.MULTILINE)
    assert int(stop_s) > DaemonSettings().drain_s + 15


@dataclass(frozen=True, kw_only=True)
class Service:
    """The daemon as a unit of a container; the operator and the producer are outside."""

    machine: Machine
    environment: Environment
    database: Database

    async def started(self) -> None:
        """Run `systemctl start`, which returns when the daemon is ready."""
        done = await self.machine.systemctl("start", NAME)
        assert done.returncode == 0, f"{done.stderr}{self.log_text}"

    @property
    def log_text(self) -> str:
        journal = self.machine.folder / "journal"
        return journal.read_text(encoding="utf-8") if journal.exists() else ""

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log_text.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    async def show(self, name: str) -> str:
        return await self.machine.show(NAME, name)

    def inside(self, path: str) -> Path:
        """A path of the container, seen from outside."""
        return Path(f"/proc/{self.machine.pid}/root{path}")


@asynccontextmanager
async def service(folder: Path, embedded: EmbeddedPostgres, *, drop_in: str = "") -> AsyncIterator[Service]:
    """The unit, not started yet."""
    server = server_of(embedded, tcp=True)
    template = await create_template(server)
    async with cloned_database(server, template) as database, open_environment(folder, database) as environment:
        place = folder / "machine"
        config, units = place / "config", place / "units"
        drop_ins = units / "predictu-dispatch@.service.d"
        for one in (config / "operators" / "keys", drop_ins):
            one.mkdir(parents=True)
        shutil.copy(UNIT, units)
        (drop_ins / "test.conf").write_text(
            f"[Service]\nStandardOutput=append:{place}/journal\nStandardError=append:{place}/journal\n"
            f"ExecStopPost=/bin/echo ended by ${{SERVICE_RESULT}}\n{drop_in}"
        )
        (config / "dsn").write_text(f"{database.dispatcher}\n")
        (config / "dispatcher.toml").write_text('[database]\ndsn = "file:dsn"\n[daemon]\npoll_interval_s = 0.05\n')
        (config / "host-1.env").write_text("PREDICTU_DISPATCH_LISTEN=127.0.0.1:0\n")
        shutil.copy(folder / "key.pem", config / "operators" / "keys" / f"{OPERATOR}.pem")
        fleet = Fleet(folder=config, dsn="", session=environment.fleet.session)
        fleet.write_operator(environment.operator.url, signing={"key_file": f"keys/{OPERATOR}.pem"})
        async with running_machine(place) as machine:
            yield Service(machine=machine, environment=environment, database=database)


@needs_a_machine
async def test_start_returns_after_the_first_claim_and_reload_applies_a_changed_file(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    async with service(tmp_path, embedded) as running:
        await running.started()
        started = running.lines("daemon.started")[0]
        assert started["instance"] == "host-1"
        async with running.environment.fleet.session.get(started["http"] + "/readyz") as response:
            assert response.status == 200
        assert (await running.show("StatusText"), await running.show("WatchdogUSec")) == ("ready", "30s")
        status = running.inside(f"/proc/{await running.show('MainPID')}/status").read_text()
        uid = re.search(r"^Uid:\s+(\d+)", status, flags=re.MULTILINE)
        assert uid is not None
        assert 61184 <= int(uid[1]) <= 65519, "systemd's range of dynamic users"
        # Key and DSN are credentials; only root can read the files.
        assert running.inside("/etc/predictu-dispatch/dsn").stat().st_mode & 0o777 == 0o600

        placed = await running.environment.harness.place("b-1")
        await running.environment.until_all_final()
        assert await running.environment.audit(placed) == [(1, "delivered", "answered", None, "host-1")]

        file = running.inside(f"/etc/predictu-dispatch/operators/{OPERATOR}.toml")
        file.write_text(file.read_text().replace("max_in_flight = 60", "max_in_flight = 59"))
        pid = await running.show("MainPID")
        reloaded = await running.machine.systemctl("reload", NAME)
        assert reloaded.returncode == 0, reloaded.stderr
        await until("the reload is logged", lambda: bool(running.lines("config.reloaded")))
        assert running.lines("config.reloaded")[0]["changed"] == 1
        assert (await running.show("MainPID"), await running.show("NRestarts")) == (pid, "0")


@needs_a_machine
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGUSR1], ids=["frozen process", "blocked loop"])
async def test_a_hung_daemon_is_killed_by_the_watchdog_and_the_next_one_delivers(
    tmp_path: Path, embedded: EmbeddedPostgres, how: signal.Signals
) -> None:
    async with service(tmp_path, embedded, drop_in=f"WatchdogSec={WATCHDOG_S}\nRestartSec=0\n") as running:
        await running.started()
        running.environment.operator.hold()
        placed = await running.environment.harness.place("b-1")
        await running.environment.until_in_flight(1)
        await running.machine.kill(NAME, how)

        async def was_restarted() -> bool:
            return await running.show("NRestarts") == "1" and await running.show("ActiveState") == "active"

        await until("systemd has restarted it", was_restarted)
        assert "ended by watchdog" in running.log_text
        # The journal has the stack trace.
        assert "Fatal Python error: Aborted" in running.log_text
        running.environment.operator.release()
        await running.environment.expire_leases("host-1")
        await running.environment.until_all_final()
        assert await running.environment.audit(placed) == [
            (1, "retry", "unanswered", "interrupted", "host-1"),
            (2, "delivered", "answered", None, "host-1"),
        ]
        assert running.environment.operator.faults == await running.environment.audit_faults() == []


@needs_a_machine
async def test_the_watchdog_does_not_kill_a_daemon_during_an_outage(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    """A new process could not do better, and unsettled answers would be lost."""
    async with service(tmp_path, embedded, drop_in=f"WatchdogSec={WATCHDOG_S}\n") as running:
        await running.started()
        pid = await running.show("MainPID")
        running.environment.operator.hold()
        placed = await running.environment.harness.place("b-1")
        await running.environment.until_in_flight(1)
        await asyncio.to_thread(embedded.kill)

        async def says_so() -> bool:
            return await running.show("StatusText") == "the database cannot be reached"

        await until("systemctl status reports the outage", says_so)
        running.environment.operator.release()
        back_at_s = time.monotonic() + 2 * WATCHDOG_S
        await until("twice the watchdog's interval has passed", lambda: time.monotonic() > back_at_s)
        await asyncio.to_thread(embedded.restart)

        async def says_ready() -> bool:
            return await running.show("StatusText") == "ready"

        await until("the daemon is ready again", says_ready)
        assert (await running.show("MainPID"), await running.show("NRestarts")) == (pid, "0")
        async with open_harness(running.database) as harness:
            restored = dataclasses.replace(running.environment, harness=harness)
            await restored.until_all_final()
            assert await restored.audit(placed) == [(1, "delivered", "answered", None, "host-1")]


@needs_a_machine
async def test_a_stop_waits_for_attempts_in_flight_for_up_to_drain_s(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    """Also if drain_s is longer than TimeoutStopSec."""
    patience_s = 0.5
    async with service(tmp_path, embedded, drop_in=f"TimeoutStopSec={patience_s}\n") as running:
        await running.started()
        running.environment.operator.hold()
        placed = await running.environment.harness.place("b-1")
        await running.environment.until_in_flight(1)
        stopping = asyncio.create_task(running.machine.systemctl("stop", NAME))
        await until("the daemon drains", lambda: bool(running.lines("drain.started")))
        late_at_s = time.monotonic() + 2 * patience_s
        await until("TimeoutStopSec has passed", lambda: time.monotonic() > late_at_s)
        running.environment.operator.release()
        stopped = await asyncio.wait_for(stopping, WAIT_S)
        assert stopped.returncode == 0, stopped.stderr
        assert (await running.show("Result"), await running.show("ExecMainStatus")) == ("success", "0")
        assert running.lines("daemon.stopped")
        assert await running.environment.audit(placed) == [(1, "delivered", "answered", None, "host-1")]


RECONCILE = f"predictu-dispatch-reconcile@{OPERATOR}.service"
AUDIT, RETENTION = "predictu-dispatch-audit.service", "predictu-dispatch-retention.service"


def write_nightly_units(running: Service, *, ledger_url: str) -> dict[str, Path]:
    """Installs the units as deploy/README.md says; returns the file of each one's output."""
    place, folder = running.inside("/etc/predictu-dispatch"), running.machine.folder
    logins = {RECONCILE: running.database.reconciler, AUDIT: running.database.auditor}
    logins[RETENTION] = running.database.retention
    for unit, dsn in logins.items():
        file = re.sub(r"@.*\.", "@.", unit)
        (drop_ins := running.inside(f"/etc/systemd/system/{file}.d")).mkdir()
        shutil.copy(UNIT.parent / file, drop_ins.parent)
        (drop_ins / "test.conf").write_text(
            # Other tests that run now would starve it.
            f"[Service]\nCPUWeight=100\nNice=0\nStandardOutput=append:{folder}/{unit}\nStandardError=append:{folder}/{unit}\n"
        )
        environment = place / f"{re.split('[-@.]', unit)[2]}.env"
        environment.touch(0o600)
        environment.write_text(f"PREDICTU_DISPATCH_DSN={dsn}\n")
    (place / "operators" / "keys" / f"{OPERATOR}.pem").write_bytes(KEY.as_pem(private=True))
    (place / "audit.vkeys").write_text(f"{VerifierKey.of_seed(f'{ORIGIN}/{OPERATOR}', SEED)}\n")
    with (place / "operators" / f"{OPERATOR}.toml").open("a") as toml:
        toml.write(f'[reconcile]\nurl = "{ledger_url}"\ntime_zone = "Europe/Malta"\n')
    return {unit: folder / unit for unit in logins}


@needs_a_machine
async def test_the_nightly_units_run_in_their_sandbox_and_a_difference_or_a_missing_key_fails_one(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    async with service(tmp_path, embedded) as running, running_reference_operator(tmp_path) as operator:
        output = write_nightly_units(running, ledger_url=f"{operator.url}/ledger")
        with closing(sqlite3.connect(operator.database)) as sql, sql:
            yesterday = datetime.now(UTC) - timedelta(days=1)
            sql.execute(
                "insert into transactions values ('t-1', ?, 'BET_WIN', 'b-1', 'player-1', 'EUR', 500, ?)",
                (str(uuid4()), f"{yesterday:%Y-%m-%d}T12:00:00.000Z"),
            )
        await insert_attempts(running.environment.harness.owner, 3)
        async with open_sealer(running.database.dispatcher) as sealer:
            await sealer.seal_all()
        assert (await running.machine.systemctl("daemon-reload")).returncode == 0
        await running.machine.systemctl("start", *output)

        async def result(unit: str) -> tuple[str, ...]:
            names = ("ActiveState", "Result", "ExecMainStatus", "NRestarts")
            return tuple([await running.machine.show(unit, name) for name in names])

        text = {unit: file.read_text(encoding="utf-8") for unit, file in output.items()}
        assert await result(AUDIT) == ("inactive", "success", "0", "0"), text[AUDIT]
        assert f"{OPERATOR}: clean; 4 entries, 1 checkpoint" in text[AUDIT]
        assert await result(RETENTION) == ("inactive", "success", "0", "0"), text[RETENTION]
        assert "Removed bets: 0" in text[RETENTION]
        assert await result(RECONCILE) == ("failed", "exit-code", "1", "0"), text[RECONCILE]
        assert re.search(r"(?m)^missing here +1 .* over$", text[RECONCILE]), text[RECONCILE]
        [run] = await running.environment.harness.owner.fetch("select * from predictu_dispatch.reconciliation_run")
        assert (run["done_by"], run["time_zone"], run["is_complete"]) == ("timer", "Europe/Malta", True)

        running.inside(f"/etc/predictu-dispatch/operators/keys/{OPERATOR}.pem").unlink()
        await running.machine.systemctl("restart", RECONCILE)
        assert await result(RECONCILE) == ("failed", "exit-code", "243", "0"), "not a retry every 15 minutes"
