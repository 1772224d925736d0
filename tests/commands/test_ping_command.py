"""`ping` sends one PING and shows the timing of each phase, or what failed."""

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import WAIT_S, until
from tests.support.environment import OTHER, another_operator, open_environment
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
        # The cause comes first.
        assert stdout.splitlines()[1].startswith("  the operator answered HTTP 503")


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
    monkeypatch.setattr("predictu_dispatch.commands.ping.pings._POLL_S", 600.0)
    await harness.owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, schema_version)"
        " values ('host-1', gen_random_uuid(), 'h', 1, '1', 1)"
    )
    await harness.owner.execute(
        "insert into predictu_dispatch.share"
        " (operator_id, instance, interactive_max, settlement_max, requests_per_s_max)"
        " values ($1, 'host-1', 1, 1, 0)",
        OPERATOR,
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


async def test_of_an_operator_that_no_running_daemon_serves_it_says_so_at_once(
    harness: Harness, cli: CommandLine
) -> None:
    """And it enqueues nothing that a daemon would send much later."""
    code, stdout, stderr = await cli.run("ping", OPERATOR)
    assert (code, stdout) == (1, "")
    assert stderr == (
        "no daemon is running (none has sent a heartbeat to this database); nothing was sent;"
        " to start one: systemctl start predictu-dispatch@1, or predictu-dispatch run\n"
    )
    await harness.owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, schema_version, seen_at)"
        " values ('host-1', gen_random_uuid(), 'h', 1, '1', 1, '2026-01-02 03:04:05+00')"
    )
    assert "(the last heartbeat was at 2026-01-02T03:04:05.000Z)" in (await cli.run("ping", OPERATOR))[2]
    await harness.owner.execute("update predictu_dispatch.daemon set seen_at = now()")
    code, stdout, stderr = await cli.run("ping", OPERATOR)
    assert (code, stdout) == (1, "")
    assert stderr.startswith(
        f"no running daemon serves {OPERATOR}; those that run do not have its file (host-1); nothing was sent; put"
    )
    code, stdout, _ = await cli.run("ping", "--all")
    assert code == 1
    assert f"{OPERATOR}  not sent: no running daemon serves it\n" in stdout
    assert "0 PINGs, 0 failed, 2 not sent\n" in stdout
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.callback") == 0


async def test_all_operators_are_pinged_at_once_with_one_line_for_each(
    tmp_path: Path, database: Database, cli: CommandLine
) -> None:
    async with open_environment(tmp_path, database) as environment, another_operator(environment) as other:
        await environment.fleet.start("host-1")
        environment.operator.hold()
        other.hold()
        command = asyncio.create_task(cli.run("ping", "--all"))
        # Neither is answered before both have been asked.
        await until("both are asked", lambda: bool(environment.operator.requests and other.requests))
        environment.operator.release()
        other.release()
        code, stdout, stderr = await command
        assert (code, stderr) == (0, "")
        lines = stdout.splitlines()
        assert lines[0].split() == ["operator", "PING", "HTTP", "time", "cause"]
        assert [line.split()[:3] for line in lines[1:3]] == [
            [OPERATOR, "delivered", "200"],
            [OTHER, "delivered", "200"],
        ]
        assert f"{DISABLED}  not sent: disabled" in lines
        assert lines[-1] == "2 PINGs, 0 failed, 1 not sent"

        other.answer = lambda _: web.Response(status=401, text="who are you?\nline 2")
        code, stdout, _ = await cli.run("ping", "--all")
        assert code == 1
        [failed] = [line for line in stdout.splitlines() if line.startswith(OTHER)]
        assert re.fullmatch(rf"{OTHER} +failed +401 +\d+ ms  the operator refuses .*", failed)
        assert stdout.endswith(f"2 PINGs, 1 failed, 1 not sent\nFor the whole cause: predictu-dispatch ping {OTHER}\n")
        assert max(map(len, stdout.splitlines())) <= 80
        code, output = await cli.run_json("ping", "--all")
        assert code == 1
        assert [(one["operator_id"], one["state"], one["response_status"]) for one in output["pings"]] == [
            (OPERATOR, "delivered", 200),
            (OTHER, "exhausted", 401),
        ]
        assert output["pings"][1]["answer"] == "who are you?"
        assert output["pings"][1]["help"] == (
            f"compare our key with the one at the operator: predictu-dispatch keys public {OTHER}"
        )
        assert output["not_sent"] == [{"operator_id": DISABLED, "reason": "disabled", "is_intended": True}]

        assert (await cli.run("pause", OTHER, "--reason", "their upgrade", "--by", "alice"))[0] == 0
        code, stdout, _ = await cli.run("ping", "--all")
        assert code == 0
        assert re.search(rf"{OTHER}  not sent: paused since \S+Z by alice: their\s+upgrade", stdout)


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
    assert (await cli.run("ping", OPERATOR, "--all"))[0] == 2
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.callback") == 0
