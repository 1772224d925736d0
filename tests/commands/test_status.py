"""`status` shows operators, lanes, daemons and the review list in 80 columns."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from predictu_dispatch.commands import advice
from predictu_dispatch.commands.fleet_lines import silent_daemon_lines
from predictu_dispatch.commands.output import rounded
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import OPERATOR, Connection, Harness, claim, delivered, retried
from tests.support.postgres import Database

pytestmark = pytest.mark.usefixtures("long_heartbeat_timeout")
LONG = "op_twenty_characters"
"""The longest operator id with which the table fits 80 columns."""


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> CommandLine:
    return command_line_for(tmp_path, database.support)


async def run_daemon(
    owner: Connection, instance: str, operator_id: str, *, slots: int, seen_s_ago: float = 0.2
) -> None:
    """Insert a daemon with a heartbeat, and its share of the operator's slots."""
    await owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, schema_version, seen_at)"
        " values ($1, gen_random_uuid(), $1 || '.example', 4711, '0.1.0', 1, now() - $2::interval)",
        *(instance, timedelta(seconds=seen_s_ago)),
    )
    await owner.execute(
        "insert into predictu_dispatch.share values ($1, $2, $3, $3, null, $3, $3, 0)", operator_id, instance, slots
    )


async def set_operator(owner: Connection, operator_id: str, changes: str) -> None:
    await owner.execute(
        f"update predictu_dispatch.operator set {changes} where operator_id = $1",  # noqa: S608
        operator_id,
    )


def row(text: str, operator_id: str) -> list[str]:
    """The cells of one line of the table, after the operator."""
    (line,) = [line.split() for line in text.splitlines() if line.split()[:1] == [operator_id]]
    return line[1:]


async def test_a_row_has_the_backlog_the_slots_and_the_state_of_its_operator(
    harness: Harness, desk: CommandLine
) -> None:
    await harness.attempt(await harness.place("b1"), delivered)
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=32)
    await run_daemon(harness.owner, "host-2", OPERATOR, slots=32)
    await set_operator(harness.owner, OPERATOR, "health = 'healthy'")
    await harness.end("BET_WIN", "b1")
    await harness.place("b2")
    await harness.place("b3")
    await claim(harness.daemon, slots=1, lanes=["interactive"])
    await harness.end("BET_WIN", "b3")
    await harness.owner.execute(
        "update predictu_dispatch.callback set due_at = now() + interval '1 h' where lane = 'settlement'"
    )
    code, text, _ = await desk.run("status")
    assert code == 0
    waiting, bets, bets_sent, settlements, settlements_sent, oldest, unknown, *state = row(text, OPERATOR)
    assert (waiting, bets, bets_sent, settlements, settlements_sent) == ("1", "1", "1/32", "1", "0/32")
    assert (unknown, state) == ("0", ["healthy"])
    assert oldest != "-"
    assert row(text, "op_off") == ["0", "0", "0", "0", "0", "-", "0", "disabled,", "not", "served"]


async def test_an_operator_with_problems_has_them_in_the_table_and_below_it(
    harness: Harness, desk: CommandLine
) -> None:
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=32)
    await set_operator(
        harness.owner,
        OPERATOR,
        "health = 'down', circuit = 'open', circuit_since = now() - interval '5 min', consecutive_failures = 1400,"
        " ping_at = now() + interval '4 min', paused_at = now() - interval '3 h', paused_by = 'ann@web-1',"
        " pause_reason = 'wallet upgrade', settlement_backoff_until = now() + interval '10 min',"
        " last_failure_at = now() - interval '2 min', last_failure_reason = 'misconfigured', last_failure_status = 302,"
        " last_failure_location = 'https://w.example/new'",
    )
    code, text, _ = await desk.run("status")
    assert code == 0
    assert row(text, OPERATOR)[7:] == ["paused,", "open", "5min…"]
    below = " ".join(text.split())
    for phrase in (
        f"{OPERATOR}: paused for 3 h by ann@web-1: wallet upgrade; circuit open for 5 min: the operator redirects,",
        "HTTP 302, Location: https://w.example/new (1,400 failures in a row, the last 2 min ago); no PING meanwhile;",
        f"it sent Retry-After: waits for settlement 10 min → to end the pause: predictu-dispatch resume {OPERATOR}",
        "op_off: disabled by enabled = false in its file; no running daemon has its file → to send again, set enabled",
    ):
        assert phrase in below
    text = (await desk.run("status", "--json"))[1]
    interactive, settlement = [lane for lane in json.loads(text)["lanes"] if lane["operator_id"] == OPERATOR]
    assert (interactive["circuit"], interactive["health"], interactive["paused_by"]) == ("open", "down", "ann@web-1")
    assert (interactive["slots"], interactive["backoff_until"]) == (32, None)
    assert 0 < settlement["backoff_for_s"] <= 600
    await set_operator(harness.owner, OPERATOR, "paused_at = null, paused_by = null, pause_reason = null")
    below = " ".join((await desk.run("status"))[1].split())
    assert "next PING in 4 min; it sent Retry-After: waits for settlement 10 min → ask the operator for its" in below


async def test_daemons_without_heartbeats_come_first_and_in_red(harness: Harness, desk: CommandLine) -> None:
    code, text, _ = await desk.run("status")
    assert (code, text.startswith(f"{advice.NO_DAEMON}\n  → start one: systemctl start")) == (0, True)
    await run_daemon(harness.owner, "host-2", OPERATOR, slots=8, seen_s_ago=7200)
    await run_daemon(harness.owner, "host-3", OPERATOR, slots=8, seen_s_ago=2 * 86_400)
    first, _, _, second, *_ = (await desk.run("status"))[1].splitlines()
    assert first == advice.NO_DAEMON
    assert re.fullmatch(r"daemon host-2 on host-2\.example: last heartbeat 2 h ago \(20\S+Z\)", second)
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=8)
    text = (await desk.run("status"))[1]
    silent, _, running = text.partition("\n\n")
    assert silent == second
    assert re.search(r"host-1 on host-1\.example, seen .* ago, version 0\.1\.0", running)
    assert "host-3" not in text
    listed = json.loads((await desk.run("status", "--json"))[1])["daemons"]
    assert [(daemon["instance"], daemon["is_live"]) for daemon in listed] == [("host-1", True), ("host-2", False)]
    stopped = [{**one, "seen_at": datetime.now(UTC), "is_live": False} for one in listed]
    lines = list(silent_daemon_lines(stopped, columns=80))
    assert advice.NO_DAEMON in lines[0]
    assert all(line.startswith("\x1b[31m") for line in lines)


async def test_a_daemon_whose_hosts_clock_is_wrong_is_marked_and_one_from_the_future_is_not_running(
    harness: Harness, desk: CommandLine
) -> None:
    for instance in ("host-1", "host-2", "host-3"):
        await run_daemon(harness.owner, instance, OPERATOR, slots=8)
    ahead = "update predictu_dispatch.daemon set clock_ahead_s = $1 where instance = $2"
    await harness.owner.execute(ahead, -2.0, "host-1")
    await harness.owner.execute(ahead, 0.9, "host-2")
    await harness.owner.execute(
        "update predictu_dispatch.daemon set seen_at = now() + interval '1 hour' where instance = 'host-3'"
    )
    lines = (await desk.run("status"))[1].splitlines()
    [marked] = [number for number, line in enumerate(lines) if "clock" in line]
    assert lines[marked - 1].startswith("  host-1 on ")
    assert lines[marked] == "    the host's clock is 2.0 s ahead of the database's"
    listed = json.loads((await desk.run("status", "--json"))[1])["daemons"]
    assert [(one["instance"], one["is_live"]) for one in listed][-1] == ("host-3", False)


async def test_the_slots_of_a_crashed_daemon_do_not_count(harness: Harness, desk: CommandLine) -> None:
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=8, seen_s_ago=7200)
    await harness.place("b1")
    await claim(harness.daemon)
    text = (await desk.run("status"))[1]
    assert row(text, OPERATOR)[2] == "1"


async def test_a_busy_table_fits_80_columns_and_json_has_exact_numbers(harness: Harness, desk: CommandLine) -> None:
    """The longest id, five digits everywhere, and every problem at once."""
    await harness.daemon.execute(query("sync_operators"), [LONG], [False], [15.0], [0.0], ["f"])
    await run_daemon(harness.owner, "host-1", LONG, slots=10_000)
    await set_operator(
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
    code, text, _ = await desk.run("status")
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    assert row(text, LONG) == ["0", "12k", "12k/10k", "0", "0/10k", "119min", "25k", "disabled…"]
    (lane,) = [
        lane
        for lane in json.loads((await desk.run("status", "--json"))[1])["lanes"]
        if (lane["operator_id"], lane["lane"]) == (LONG, "interactive")
    ]
    assert (lane["ready"], lane["in_flight"], lane["slots"], lane["unknown_effect"]) == (12345, 12222, 10_000, 24567)


async def test_json_has_totals_groups_and_problems(harness: Harness, desk: CommandLine) -> None:
    await run_daemon(harness.owner, "host-1", OPERATOR, slots=8)
    for bet_id in ("b1", "b2"):
        await harness.place(bet_id)
    await harness.attempt(await harness.place("b3"), retried, state_reason="http_503", due_in_s=60.0)
    listed = json.loads((await desk.run("status", "--json"))[1])
    totals = listed["totals"]
    assert (totals["operators"], totals["operators_with_problems"], totals["daemons_running"]) == (2, 2, 1)
    assert (totals["ready"] + totals["in_flight"], totals["unknown_effect"], totals["needs_review"]) == (3, 1, 0)
    groups = {(g["operator_id"], g["method"], g["reason"]): g["callbacks"] for g in listed["groups"]["unfinished"]}
    assert groups[OPERATOR, "BET_MAKE", "http_503"] == 1
    assert sum(groups.values()) == 3
    problems = {one["operator_id"]: one["problems"] for one in listed["problems"]}
    assert problems == {OPERATOR: ["unknown effect", "health unknown"], "op_off": ["disabled", "not served"]}


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
