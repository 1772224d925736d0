"""Month changes, wrong clocks, long and short uptimes, and constant memory.

`TEST_SIZE=full` delivers a million callbacks instead of thousands.
"""

import faulthandler
import os
import shutil
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.bulk import place_many, until_slots
from tests.support.circuits import print_figures
from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import Harness, delivered
from tests.support.operators import Request
from tests.support.resources import MinimalOperator, minimal_operator, resource_usage

IS_FULL = os.environ.get("TEST_SIZE") == "full"
CALLBACKS = 1_000_000 if IS_FULL else 4_000
FIRST = max(1_000, CALLBACKS // 10)
SLOTS, POOL = 20, 4
_ENQUEUED_AHEAD, _AT_ONCE = 2_000, 500


MONTH_ENDS = [
    # Time zones in which the session's month differs from the UTC month.
    ("2027-01-31 23:59:59.999999+00", "America/New_York", "ISO, MDY"),
    ("2027-02-01 00:00:00+00", "America/New_York", "SQL, DMY"),
    ("2026-12-31 23:30:00+00", "Pacific/Kiritimati", "German, DMY"),
    ("2028-01-01 00:30:00+00", "America/Los_Angeles", "ISO, DMY"),
    ("2028-02-29 23:59:59+00", "Asia/Kathmandu", "Postgres, MDY"),
    # Time zones that change the clocks on this day.
    ("2027-10-31 00:59:59+00", "Europe/Berlin", "ISO, MDY"),
    ("2027-10-31 23:30:00+00", "Europe/Berlin", "SQL, MDY"),
    ("2027-03-28 01:00:00+00", "Europe/Berlin", "ISO, MDY"),
    ("2029-03-31 12:00:00+00", "Africa/Casablanca", "ISO, MDY"),
]


async def test_audit_months_begin_at_midnight_utc_in_every_session_time_zone(harness: Harness) -> None:
    """Partitions created at these times in many time zones have no gap and no overlap."""
    definition = await harness.owner.fetchval(
        "select pg_get_functiondef('predictu_dispatch.prepare_partitions(integer)'::regprocedure)"
    )
    assert definition.count("now()") == 1
    for at, zone, style in MONTH_ENDS:
        # The clock is moved by replacing now().
        await harness.owner.execute(definition.replace("now()", f"timestamptz '{at}'"))
        for session in (harness.owner, harness.daemon):
            await session.execute(
                "select set_config('timezone', $1, false), set_config('datestyle', $2, false)", zone, style
            )
        await harness.daemon.execute("select predictu_dispatch.prepare_partitions(2)")
        began = month_of(datetime.fromisoformat(at))
        months = [began, month_of(began + timedelta(days=32)), month_of(began + timedelta(days=63))]
        for month in months:
            for started_at in (month, month_of(month + timedelta(days=32)) - timedelta(microseconds=1)):
                assert await partition_of(harness, started_at) == f"predictu_dispatch.attempt_{month:%Y_%m}"
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt_default") == 0
    # A report of last month's attempt may be repeated after midnight.
    assert await partition_of(harness, datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC)) == (
        "predictu_dispatch.attempt_2027_01"
    )


def month_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


async def partition_of(harness: Harness, leased_at: datetime) -> str:
    """The partition that receives a report of an attempt from that time."""
    report = delivered(await harness.lease(await harness.place(f"b-{uuid.uuid4()}"), leased_at=leased_at))
    await harness.settle(report)
    table: str = await harness.owner.fetchval(
        "select tableoid::regclass::text from predictu_dispatch.attempt_record where report_id = $1",
        report["report_id"],
    )
    return table


def why_no_other_uptime() -> str | None:
    """Why this machine cannot make time namespaces; None if it can."""
    if os.geteuid() != 0:
        return "a time namespace needs root"
    if shutil.which("unshare") is None:
        return "a time namespace needs `unshare`"
    tried = subprocess.run(
        ["unshare", "--time", "--monotonic", "1", "--fork", "true"],  # noqa: S607 - found on PATH
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return f"cannot create a time namespace: {tried.stderr.strip()}" if tried.returncode else None


def python_of_a_host_that_is_up_for(uptime_s: float, folder: Path) -> str:
    """A Python with this monotonic clock, as an executable script."""
    monotonic_s = int(uptime_s - time.clock_gettime(time.CLOCK_MONOTONIC))
    boottime_s = int(uptime_s - time.clock_gettime(time.CLOCK_BOOTTIME))
    script = folder / f"python-{uptime_s:.0f}"
    script.write_text(
        "#!/bin/sh\n"
        f"exec unshare --time --monotonic {monotonic_s} --boottime {boottime_s} --kill-child"
        f' -- {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


async def test_hosts_with_an_uptime_of_ten_years_and_ten_seconds_share_their_work(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Durations are differences and leases use the database's clock, so uptime does not matter."""
    if reason := why_no_other_uptime():
        pytest.skip(reason)
    slots = {"max_in_flight": 12}
    environment.fleet.write_operator(environment.operator.url, interactive=slots, settlement=slots)
    daemons = []
    for name, uptime_s in (("host-old", 10 * 365.25 * 86_400), ("host-new", 10.0)):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", python_of_a_host_that_is_up_for(uptime_s, tmp_path))
            daemons.append(environment.fleet.spawn(name))
    for daemon in daemons:
        await daemon.ready()
    await until_slots(environment, host_new=6, host_old=6)
    # Both daemons must take part; each first attempt fails, to include delays.
    refused: set[str] = set()

    def answer(request: Request) -> web.Response | None:
        is_first = request.request_id not in refused
        refused.add(request.request_id)
        return web.Response(status=500) if is_first else None

    environment.operator.answer = answer
    environment.operator.answers_in_s = 0.01
    for n in range(60):
        await environment.harness.place(f"b-{n}")
        await environment.harness.end("BET_WIN", f"b-{n}")
    await environment.until_all_final()
    assert await environment.bets() == {"closed": 60}
    instances = await environment.harness.owner.fetch(
        "select distinct instance from predictu_dispatch.attempt order by 1"
    )
    assert [instance["instance"] for instance in instances] == ["host-new", "host-old"]
    latencies = await environment.harness.owner.fetchrow(
        "select min(total_ms) as least, max(total_ms) as most, max(finished_at - started_at) as longest"
        "  from predictu_dispatch.attempt"
    )
    assert latencies is not None
    assert 0 < latencies["least"] <= latencies["most"] < 30_000
    assert latencies["longest"] < timedelta(seconds=30)
    assert len(environment.operator.requests) == 2 * 120
    assert environment.operator.faults == await environment.audit_faults() == []


async def deliver(environment: Environment, answerer: MinimalOperator, until_count: int) -> None:
    """Enqueue placements until `count` are delivered, never far ahead of the daemon."""
    enqueued = answerer.answered
    while enqueued < until_count:
        await place_many(environment, min(_AT_ONCE, until_count - enqueued))
        enqueued += min(_AT_ONCE, until_count - enqueued)
        await until(
            "the daemon keeps up",
            lambda so_far=enqueued: answerer.answered >= so_far - _ENQUEUED_AHEAD,  # type: ignore[misc]
        )

    async def nothing_is_left() -> bool:
        left = await environment.harness.owner.fetchval(
            "select exists (select from predictu_dispatch.callback where state = 'ready')"
            "    or exists (select from predictu_dispatch.callback where state = 'in_flight')"
        )
        return not left

    await until("everything is delivered", nothing_is_left)


async def test_memory_threads_descriptors_and_connections_do_not_grow(environment: Environment) -> None:
    """Also checks that the log has one line per attempt and few others."""
    if IS_FULL:
        # The time limit is for tests that hang; TEST_SIZE=full runs for minutes.
        faulthandler.cancel_dump_traceback_later()
    async with minimal_operator() as answerer:
        slots = {"max_in_flight": SLOTS}
        environment.fleet.write_operator(answerer.url, interactive=slots, settlement=slots)
        daemon = await environment.fleet.start("host-1", database={"pool_size": POOL})
        await deliver(environment, answerer, FIRST)
        first = await resource_usage(daemon, environment.harness.owner, answerer)
        began_at_s = time.monotonic()
        await deliver(environment, answerer, CALLBACKS)
        took_s = time.monotonic() - began_at_s
        whole = await resource_usage(daemon, environment.harness.owner, answerer)
    print_figures(f"{(whole.delivered - first.delivered) / took_s:.0f} a second\n{first}\n{whole}")
    assert whole.delivered == CALLBACKS, "each was sent once"
    assert await environment.states() == {"delivered": CALLBACKS}
    # Measured: 0.8 MB over 18,000 callbacks (the allocator); an attempt takes 4 kB.
    assert whole.resident_kb - first.resident_kb < 4 * 1024
    assert whole.threads <= first.threads
    # More pool connections may have been opened.
    assert whole.descriptors <= first.descriptors + 2
    assert whole.connections <= POOL + 2
    # A figure that was not read yet is absent.
    assert whole.series <= first.series + 3
    assert whole.log_lines <= whole.delivered + 20
    # For each line that is there: the log's thread writes the last ones up to 25 ms late.
    per_line = [(held.log_bytes / held.log_lines) for held in (first, whole)]
    assert per_line[1] < 1.05 * per_line[0]
