"""`interventions`: who did what, filtered and paged."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, command_line_for, one_line
from tests.support.harness import DISABLED, OPERATOR, Harness, rejected
from tests.support.interventions import abandon, cancel, pause, resolve, resume, retry, terminal_in_review
from tests.support.postgres import Database


async def test_it_lists_the_newest_first_with_what_each_changed(harness: Harness, person_cli: CommandLine) -> None:
    win = await terminal_in_review(harness)
    await retry(harness.person, win, "alice@desk-1")
    await harness.attempt(win, rejected)
    await resolve(harness.person, win, "paid by hand,\nticket 7", "bob@desk-2")
    await pause(harness.person, by="bob@desk-2")
    code, stdout, stderr = await person_cli.run("interventions")
    assert (code, stderr) == (0, "")
    paused, resolved, retried = ("Z paused ", f"Z resolved BET_WIN {win} of ", f"Z retried BET_WIN {win} of ")
    text = one_line(stdout)
    places = [text.index(phrase) for phrase in (paused, resolved, retried)]
    assert places == sorted(places)
    for phrase in (
        f"of operator {OPERATOR}, bet b1 by bob@desk-2 (database role test_operations",
        r"reason: paid by hand,\nticket 7",
        "state exhausted → ready",
        "pause_reason none → their upgrade",
    ):
        assert phrase in text
    code, output = await person_cli.run_json("interventions")
    assert [one["action"] for one in output["interventions"]] == ["pause", "resolve", "retry"]
    assert output["interventions"][2]["before"]["state"] == "exhausted"
    assert (output["interventions"][1]["method"], output["older_before"]) == ("BET_WIN", None)


async def test_every_filter_selects(harness: Harness, person_cli: CommandLine) -> None:
    win = await terminal_in_review(harness)
    await retry(harness.person, win, "alice@desk-1")
    placement = await harness.place("b2")
    await cancel(harness.person, placement, by="bob@desk-2")
    middle = datetime.now(UTC).isoformat()
    await pause(harness.person, DISABLED, by="alice@desk-1")

    async def actions(*arguments: str) -> list[str]:
        code, output = await person_cli.run_json("interventions", *arguments)
        assert code == 0
        return [one["action"] for one in output["interventions"]]

    for arguments, expected in (
        (("--operator", OPERATOR), ["cancel", "retry"]),
        (("--action", "retry"), ["retry"]),
        (("--by", "alice@desk-1"), ["pause", "retry"]),
        (("--by", "alice"), ["pause", "retry"]),
        (("--by", "test_operations", "--operator", DISABLED), ["pause"]),
        (("--by", "ali"), []),
        (("--since", middle), ["pause"]),
        (("--until", middle), ["cancel", "retry"]),
        (("--since", "2020-01-01", "--until", "2020-01-02T00:00:00+01:00"), []),
        (("--since", "2h"), ["pause", "cancel", "retry"]),
        (("--request", str(win)), ["retry"]),
        (("--request", str(placement)[:13]), ["cancel"]),
        (("--bet", "b2"), ["cancel"]),
        (("--bet", "b2", "--action", "retry"), []),
    ):
        assert await actions(*arguments) == expected, arguments
    assert (await person_cli.run("interventions", "--bet", "b9"))[1] == "no interventions of this kind\n"
    for arguments, code, phrase in (
        (("--operator", "op_new"), 1, "unknown operator op_new"),
        (("--since", "yesterday"), 2, "'yesterday': give a time"),
        (("--action", "abandoned"), 2, "'abandoned' is not one of"),
        (("--limit", "0"), 2, "0 is not in the range"),
    ):
        given, _, stderr = await person_cli.run("interventions", *arguments)
        assert (given, phrase in stderr) == (code, True), stderr


async def test_pages_miss_none_and_repeat_none_also_if_several_have_the_same_time(
    harness: Harness, person_cli: CommandLine
) -> None:
    """As after `retry --operator`, and after a restore with a coarse clock."""
    await harness.owner.execute(
        "insert into predictu_dispatch.intervention (operator_id, request_id, action, done_by, done_at)"
        " select $1, md5(n::text)::uuid, 'retry', 'x', timestamptz '2026-01-01' + (n / 3) * interval '1 microsecond'"
        "   from generate_series(1, 20) n",
        OPERATOR,
    )
    seen: list[str] = []
    page: tuple[str, ...] = ()
    while True:
        _, output = await person_cli.run_json("interventions", "--limit", "4", *page)
        seen += [one["request_id"] for one in output["interventions"]]
        if output["older_before"] is None:
            break
        page = ("--until", output["older_before"])
    assert (len(seen), len(set(seen))) == (20, 20)
    _, stdout, stderr = await person_cli.run("interventions", "--limit", "4")
    assert stdout.count("retried callback ") == 4 + 2
    assert "the newest 6 are shown; for older ones: --until 2026-01-01T00:00:00.000005Z" in stderr


@pytest.mark.parametrize("login", ["support", "operations", "auditor"])
async def test_an_abandoned_rollbacks_warning_is_shown_to_every_reader(
    harness: Harness, database: Database, tmp_path: Path, login: str
) -> None:
    await harness.producer.execute(
        "select predictu_dispatch.adopt_bet($1, 'b1', 'p1', 'EUR', 500, $2)", OPERATOR, uuid.uuid4()
    )
    rollback = await harness.rollback()
    assert rollback is not None
    await abandon(harness.person, rollback)
    await resume_after_pause(harness)
    cli = command_line_for(tmp_path, getattr(database, login))
    code, stdout, _ = await cli.run("interventions", "--bet", "b1")
    assert code == 0
    assert "warning none → the operator confirmed the debit and has not reversed it" in one_line(stdout)
    if login != "auditor":
        assert "warning none → the operator confirmed" in one_line((await cli.run("show", str(rollback)))[1])


async def resume_after_pause(harness: Harness) -> None:
    """Two more, which the filter leaves out."""
    await pause(harness.person)
    await resume(harness.person)


async def test_an_empty_list_says_so(harness: Harness, person_cli: CommandLine) -> None:
    assert await harness.everything() == []
    assert await person_cli.run("interventions") == (0, "no interventions\n", "")
    code, stdout, _ = await person_cli.run("interventions", "--json")
    assert (code, json.loads(stdout)) == (0, {"interventions": [], "older_before": None})
