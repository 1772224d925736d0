"""`retry`, `cancel`, `resolve`, `pause`, `resume` as a tired engineer meets them: what is said, and with which code."""

import asyncio
import json
import os
import pty
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import until
from tests.support.environment import open_environment
from tests.support.harness import OPERATOR, WAIT_S, Harness, claim, delivered, exhausted, rejected
from tests.support.postgres import Database

WIN = uuid.UUID("00000000-0000-4000-8000-000000000001")


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> CommandLine:
    """With the daemon's rights, because the commands run beside it with its own dispatcher.toml."""
    return command_line_for(tmp_path, database.dispatcher)


async def as_json(desk: CommandLine, *arguments: str) -> tuple[int, Any]:
    """Exit code, and what the command told a program."""
    code, said, _ = await desk.run(*arguments, "--json")
    return code, json.loads(said)


def command(desk: CommandLine, *arguments: str) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "predictu_dispatch", *arguments, "--config", str(desk.config)]


async def open_bet(harness: Harness, bet_id: str) -> uuid.UUID:
    placement = await harness.place(bet_id)
    await harness.attempt(placement, delivered)
    return placement


async def in_review(harness: Harness, bet_id: str, method: str = "BET_WIN", **said: Any) -> uuid.UUID:
    """A terminal that was tried once and given up."""
    await open_bet(harness, bet_id)
    terminal = await harness.end(method, bet_id, **said)
    await harness.attempt(terminal, exhausted)
    return terminal


async def flagged(harness: Harness, bet_id: str) -> uuid.UUID:
    """On the review list, but never to be sent: its bet is being rolled back."""
    lease = await harness.lease(await harness.place(bet_id))
    win = await harness.end("BET_WIN", bet_id)
    await harness.settle(exhausted(lease))
    await harness.settle(*(exhausted(lease) for lease in await claim(harness.daemon)))
    return win


async def test_of_several_ids_the_possible_ones_are_sent_again_and_each_of_the_others_is_explained(
    harness: Harness, desk: CommandLine
) -> None:
    placement, win = await open_bet(harness, "b0"), await in_review(harness, "b1")
    unknown = uuid.uuid4()
    code, said, complaint = await desk.run("retry", str(placement), str(win), str(unknown), str(win), "--by", "alice")
    assert code == 1
    assert said == f"BET_WIN {win} of operator {OPERATOR} is due again, as attempt 2\n"
    assert f"retry of BET_MAKE {placement} of operator {OPERATOR} is refused: a debit is never sent again" in complaint
    assert "Place a new bet." in complaint
    assert f"no callback {unknown}" in complaint
    assert "on its way" not in complaint, "an id that is given twice is asked for once"
    assert (await harness.state(placement), await harness.state(win)) == ("delivered", "ready")

    await harness.attempt(win, rejected)
    code, told = await as_json(desk, "retry", str(win), str(placement))
    assert code == 1
    [done], [refused] = told["done"], told["refused"]
    assert (done["request_id"], done["state"], done["attempts"]) == (str(win), "ready", 2)
    assert (refused["request_id"], refused["sqlstate"], refused["operator_id"]) == (str(placement), "PD005", OPERATOR)
    assert refused["message"].endswith("is refused: a debit is never sent again by hand")
    assert refused["hint"].startswith("Place a new bet.")
    assert (await desk.run("cancel", str(win), "--reason", "no"))[0] == 1


async def test_all_of_an_operators_are_sent_again_but_what_must_not_be(harness: Harness, desk: CommandLine) -> None:
    wins = [await in_review(harness, f"b{number}") for number in range(3)]
    sell, cancelled = await in_review(harness, "b3", "BET_SELL"), await flagged(harness, "b4")
    resolved = await in_review(harness, "b5")
    assert (await desk.run("resolve", str(resolved), "--reason", "paid by hand"))[0] == 0

    code, said, complaint = await desk.run("retry", "--operator", OPERATOR, "--method", "BET_WIN")
    assert (code, said) == (0, f"3 callbacks of operator {OPERATOR} due again: 3 BET_WIN\n")
    assert "1 callback more on the review list must not be sent again" in complaint
    assert {await harness.state(win) for win in wins} == {"ready"}
    assert await harness.state(sell) == "exhausted"

    code, said, _ = await desk.run("retry", "--operator", OPERATOR)
    assert (code, said) == (0, f"2 callbacks of operator {OPERATOR} due again: 1 BET_ROLLBACK, 1 BET_SELL\n")
    assert (await harness.state(cancelled), await harness.state(resolved)) == ("cancelled", "exhausted")
    code, said, _ = await desk.run("retry", "--operator", OPERATOR)
    assert (code, said) == (0, f"nothing of operator {OPERATOR} was sent again\n")
    assert {lease["request_id"] for lease in await claim(harness.daemon)} >= {*wins, sell}


async def test_one_that_is_held_stops_none_of_the_others(harness: Harness, desk: CommandLine) -> None:
    """Each callback has a transaction of its own, and no lock is waited for longer than a while."""
    wins = [await in_review(harness, f"b{number}") for number in range(3)]
    await harness.owner.execute(
        "alter function predictu_dispatch.retry_callback(text, uuid, text) set lock_timeout = '20ms'"
    )
    async with harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.bet where bet_id in ('b0', 'b2') for update")
        code, told = await as_json(desk, "retry", "--operator", OPERATOR)
    assert code == 1
    assert [one["request_id"] for one in told["done"]] == [str(wins[1])]
    assert {one["request_id"]: one["sqlstate"] for one in told["refused"]} == {str(wins[n]): "PD006" for n in (0, 2)}


async def test_more_than_a_page_is_sent_again_to_the_last_one(harness: Harness, desk: CommandLine) -> None:
    await in_review(harness, "b1")
    await harness.owner.execute("set session_replication_role = replica")
    for table, changed in (
        ("bet", '\'{"bet_id": "\' || n || \'", "placement_request_id": "\' || gen_random_uuid() || \'"}\''),
        ("callback", '\'{"bet_id": "\' || n || \'", "request_id": "\' || gen_random_uuid() || \'"}\''),
    ):
        await harness.owner.execute(
            f"insert into predictu_dispatch.{table} select made.* from predictu_dispatch.{table} one,"  # noqa: S608
            f" generate_series(1, 1200) n, jsonb_populate_record(one, ({changed})::jsonb) made"
            + (" where one.method = 'BET_WIN'" if table == "callback" else "")
        )
    await harness.owner.execute("set session_replication_role = origin")
    code, said, complaint = await desk.run("retry", "--operator", OPERATOR)
    assert (code, said, complaint) == (0, f"1201 callbacks of operator {OPERATOR} due again: 1201 BET_WIN\n", "")


async def test_on_a_terminal_all_of_an_operators_are_sent_again_only_after_a_yes(
    harness: Harness, desk: CommandLine
) -> None:
    win = await in_review(harness, "b1")
    for answer, options, expected in (
        (b"n\n", (), (1, "exhausted")),
        (b"\n", (), (1, "exhausted")),
        (b"", ("--yes",), (0, "ready")),
    ):
        person, terminal = pty.openpty()
        os.write(person, answer)
        asked = await asyncio.to_thread(
            subprocess.run,
            command(desk, "retry", "--operator", OPERATOR, *options),
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=3 * WAIT_S,
            check=False,
        )
        os.close(person)
        os.close(terminal)
        assert (asked.returncode, await harness.state(win)) == expected, asked
        assert ("Send 1 callback of operator op_abc123 again? [y/N]" in asked.stderr) is (not options)


async def test_what_makes_no_sense_is_a_wrong_usage(harness: Harness, desk: CommandLine) -> None:
    for arguments, words in (
        (["retry"], "give REQUEST_IDs, or --operator"),
        (["retry", str(WIN), "--operator", OPERATOR, "--method", "BET_WIN"], "--method goes with --operator alone"),
        (["retry", "--operator", OPERATOR, "--method", "BET_MAKE"], "'BET_MAKE' is not one of"),
        (["retry", "7"], "not a valid UUID"),
        (["cancel", str(WIN)], "Missing option '--reason'"),
        (["cancel", "--reason", "no"], "Missing argument 'REQUEST_ID...'"),
        (["cancel", str(WIN), "--reason", " "], "--reason is empty"),
        (["resolve", str(WIN)], "Missing option '--reason'"),
        (["pause", OPERATOR], "Missing option '--reason'"),
        (["resume", OPERATOR, "--reason", ""], "--reason is empty"),
    ):
        code, said, complaint = await desk.run(*arguments)
        assert (code, said) == (2, "")
        assert words in complaint
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.intervention") == 0


async def test_a_terminal_that_is_taken_back_leaves_its_bet_open_and_show_tells_who_did_it_and_why(
    harness: Harness, desk: CommandLine
) -> None:
    await open_bet(harness, "b1")
    await harness.end("BET_LOSE", request_id=WIN)
    code, said, _ = await desk.run("cancel", str(WIN), "--reason", "wrong outcome", "--by", "alice")
    assert code == 0
    assert f"BET_LOSE {WIN} of operator {OPERATOR} is taken back and will not be sent; another may be" in said
    assert (await harness.bet())["state"] == "open"
    code, said, _ = await desk.run("show", str(WIN))
    assert code == 0
    for words in (
        "it was taken back and is not sent (a person took it back before any attempt)",
        "note      wrong outcome",
        "taken back by alice (database role test_dispatcher) at ",
        "because: wrong outcome",
    ):
        assert words in said


async def test_show_tells_what_people_did_between_the_attempts_it_led_to(
    harness: Harness, desk: CommandLine, tmp_path: Path, database: Database
) -> None:
    win = await in_review(harness, "b1", request_id=WIN)
    assert (await desk.run("retry", str(win)))[0] == 0
    await harness.attempt(win, rejected)
    code, said, _ = await desk.run("resolve", str(win), "--reason", "paid by hand, ticket 7", "--by", "bob")
    assert code == 0
    assert said.startswith(f"BET_WIN {win} of operator {OPERATOR} is off the review list; it stays rejected")
    (tmp_path / "support").mkdir()
    support = command_line_for(tmp_path / "support", database.support)
    _, said, _ = await support.run("show", str(win))
    order = ["attempt 1 by", "sent again by", "attempt 2 by", "taken off the review list", "paid by hand, ticket 7"]
    places = [said.rindex(words) for words in order]
    assert places == sorted(places)
    (callback,) = (await as_json(support, "show", str(win)))[1]["callbacks"]
    assert [(one["action"], one["reason"]) for one in callback["interventions"]] == [
        ("retry", None),
        ("resolve", "paid by hand, ticket 7"),
    ]
    login, _, host = callback["interventions"][0]["done_by"].partition("@")
    assert login
    assert host == os.uname().nodename
    complaint = (await desk.run("retry", str(win)))[2]
    assert "bob resolved it at " in complaint
    assert "sending it now might pay twice" in complaint


async def test_an_operator_is_paused_and_resumed_once(harness: Harness, desk: CommandLine) -> None:
    code, said, _ = await desk.run("pause", OPERATOR, "--reason", "their upgrade", "--by", "alice")
    assert code == 0
    assert "nothing is sent to it" in said
    assert f"predictu-dispatch resume {OPERATOR}" in said
    code, said, complaint = await desk.run("pause", OPERATOR, "--reason", "again", "--by", "bob")
    assert (code, said) == (1, "")
    assert f"operator {OPERATOR} is paused already, since " in complaint
    assert "by alice: their upgrade" in complaint
    code, told = await as_json(desk, "resume", OPERATOR, "--by", "bob")
    assert (code, told["done"][0]["paused_by"], told["refused"]) == (0, "alice", [])
    code, _, complaint = await desk.run("resume", OPERATOR)
    assert code == 1
    assert "is not paused" in complaint
    code, _, complaint = await desk.run("pause", "op_new", "--reason", "x")
    assert code == 1
    assert "unknown operator 'op_new'" in complaint
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.intervention") == 2


async def test_an_id_that_two_operators_have_asks_for_the_operator(harness: Harness, desk: CommandLine) -> None:
    await harness.owner.execute("update predictu_dispatch.operator set enabled = true")
    for operator_id in (OPERATOR, "op_off"):
        await harness.producer.execute(
            "select predictu_dispatch.enqueue_callback($1, 'PING', '{}', $2)", operator_id, WIN
        )
    code, _, complaint = await desk.run("cancel", str(WIN), "--reason", "x")
    assert code == 1
    assert f"several operators have {WIN}; add --operator {OPERATOR} | op_off" in complaint
    assert (await desk.run("cancel", str(WIN), "--reason", "x", "--operator", "op_off"))[0] == 0
    states = await harness.owner.fetch("select operator_id, state from predictu_dispatch.callback order by 1")
    assert [tuple(row) for row in states] == [(OPERATOR, "ready"), ("op_off", "cancelled")]


async def test_the_support_role_may_look_and_not_touch(harness: Harness, tmp_path: Path, database: Database) -> None:
    win = await in_review(harness, "b1")
    code, said, complaint = await command_line_for(tmp_path, database.support).run("retry", str(win))
    assert (code, said) == (1, "")
    assert "permission denied for function retry_callback" in complaint
    assert await harness.state(win) == "exhausted"


async def test_a_database_that_is_away_is_exit_code_3(tmp_path: Path) -> None:
    desk = command_line_for(tmp_path, "postgresql://nobody@127.0.0.1:1/none")
    for arguments in (["retry", str(WIN)], ["pause", OPERATOR, "--reason", "x"], ["ping", OPERATOR]):
        code, said, complaint = await desk.run(*arguments)
        assert (code, said) == (3, "")
        assert "the database can't be reached" in complaint


async def test_a_retried_settlement_reaches_its_operator_as_the_same_bytes(tmp_path: Path, database: Database) -> None:
    """The whole way: a refusal, a person, the daemon, the operator, and a bet that is closed at last."""
    async with open_environment(tmp_path, database) as environment:
        await environment.fleet.start("host-1")
        await environment.adopt("b1")
        environment.operator.refuse("PLAYER_NOT_FOUND")
        win = await environment.harness.end("BET_WIN")
        await environment.until_all_final()
        environment.operator.refuse(None)
        assert (await command_line_for(tmp_path, database.dispatcher).run("retry", str(win)))[0] == 0

        async def is_closed() -> bool:
            return bool((await environment.harness.bet())["state"] == "closed")

        await until("the bet is closed", is_closed)
        first, second = environment.operator.sent(win)
        assert first.body == second.body
        assert [row[:2] for row in await environment.audit(win)] == [(1, "rejected"), (2, "delivered")]
        assert (environment.operator.faults, await environment.audit_faults()) == ([], [])
