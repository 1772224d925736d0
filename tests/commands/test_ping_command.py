"""`ping` sends one PING through outbox, daemon and wire, and says how long each phase took, or what failed."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import until
from tests.support.environment import open_environment
from tests.support.harness import DISABLED, OPERATOR, WAIT_S, Harness, claim, delivered
from tests.support.postgres import Database

PHASES = ["waiting", "connecting", "first_byte", "rest", "total"]


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> CommandLine:
    return command_line_for(tmp_path, database.dispatcher)


async def as_json(desk: CommandLine, *arguments: str) -> tuple[int, Any]:
    """Exit code, and what the command told a program."""
    code, said, _ = await desk.run(*arguments, "--json")
    return code, json.loads(said)


def command(desk: CommandLine, *arguments: str) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "predictu_dispatch", *arguments, "--config", str(desk.config)]


async def test_a_ping_goes_the_whole_way_and_each_phase_is_timed(
    tmp_path: Path, database: Database, desk: CommandLine
) -> None:
    async with open_environment(tmp_path, database) as environment:
        await environment.fleet.start("host-1")
        code, said, complaint = await desk.run("ping", OPERATOR)
        assert (code, complaint) == (0, "")
        (ping,) = environment.operator.requests
        assert said.startswith(f"PING {ping.request_id} of operator {OPERATOR} is delivered\n")
        assert f"delivered, HTTP 200, to {environment.operator.url}" in said
        timed = re.findall(r"^  (\D+?) +([\d.]+) ms$", said, flags=re.MULTILINE)
        assert [name for name, _ in timed] == [
            "waiting in the outbox",
            "connecting, TLS included",
            "until the answer's first byte",
            "until its last byte",
            "total",
        ]
        *phases_ms, total_ms = (float(took) for _, took in timed)
        assert sum(phases_ms) == pytest.approx(total_ms, abs=0.5)

        environment.operator.answer = lambda _: web.Response(status=503)
        code, told = await as_json(desk, "ping", OPERATOR)
        assert (code, told["state"], told["verdict"], told["response_status"]) == (1, "exhausted", "retry", 503)
        assert list(told["phases_ms"]) == PHASES
        assert None not in told["phases_ms"].values()
        code, said, _ = await desk.run("ping", OPERATOR)
        assert code == 1
        assert "is exhausted" in said
        assert "no usable answer (the operator answered HTTP 503), HTTP 503" in said


async def test_an_operator_that_is_not_there_says_where_it_ended(
    tmp_path: Path, database: Database, desk: CommandLine
) -> None:
    async with open_environment(tmp_path, database) as environment:
        environment.fleet.write_operator("http://127.0.0.1:1/callback")
        await environment.fleet.start("host-1")
        code, said, _ = await desk.run("ping", OPERATOR)
        assert code == 1
        assert "the operator's host refused the connection" in said
        assert re.search(r"until the answer's first byte +-$", said, flags=re.MULTILINE)
        assert re.search(r"total +[\d.]+ ms$", said, flags=re.MULTILINE)


async def test_the_one_that_is_under_way_is_joined_and_its_outcome_is_heard(
    harness: Harness, desk: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test is the daemon here, so that it can be late; polling alone would take until the deadline, in 15 s."""
    monkeypatch.setattr("predictu_dispatch.commands.ping._POLL_S", 600.0)
    await harness.owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version)"
        " values ('host-1', gen_random_uuid(), 'h', 1, '1')"
    )
    under_way = await harness.daemon.fetchval("select predictu_dispatch.ping_operator($1)", OPERATOR)
    asking = asyncio.create_task(as_json(desk, "ping", OPERATOR))
    await until("the command listens", lambda: listens(harness))
    (lease,) = await claim(harness.daemon)
    await harness.settle(delivered(lease, response_status=200, connect_ms=1.0, first_byte_ms=3.0, total_ms=7.0))
    code, told = await asyncio.wait_for(asking, WAIT_S / 2)
    assert (code, told["request_id"]) == (0, str(under_way))
    phases = told["phases_ms"]
    assert (phases["connecting"], phases["first_byte"], phases["rest"]) == (1.0, 2.0, 4.0)
    assert phases["total"] == pytest.approx(phases["waiting"] + 7.0)


async def listens(harness: Harness) -> bool:
    return bool(
        await harness.owner.fetchval(
            "select exists (select from pg_stat_activity"
            "                where datname = current_database() and query ilike 'listen%_outcome%')"
        )
    )


async def test_without_a_daemon_it_says_since_when_and_gives_up_after_the_deadline(
    harness: Harness, desk: CommandLine
) -> None:
    """It is told at once, since a person may start one; and a deadline that passed is enough, nobody has to keep it."""
    asked = await asyncio.to_thread(
        subprocess.Popen, command(desk, "ping", OPERATOR), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert asked.stderr is not None
        said_at_once = await asyncio.wait_for(asyncio.to_thread(asked.stderr.readline), WAIT_S)
        assert said_at_once == "no daemon has announced itself in this database; waiting for one all the same\n"
    finally:
        asked.kill()
        await asyncio.to_thread(asked.communicate)

    await harness.owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, seen_at)"
        " values ('host-1', gen_random_uuid(), 'h', 1, '1', '2026-01-02 03:04:05+00')"
    )
    # As if the deadline and the margin after it had gone by.
    await harness.owner.execute("update predictu_dispatch.callback set expires_at = now() - interval '1 minute'")
    code, said, complaint = await desk.run("ping", OPERATOR)
    assert code == 1
    assert "no daemon has announced itself since 2026-01-02 03:04:05.000 UTC; waiting" in complaint
    assert "is ready\n  no daemon has announced itself since 2026-01-02 03:04:05.000 UTC\n" in said
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.callback") == 1


async def test_nobody_who_is_paused_disabled_or_unknown_is_pinged(harness: Harness, desk: CommandLine) -> None:
    assert (await desk.run("pause", OPERATOR, "--reason", "their upgrade", "--by", "alice"))[0] == 0
    for operator, words in (
        (OPERATOR, "by alice: their upgrade; nothing is sent to it\n    To end it: predictu-dispatch resume op_abc123"),
        (DISABLED, f"operator '{DISABLED}' is disabled"),
        ("op_new", "unknown operator 'op_new'"),
    ):
        code, said, complaint = await desk.run("ping", operator)
        assert (code, said) == (1, "")
        assert words in complaint
    assert (await desk.run("ping"))[0] == 2
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.callback") == 0
