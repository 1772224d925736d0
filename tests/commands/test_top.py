"""`top` on a real terminal: problems first, hidden operators counted, outages survived."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.commands.overview import Overview
from predictu_dispatch.commands.top import frame
from tests.support.command_line import command_line_for
from tests.support.daemons import until
from tests.support.harness import OPERATOR, Harness
from tests.support.postgres import Database
from tests.support.postgres_proxy import proxied
from tests.support.terminal import COLUMNS, MAIN, ROWS, Terminal, terminal

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COMMAND = (sys.executable, "-c", MAIN)
RUNNING = {
    "instance": "host-1",
    "host": "h",
    "version": "0.1.0",
    "is_live": True,
    "seen_s_ago": 0.2,
    "clock_ahead_s": 0,
}


@pytest.mark.parametrize("sigint", ["default_int_handler", "SIG_IGN"])
async def test_it_follows_the_backlog_and_ends_with_ctrl_c(
    tmp_path: Path, database: Database, harness: Harness, sigint: str
) -> None:
    """Also if SIGINT is ignored at the start, as in a background job of a shell."""
    cli = command_line_for(tmp_path, database.support)
    with terminal(cli, "top", "--every", "0.2", sigint=sigint) as screen:
        await until("the first screen", lambda: screen.shows("0 not final"))
        assert "nothing needs review" in screen.text
        assert OPERATOR in screen.text
        for number in range(3):
            await harness.place(f"b{number}")
        await until("the backlog is shown", lambda: screen.shows("3 not final"))
        assert len(screen.text.splitlines()) <= ROWS
        screen.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(screen.process.wait, 20) == 0


@pytest.mark.usefixtures("harness")
async def test_an_outage_is_shown_and_does_not_end_it(tmp_path: Path, database: Database) -> None:
    async with proxied(database.support) as proxy:
        with terminal(command_line_for(tmp_path, proxy.dsn()), "top", "--every", "0.2") as screen:
            await until("the first screen", lambda: screen.shows("not final"))
            proxy.refuse_connections()
            await until("the outage is shown", lambda: screen.shows("can't be reached"))
            first, *others = screen.text.splitlines()
            assert re.search(r"retrying\. Answer of 20\S+Z:$", first.rstrip())
            assert "Error" in others[0]
            assert "PredictuDatabaseAway in deploy/runbook.md" in " ".join(" ".join(others[:4]).split())
            assert OPERATOR in screen.text
            proxy.accept_connections()
            await until("it continues", lambda: screen.shows("not final") and "can't be reached" not in screen.text)


async def test_without_a_database_it_says_so_and_ends(tmp_path: Path, database: Database) -> None:
    async with proxied(database.support) as proxy:
        proxy.refuse_connections()
        with terminal(command_line_for(tmp_path, proxy.dsn()), "top") as screen:
            assert await asyncio.to_thread(screen.process.wait, 20) == 3
            text = " ".join(read_all(screen).split())
            assert text.startswith("the database can't be reached (")
            assert "Traceback" not in text


async def test_a_login_without_the_right_learns_which_role_has_it(tmp_path: Path, database: Database) -> None:
    with terminal(command_line_for(tmp_path, database.producer), "top") as screen:
        await until(
            "the role is named", lambda: "predictu_support or predictu_operations" in " ".join(read_all(screen).split())
        )
        assert await asyncio.to_thread(screen.process.wait, 20) == 1


def read_all(screen: Terminal) -> str:
    screen.shows("")
    return screen.written


async def test_it_needs_a_terminal(tmp_path: Path, database: Database) -> None:
    code, text, stderr = await command_line_for(tmp_path, database.support).run("top")
    assert (code, text) == (2, "")
    assert "predictu-dispatch status --json" in stderr


def lane(operator_id: str, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "operator_id": operator_id,
        "lane": name,
        "waiting": 0,
        "ready": 0,
        "in_flight": 0,
        "slots": 16,
        "oldest_due_s": None,
        "unknown_effect": 0,
        "enabled": True,
        "paused_at": None,
        "circuit": "closed",
        "circuit_for_s": None,
        "backoff_for_s": 0,
        "health": "healthy",
        "consecutive_failures": 0,
        "last_failure_at": None,
        "last_failure_reason": None,
        "last_failure_status": None,
        "last_failure_location": None,
        "last_failure_answer": "",
        "last_failure_error": None,
        "last_failure_s_ago": 4.0,
        "last_success_s_ago": 4.0,
        "oldest_request_id": None,
        "unknown_request_id": None,
        "unknown_reason": None,
        "unreachable_from": None,
        "ping_in_s": None,
        "daemons": 1,
        **changes,
    }


def lanes_of(number: int, **changes: Any) -> list[dict[str, Any]]:
    return [lane(f"op_{number:03}", name, **changes) for name in ("interactive", "settlement")]


FAILED = {"last_failure_at": AT, "last_failure_reason": "connect_refused"}
BROKEN = {"circuit": "open", "health": "down", "consecutive_failures": 7, **FAILED}
DEGRADED = {"health": "degraded", "consecutive_failures": 3, **FAILED}


def screen_of(
    *lanes: dict[str, Any],
    height: int = ROWS,
    columns: int = COLUMNS,
    daemons: tuple[Any, ...] = (RUNNING,),
) -> list[str]:
    overview = Overview(at_s=1.0, at=AT, lanes=lanes, daemons=daemons)
    return [click.unstyle(line) for line in frame(overview, None, columns=columns, height=height)]


@given(
    ill=st.sets(st.integers(0, 60)),
    count=st.integers(1, 60),
    height=st.integers(14, 60),
    columns=st.integers(80, 160),
    backlogs=st.lists(st.integers(0, 10**7), min_size=60, max_size=60),
)
def test_a_screen_fits_its_terminal_begins_with_problems_and_counts_the_rest(
    ill: set[int], count: int, height: int, columns: int, backlogs: list[int]
) -> None:
    lanes = [
        row
        for number in range(count)
        for row in lanes_of(number, ready=backlogs[number], **(BROKEN if number in ill else {}))
    ]
    lines = screen_of(*lanes, height=height, columns=columns)
    assert len(lines) <= height
    assert all(len(line) <= columns for line in lines)
    named = list(dict.fromkeys(line.split()[0].rstrip(":") for line in lines if line.startswith("op_")))
    needs = sorted(range(count), key=lambda number: (number not in ill, -backlogs[number], number))
    assert named == [f"op_{number:03}" for number in needs[: len(named)]]
    assert named
    left, left_ill = count - len(named), len(ill & set(needs[len(named) :]))
    text = " ".join(" ".join(lines).split())
    assert (f"{left} more operator" in text) == (left > 0)
    if left_ill:
        assert f"more operator{'' if left == 1 else 's'}: {left_ill} circuit open" in text
    # Each operator with a problem on the screen has its cause and its command.
    for number in needs[: len(named)]:
        assert (f"predictu-dispatch ping op_{number:03}" in text) == (number in ill)


def test_operators_that_do_not_fit_are_counted_by_problem() -> None:
    changes: dict[int, dict[str, Any]] = {**dict.fromkeys(range(20), BROKEN), 20: DEGRADED, 21: {"enabled": False}}
    lines = screen_of(*(row for number in range(200) for row in lanes_of(number, **changes.get(number, {}))))
    named = {line.split()[0] for line in lines if line.startswith("op_")}
    text = " ".join(" ".join(lines).split())
    assert "200 operators: 20 circuit open, 1 degraded, 1 disabled, 178 well" in text
    hidden = (
        f"… and {200 - len(named)} more operators: {20 - len(named)} circuit open, 1 degraded, 1 disabled, 178 well"
    )
    assert hidden in text


def test_five_degraded_operators_fit_a_small_terminal_with_cause_and_command() -> None:
    lanes = [row for number in range(12) for row in lanes_of(number, **(DEGRADED if number < 5 else {}))]
    lines = screen_of(*lanes)
    text = " ".join(" ".join(lines).split())
    assert "12 operators: 5 degraded, 7 well" in text
    for number in range(5):
        cause = f"op_{number:03}: [^→]*the operator's host refused the connection[^→]* → to test it:"
        assert re.search(cause, text)
        assert f"predictu-dispatch ping op_{number:03}" in text
    assert "… and 7 more operators: 7 well" in text


def test_an_operator_of_unknown_effect_names_the_reason_and_a_callback() -> None:
    lanes = lanes_of(1, unknown_effect=2)
    lanes[0] |= {"unknown_request_id": "0199-unknown", "unknown_reason": "unknown_status"}
    text = " ".join(" ".join(screen_of(*lanes)).split())
    assert "may have been applied (unknown status: declare it under [statuses] in the operator's file)" in text
    assert "→ predictu-dispatch why 0199-unknown" in text


@pytest.mark.parametrize(
    ("changes", "daemons", "counted"),
    [
        ({"health": "unknown"}, (RUNNING,), "2 health unknown"),
        ({"daemons": 0}, (RUNNING,), "2 not served"),
        ({}, (), "2 no daemon"),
        ({"enabled": False}, (RUNNING,), "2 disabled"),
        (DEGRADED, (RUNNING,), "2 degraded"),
        ({"unreachable_from": ["host-2"]}, (RUNNING,), "2 unreachable"),
        ({"oldest_due_s": 31.0}, (RUNNING,), "2 late"),
        ({}, (RUNNING,), "2 well"),
    ],
)
def test_an_operator_that_nobody_has_seen_healthy_is_never_called_well(
    changes: dict[str, Any], daemons: tuple[Any, ...], counted: str
) -> None:
    lines = screen_of(*lanes_of(1, **changes), *lanes_of(2, **changes), daemons=daemons)
    assert f"2 operators: {counted}" in lines
    assert any("well" in line or "healthy" in line for line in lines) == (counted == "2 well")


def test_without_a_daemon_the_first_line_says_so() -> None:
    first = screen_of(*lanes_of(1), daemons=())[0]
    assert first == "no daemon is running (none sends heartbeats), so nothing is sent to any operator"


@pytest.mark.parametrize(("before", "now", "text"), [(10, 30, "(+10/s)"), (30, 10, "(-10/s)"), (5, 5, "(+0/s)")])
def test_the_trend_of_the_backlog_is_in_callbacks_a_second(before: int, now: int, text: str) -> None:
    first, second = (
        Overview(at_s=at_s, at=AT, lanes=[lane("op_1", "interactive", ready=ready)], daemons=[RUNNING])
        for at_s, ready in ((10.0, before), (12.0, now))
    )
    lines = frame(second, first, columns=COLUMNS, height=ROWS)
    assert any(text in line for line in lines)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_verbs_and_options(shell: str) -> None:
    made = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, check=True)
    assert f"_PREDICTU_DISPATCH_COMPLETE={shell}_complete" in made.stdout
    environment = {
        **os.environ,
        "_PREDICTU_DISPATCH_COMPLETE": "bash_complete",
        "COMP_WORDS": "predictu-dispatch statu",
    }
    text = subprocess.run(COMMAND, env={**environment, "COMP_CWORD": "1"}, capture_output=True, text=True, check=False)
    assert text.stdout.splitlines() == ["plain,status"]
