"""`status` shows every operator and lane, the daemons, and what a person must look at, on an ordinary terminal."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from predictu_dispatch.commands.status_table import rounded
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import OPERATOR, Connection, Harness, claim, delivered, rejected
from tests.support.postgres import Database

LONG = "op_twenty_characters"
"""As long as an operator's id may be for a table of 80 columns."""


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> CommandLine:
    return command_line_for(tmp_path, database.support)


@pytest.fixture(autouse=True)
async def _daemons_stay_where_they_are(harness: Harness) -> None:
    """A daemon counts as running for a minute, so that a slow machine changes nothing."""
    await harness.owner.execute(
        "create or replace function predictu_dispatch.heartbeat_timeout() returns interval language sql immutable"
        " parallel safe as $$ select interval '1 minute' $$"
    )


async def run_daemon(
    owner: Connection, instance: str, operator_id: str, *, slots: int, seen_s_ago: float = 0.2
) -> None:
    """A daemon has been seen, and has a share of the operator's slots."""
    await owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, seen_at)"
        " values ($1, gen_random_uuid(), $1 || '.example', 4711, '0.1.0', now() - $2::interval)",
        *(instance, timedelta(seconds=seen_s_ago)),
    )
    await owner.execute(
        "insert into predictu_dispatch.share values ($1, $2, $3, $3, null, $3, $3, 0)", operator_id, instance, slots
    )


async def say(owner: Connection, operator_id: str, changes: str) -> None:
    await owner.execute(
        f"update predictu_dispatch.operator set {changes} where operator_id = $1",  # noqa: S608
        operator_id,
    )


def row(said: str, operator_id: str, lane: str) -> list[str]:
    """The words of one line of the table, after operator and lane."""
    (line,) = [line.split() for line in said.splitlines() if line.split()[:2] == [operator_id, lane]]
    return line[2:]


async def test_a_row_for_each_operator_and_lane_has_its_backlog_its_slots_and_how_the_operator_is(
    harness: Harness, desk: CommandLine
) -> None:
    await harness.attempt(await harness.place("b1"), delivered)
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=32)
    await run_daemon(harness.owner, "host-2", OPERATOR, slots=32)
    await say(harness.owner, OPERATOR, "health = 'healthy'")
    await harness.end("BET_WIN", "b1")
    await harness.place("b2")
    await harness.place("b3")
    await claim(harness.daemon, slots=1, lanes=["interactive"])
    await harness.end("BET_WIN", "b3")
    await harness.owner.execute(
        "update predictu_dispatch.callback set due_at = now() + interval '1 h' where lane = 'settlement'"
    )
    code, said, _ = await desk.run("status")
    assert code == 0
    assert row(said, OPERATOR, "interactive")[:3] == ["0", "1", "1/32"]
    assert row(said, OPERATOR, "interactive")[-2:] == ["0", "healthy"]
    # What is due later is not due.
    assert row(said, OPERATOR, "settlement") == ["1", "1", "0/32", "-", "0", "healthy"]
    assert row(said, "op_off", "settlement") == ["0", "0", "0", "-", "0", "disabled"]


async def test_an_operator_that_is_left_alone_says_so_in_the_table_and_below_it(
    harness: Harness, desk: CommandLine
) -> None:
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=32)
    await say(
        harness.owner,
        OPERATOR,
        "health = 'down', circuit = 'open', circuit_since = now() - interval '5 min', consecutive_failures = 1400,"
        " ping_at = now() + interval '4 min', paused_at = now() - interval '3 h', paused_by = 'ann@web-1',"
        " pause_reason = 'wallet upgrade', settlement_backoff_until = now() + interval '10 min'",
    )
    code, said, _ = await desk.run("status")
    assert code == 0
    assert row(said, OPERATOR, "interactive")[-4:] == ["0", "paused,", "open", "5min"]
    below = " ".join(said.split())
    for words in (
        f"{OPERATOR}: paused for 3 h by ann@web-1: wallet upgrade; circuit open for 5 min, 1,400 failures in a row;",
        "not pinged meanwhile; health down; asked to be left alone (settlement) for 10 min more",
        "op_off: no running daemon has its file",
    ):
        assert words in below
    said = (await desk.run("status", "--json"))[1]
    interactive, settlement = [lane for lane in json.loads(said)["lanes"] if lane["operator_id"] == OPERATOR]
    assert (interactive["circuit"], interactive["health"], interactive["paused_by"]) == ("open", "down", "ann@web-1")
    assert (interactive["slots"], interactive["backoff_until"]) == (32, None)
    assert 0 < settlement["backoff_for_s"] <= 600
    await say(harness.owner, OPERATOR, "paused_at = null, paused_by = null, pause_reason = null")
    assert "in a row; next PING in 4 min; health down" in " ".join((await desk.run("status"))[1].split())


async def test_daemons_that_run_are_told_from_those_that_vanished(harness: Harness, desk: CommandLine) -> None:
    code, said, _ = await desk.run("status")
    assert (code, "no daemon is running" in said) == (0, True)
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=8)
    await run_daemon(harness.owner, "host-2", OPERATOR, slots=8, seen_s_ago=7200)
    await run_daemon(harness.owner, "host-3", OPERATOR, slots=8, seen_s_ago=2 * 86_400)
    code, said, _ = await desk.run("status")
    running, _, vanished = said.partition("vanished in the last day")
    assert "host-1 on host-1.example, seen " in running
    assert " ago, version 0.1.0" in running
    assert "host-2 on host-2.example, last seen 2 h ago (20" in vanished
    assert "host-3" not in said
    told = json.loads((await desk.run("status", "--json"))[1])["daemons"]
    assert [(daemon["instance"], daemon["is_live"]) for daemon in told] == [("host-1", True), ("host-2", False)]


async def test_the_slots_of_a_daemon_that_vanished_are_not_counted(harness: Harness, desk: CommandLine) -> None:
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=8, seen_s_ago=7200)
    await harness.place("b1")
    await claim(harness.daemon)
    said = (await desk.run("status"))[1]
    assert row(said, OPERATOR, "interactive")[2] == "1"


async def test_a_busy_table_fits_80_columns_and_json_has_every_figure_in_full(
    harness: Harness, desk: CommandLine
) -> None:
    """The longest id that is promised, five figures everywhere, and all that can be wrong at once."""
    await harness.daemon.execute(query("sync_operators"), [LONG], [False], [15.0], [0.0], ["f"])
    await run_daemon(harness.owner, "host-1", LONG, slots=10_000)
    await say(
        harness.owner,
        LONG,
        "health = 'down', circuit = 'half_open', circuit_since = now() - interval '119 min',"
        " consecutive_failures = 12345, paused_at = now() - interval '47 h',"
        " paused_by = 'somebody.with.a.long.name@a-host-with-a-long-name',"
        " pause_reason = repeat('because of this and that, ', 6)",
    )
    await harness.owner.execute(
        "insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params, attempts,"
        "                                        effect, leased_at, leased_by, lease_until, due_at)"
        " select $1, gen_random_uuid(), 'PING', 'interactive', case when n > 12345 then 'in_flight' else 'ready' end,"
        "        '{}', 1, 'unknown', now(), 'host-1', case when n > 12345 then now() end, now() - interval '119 min'"
        "   from generate_series(1, 24567) n",
        LONG,
    )
    code, said, _ = await desk.run("status")
    assert code == 0
    assert max(map(len, said.splitlines())) <= 80
    assert row(said, LONG, "interactive") == ["0", "12k", "12k/10k", "119min", "25k", "disabled…"]
    (lane,) = [
        lane
        for lane in json.loads((await desk.run("status", "--json"))[1])["lanes"]
        if (lane["operator_id"], lane["lane"]) == (LONG, "interactive")
    ]
    assert (lane["ready"], lane["in_flight"], lane["slots"], lane["unknown_effect"]) == (12345, 12222, 10_000, 24567)


async def test_what_needs_review_is_listed_after_the_daemons(harness: Harness, desk: CommandLine) -> None:
    await harness.attempt(await harness.place(), delivered)
    win = await harness.end("BET_WIN")
    assert "nothing needs review" in (await desk.run("status"))[1]
    await harness.attempt(win, rejected, operator_status="PLAYER_NOT_FOUND")
    said = (await desk.run("status"))[1]
    assert said.index("no daemon is running") < said.index("needs review:") < said.index(str(win))
    assert "The operator refused it with PLAYER_NOT_FOUND" in said


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (9_999, "9999"),
        (10_000, "10k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (9_949_999, "9.9M"),
        (9_960_000, "10M"),
        (123_456_789, "123M"),
    ],
)
def test_a_number_takes_four_characters_at_most(number: int, text: str) -> None:
    assert rounded(number) == text
