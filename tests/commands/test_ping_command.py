"""`ping` sends one PING and shows the timing of each phase, or what failed."""

import asyncio
import re
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import WAIT_S, until
from tests.support.environment import open_environment
from tests.support.harness import DISABLED, OPERATOR, Harness, claim, delivered
from tests.support.postgres import Database

pytestmark = pytest.mark.usefixtures("long_heartbeat_timeout")
PHASES = ["waiting", "connecting", "first_byte", "rest", "total"]


@pytest.fixture
def cli(tmp_path: Path, database: Database) -> CommandLine:
    return command_line_for(tmp_path, database.operations)


async def test_a_ping_passes_outbox_daemon_and_wire_with_the_timing_of_each_phase(
    tmp_path: Path, database: Database, cli: CommandLine
) -> None:
    async with open_environment(tmp_path, database) as environment:
        await environment.fleet.start("host-1")
        code, stdout, stderr = await cli.run("ping", OPERATOR)
        assert (code, stderr) == (0, "")
        (ping,) = environment.operator.requests
        assert stdout.startswith(f"PING {ping.request_id} of operator {OPERATOR} is delivered\n")
        assert f"delivered, HTTP 200, to {environment.operator.url}" in " ".join(stdout.split())
        timed = re.findall(r"^  (\D+?) +([\d.]+) ms$", stdout, flags=re.MULTILINE)
        assert [name for name, _ in timed] == [
            "waiting in the outbox",
            "connecting, TLS included",
            "until the first byte",
            "until the last byte",
            "total",
        ]
        *phases_ms, total_ms = (float(took) for _, took in timed)
        assert sum(phases_ms) == pytest.approx(total_ms, abs=0.5)

        environment.operator.answer = lambda _: web.Response(status=503)
        code, output = await cli.run_json("ping", OPERATOR)
        assert (code, output["state"], output["verdict"], output["response_status"]) == (1, "exhausted", "retry", 503)
        assert list(output["phases_ms"]) == PHASES
        assert None not in output["phases_ms"].values()
        code, stdout, _ = await cli.run("ping", OPERATOR)
        assert code == 1
        assert "is exhausted" in stdout
        assert "no usable answer (the operator answered HTTP 503), HTTP 503" in " ".join(stdout.split())


async def test_an_unreachable_operator_shows_the_phase_that_failed(
    tmp_path: Path, database: Database, cli: CommandLine
) -> None:
    async with open_environment(tmp_path, database) as environment:
        environment.fleet.write_operator("http://127.0.0.1:1/callback")
        await environment.fleet.start("host-1")
        code, stdout, _ = await cli.run("ping", OPERATOR)
        assert code == 1
        assert "the operator's host refused the connection" in stdout
        assert re.search(r"until the first byte +-$", stdout, flags=re.MULTILINE)
        assert re.search(r"total +[\d.]+ ms$", stdout, flags=re.MULTILINE)


async def test_a_ping_in_flight_is_joined_and_its_notification_ends_the_wait(
    harness: Harness, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test plays the daemon. Polling alone would take until the deadline, in two minutes."""
    monkeypatch.setattr("predictu_dispatch.commands.ping._POLL_S", 600.0)
    await harness.owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, schema_version)"
        " values ('host-1', gen_random_uuid(), 'h', 1, '1', 1)"
    )
    in_flight = await harness.person.fetchval("select predictu_dispatch.ping_operator($1)", OPERATOR)
    command_task = asyncio.create_task(cli.run_json("ping", OPERATOR))
    await until("the command listens", lambda: listens(harness))
    (lease,) = await claim(harness.daemon)
    await harness.settle(delivered(lease, response_status=200, connect_ms=1.0, first_byte_ms=3.0, total_ms=7.0))
    code, output = await asyncio.wait_for(command_task, WAIT_S)
    assert (code, output["request_id"]) == (0, str(in_flight))
    phases = output["phases_ms"]
    assert (phases["connecting"], phases["first_byte"], phases["rest"]) == (1.0, 2.0, 4.0)
    assert phases["total"] == pytest.approx(phases["waiting"] + 7.0)


async def listens(harness: Harness) -> bool:
    return bool(
        await harness.owner.fetchval(
            "select exists (select from pg_stat_activity"
            "                where datname = current_database() and query ilike 'listen%_outcome%')"
        )
    )


async def test_without_a_daemon_it_says_so_at_once_and_ends_after_the_deadline(
    harness: Harness, cli: CommandLine
) -> None:
    """At once, because a person may start a daemon meanwhile."""
    process = await asyncio.to_thread(
        subprocess.Popen, cli.process("ping", OPERATOR), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        first_line = await asyncio.wait_for(asyncio.to_thread(process.stderr.readline), WAIT_S)
        assert first_line == "no daemon sends heartbeats; none yet; waiting for one\n"
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)

    await harness.owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, schema_version, seen_at)"
        " values ('host-1', gen_random_uuid(), 'h', 1, '1', 1, '2026-01-02 03:04:05+00')"
    )
    # As if the deadline and the margin after it were over.
    await harness.owner.execute("update predictu_dispatch.callback set expires_at = now() - interval '1 minute'")
    code, stdout, stderr = await cli.run("ping", OPERATOR)
    assert code == 1
    assert "no daemon sends heartbeats; the last was at 2026-01-02T03:04:05.000Z; waiting" in stderr
    assert "is ready\n  no daemon sends heartbeats; the last was at 2026-01-02T03:04:05.000Z\n" in stdout
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.callback") == 1


async def test_a_paused_disabled_or_unknown_operator_is_not_pinged(harness: Harness, cli: CommandLine) -> None:
    assert (await cli.run("pause", OPERATOR, "--reason", "their upgrade", "--by", "alice"))[0] == 0
    for operator, phrase in (
        (
            OPERATOR,
            "by alice: their upgrade; nothing is sent to it\n    To end the pause: predictu-dispatch resume op_abc123",
        ),
        (DISABLED, f"operator '{DISABLED}' is disabled"),
        ("op_new", "unknown operator 'op_new'"),
    ):
        code, stdout, stderr = await cli.run("ping", operator)
        assert (code, stdout) == (1, "")
        assert phrase in stderr
    assert (await cli.run("ping"))[0] == 2
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.callback") == 0
