"""`cancel`, `abandon`, `resolve`, `pause`, `resume`: their output and exit codes."""

import os
import uuid
from pathlib import Path

from tests.support.command_line import CommandLine, command_line_for, one_line
from tests.support.harness import OPERATOR, Harness, rejected, retried
from tests.support.interventions import in_review, open_bet
from tests.support.postgres import Database

WIN = uuid.UUID("00000000-0000-4000-8000-000000000001")


async def test_wrong_usage(harness: Harness, person_cli: CommandLine) -> None:
    for arguments, phrase in (
        (["retry"], "give REQUEST_IDs, or --operator"),
        (["retry", str(WIN), "--operator", OPERATOR, "--method", "BET_WIN"], "--method goes with --operator alone"),
        (["retry", "--operator", OPERATOR, "--method", "BET_MAKE"], "'BET_MAKE' is not one of"),
        (["retry", "7"], "not a valid UUID"),
        (["cancel", str(WIN)], "Missing option '--reason'"),
        (["cancel", "--reason", "no"], "Missing argument 'REQUEST_ID...'"),
        (["cancel", str(WIN), "--reason", " "], "--reason must not be empty"),
        (["resolve", str(WIN)], "Missing option '--reason'"),
        (["pause", OPERATOR], "Missing option '--reason'"),
        (["resume", OPERATOR, "--reason", ""], "--reason must not be empty"),
    ):
        code, stdout, stderr = await person_cli.run(*arguments)
        assert (code, stdout) == (2, "")
        assert phrase in stderr
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.intervention") == 0


async def test_a_cancelled_terminal_leaves_its_bet_open_and_show_names_who_cancelled_it(
    harness: Harness, person_cli: CommandLine
) -> None:
    await open_bet(harness, "b1")
    await harness.end("BET_LOSE", request_id=WIN)
    code, stdout, _ = await person_cli.run("cancel", str(WIN), "--reason", "wrong outcome", "--by", "alice")
    assert code == 0
    assert (
        f"BET_LOSE {WIN} of operator {OPERATOR} is cancelled and will not be sent; another callback may be"
        in one_line(stdout)
    )
    assert (await harness.bet())["state"] == "open"
    code, stdout, _ = await person_cli.run("show", str(WIN))
    assert code == 0
    for phrase in (
        "it was cancelled and is not sent (it was cancelled manually before any attempt)",
        "note wrong outcome",
        "cancelled by alice (database role test_operations) at ",
        "reason: wrong outcome",
    ):
        assert phrase in one_line(stdout)


async def test_show_lists_interventions_between_the_attempts(
    harness: Harness, person_cli: CommandLine, tmp_path: Path, database: Database
) -> None:
    win = await in_review(harness, "b1", request_id=WIN)
    assert (await person_cli.run("retry", str(win)))[0] == 0
    await harness.attempt(win, rejected)
    code, stdout, _ = await person_cli.run("resolve", str(win), "--reason", "paid by hand, ticket 7", "--by", "bob")
    assert code == 0
    assert one_line(stdout).startswith(f"BET_WIN {win} of operator {OPERATOR} is resolved: it stays rejected")
    (tmp_path / "support").mkdir()
    support = command_line_for(tmp_path / "support", database.support)
    _, stdout, _ = await support.run("show", str(win))
    order = ["attempt 1 by", "retried by", "attempt 2 by", "resolved by bob", "paid by hand, ticket 7"]
    places = [stdout.rindex(phrase) for phrase in order]
    assert places == sorted(places)
    (callback,) = (await support.run_json("show", str(win)))[1]["callbacks"]
    assert [(one["action"], one["reason"]) for one in callback["interventions"]] == [
        ("retry", None),
        ("resolve", "paid by hand, ticket 7"),
    ]
    login, _, host = callback["interventions"][0]["done_by"].partition("@")
    assert login
    assert host == os.uname().nodename
    stderr = (await person_cli.run("retry", str(win)))[2]
    assert "bob resolved it at " in stderr


async def test_an_operator_can_be_paused_once_and_resumed_once(harness: Harness, person_cli: CommandLine) -> None:
    code, stdout, _ = await person_cli.run("pause", OPERATOR, "--reason", "their upgrade", "--by", "alice")
    assert code == 0
    assert "nothing is sent to it" in one_line(stdout)
    assert f"predictu-dispatch resume {OPERATOR}" in stdout
    code, stdout, stderr = await person_cli.run("pause", OPERATOR, "--reason", "again", "--by", "bob")
    assert (code, stdout) == (1, "")
    assert f"operator {OPERATOR} is already paused, since " in stderr
    assert "by alice: their upgrade" in stderr
    code, output = await person_cli.run_json("resume", OPERATOR, "--by", "bob")
    assert (code, output["done"][0]["paused_by"], output["refused"]) == (0, "alice", [])
    code, _, stderr = await person_cli.run("resume", OPERATOR)
    assert code == 1
    assert "is not paused" in stderr
    code, _, stderr = await person_cli.run("pause", "op_new", "--reason", "x")
    assert code == 1
    assert "unknown operator 'op_new'" in stderr
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.intervention") == 2


async def test_an_id_of_two_operators_needs_the_operator(harness: Harness, person_cli: CommandLine) -> None:
    await harness.owner.execute("update predictu_dispatch.operator set enabled = true")
    for operator_id in (OPERATOR, "op_off"):
        await harness.producer.execute(
            "select predictu_dispatch.enqueue_callback($1, 'PING', '{}', $2)", operator_id, WIN
        )
    for verb in (["show"], ["why"], ["cancel", "--reason", "x"]):
        code, _, stderr = await person_cli.run(*verb, str(WIN))
        assert code == 1
        assert f"several operators have {WIN}; add --operator {OPERATOR} | op_off" in stderr
        code, stdout, _ = await person_cli.run(*verb, str(WIN), "--operator", "op_off")
        assert (code, "of operator op_off" in stdout) == (0, True)
    states = await harness.owner.fetch("select operator_id, state from predictu_dispatch.callback order by 1")
    assert [tuple(row) for row in states] == [(OPERATOR, "ready"), ("op_off", "cancelled")]


async def test_abandon_says_what_follows_for_the_bet_and_warns_of_a_debit(
    harness: Harness, person_cli: CommandLine
) -> None:
    """A placement, a settlement, a rollback; refusals name the command that helps."""
    abandon = ("abandon", "--reason", "they are gone", "--by", "alice")
    placement = await harness.place("b1")
    await harness.attempt(placement, retried, due_in_s=3600.0)
    code, stdout, stderr = await person_cli.run(*abandon, str(placement))
    [rollback] = await harness.rollbacks("b1")
    assert (code, stderr) == (0, "")
    assert one_line(stdout) == (
        f"BET_MAKE {placement} of operator {OPERATOR} is abandoned after 1 attempt: the operator may have applied it"
        f" its bet b1 is rolled back: BET_ROLLBACK {rollback['request_id']}"
    )
    code, stdout, _ = await person_cli.run(*abandon, str(rollback["request_id"]))
    assert code == 0
    for phrase in (
        "warning: a debit may stand at the operator; settle it with the operator",
        f"predictu-dispatch resolve {rollback['request_id']}",
        f"predictu-dispatch retry {rollback['request_id']}",
    ):
        assert phrase in one_line(stdout)
    code, stdout, _ = await person_cli.run(*abandon[:-1], "bob", str(rollback["request_id"]))
    assert code == 0
    for phrase in ("was abandoned already, at 2", "by alice: they are gone"):
        assert phrase in one_line(stdout)
    await open_bet(harness, "b2")
    win = await harness.end("BET_WIN", "b2")
    code, stdout, stderr = await person_cli.run(*abandon, str(win), str(placement))
    assert (code, f"predictu-dispatch cancel {win}" in stderr) == (1, True)
    assert f"BET_MAKE {placement} of operator {OPERATOR} was abandoned already" in one_line(stdout)
    await harness.lease(win)
    assert (await person_cli.run(*abandon, str(win)))[0] == 1
    _, stdout, _ = await person_cli.run("show", str(placement))
    assert "it ended without a confirmation (its retries were stopped manually)" in one_line(stdout)
