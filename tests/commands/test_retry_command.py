"""`retry`: its output, its question and its exit codes."""

import asyncio
import os
import pty
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, command_line_for, one_line
from tests.support.corruption import large, lose_chunks
from tests.support.daemons import until
from tests.support.environment import open_environment
from tests.support.harness import (
    OPERATOR,
    WAIT_S,
    Harness,
    claim,
    delivered,
    enqueue,
    exhausted,
    placement_params,
    rejected,
    terminal_params,
)
from tests.support.interventions import in_review, open_bet
from tests.support.postgres import Database


def on_a_terminal(command: list[str], answer: bytes) -> tuple[int, str]:
    """Runs it on a terminal on which somebody types; returns the exit code and what is shown."""
    person, terminal = pty.openpty()
    os.write(person, answer)
    process = subprocess.run(
        command, stdin=terminal, stderr=terminal, stdout=subprocess.PIPE, timeout=3 * WAIT_S, check=False
    )
    os.close(terminal)
    shown = os.read(person, 10_000).decode()
    os.close(person)
    return process.returncode, shown


async def cancelled_by_rollback(harness: Harness, bet_id: str) -> uuid.UUID:
    """A win that needs review and must not be sent, because its bet is rolled back."""
    lease = await harness.lease(await harness.place(bet_id))
    win = await harness.end("BET_WIN", bet_id)
    await harness.settle(exhausted(lease))
    await harness.settle(*(exhausted(lease) for lease in await claim(harness.daemon)))
    return win


async def test_retry_explains_each_refusal_and_retries_the_others(harness: Harness, person_cli: CommandLine) -> None:
    placement, win = await open_bet(harness, "b0"), await in_review(harness, "b1")
    unknown = uuid.uuid4()
    code, stdout, stderr = await person_cli.run(
        "retry", str(placement), str(win), str(unknown), str(win), "--by", "alice"
    )
    assert code == 1
    assert one_line(stdout) == f"BET_WIN {win} of operator {OPERATOR} is due again, as attempt 2"
    assert f"retry of BET_MAKE {placement} of operator {OPERATOR} is refused: a debit is never " in stderr
    assert f"no callback {unknown}" in stderr
    assert stdout.count(str(win)) + stderr.count(str(win)) == 1, "a repeated id is retried once"
    assert (await harness.state(placement), await harness.state(win)) == ("delivered", "ready")

    await harness.attempt(win, rejected)
    code, output = await person_cli.run_json("retry", str(win), str(placement))
    assert code == 1
    [done], [refused] = output["done"], output["refused"]
    assert (done["request_id"], done["state"], done["attempts"]) == (str(win), "ready", 2)
    assert (refused["request_id"], refused["sqlstate"], refused["operator_id"]) == (str(placement), "PD005", OPERATOR)
    assert "a debit is never " in refused["message"]
    assert refused["hint"]
    assert (await person_cli.run("cancel", str(win), "--reason", "no"))[0] == 1


async def test_retry_of_an_operator_leaves_what_cannot_be_retried(harness: Harness, person_cli: CommandLine) -> None:
    wins = [await in_review(harness, f"b{number}") for number in range(3)]
    sell, cancelled = await in_review(harness, "b3", "BET_SELL"), await cancelled_by_rollback(harness, "b4")
    resolved = await in_review(harness, "b5")
    assert (await person_cli.run("resolve", str(resolved), "--reason", "paid by hand"))[0] == 0

    code, stdout, stderr = await person_cli.run("retry", "--operator", OPERATOR, "--method", "BET_WIN", "--yes")
    assert (code, stdout) == (0, f"3 callbacks of operator {OPERATOR} due again: 3 BET_WIN\n")
    assert "1 other cannot be retried" in stderr
    assert {await harness.state(win) for win in wins} == {"ready"}
    assert await harness.state(sell) == "exhausted"

    code, stdout, _ = await person_cli.run("retry", "--operator", OPERATOR, "--yes")
    assert (code, stdout) == (0, f"2 callbacks of operator {OPERATOR} due again: 1 BET_ROLLBACK, 1 BET_SELL\n")
    assert (await harness.state(cancelled), await harness.state(resolved)) == ("cancelled", "exhausted")
    code, stdout, _ = await person_cli.run("retry", "--operator", OPERATOR, "--yes")
    assert (code, stdout) == (0, f"no callback of operator {OPERATOR} was sent again\n")
    assert {lease["request_id"] for lease in await claim(harness.daemon)} >= {*wins, sell}


async def test_a_locked_callback_stops_none_of_the_others(harness: Harness, person_cli: CommandLine) -> None:
    """Each callback has its own transaction, with a lock timeout."""
    wins = [await in_review(harness, f"b{number}") for number in range(3)]
    await harness.owner.execute(
        "alter function predictu_dispatch.retry_callback(text, uuid, text) set lock_timeout = '20ms'"
    )
    async with harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.bet where bet_id in ('b0', 'b2') for update")
        code, output = await person_cli.run_json("retry", "--operator", OPERATOR, "--yes")
    assert code == 1
    assert [one["request_id"] for one in output["done"]] == [str(wins[1])]
    assert {one["request_id"]: one["sqlstate"] for one in output["refused"]} == {str(wins[n]): "PD006" for n in (0, 2)}


async def test_unreadable_params_and_times_from_the_future_stop_no_retry_of_an_operator(
    harness: Harness, person_cli: CommandLine
) -> None:
    """The sum leaves out an amount that cannot be read; the clock was set back after two ends."""
    for number in range(4):
        await open_bet(harness, f"b{number}")
    wins = [await harness.end("BET_WIN", f"b{number}") for number in range(3)]
    unreadable = await enqueue(harness.producer, "BET_WIN", large(terminal_params("BET_WIN", await harness.bet("b3"))))
    await harness.settle(*(exhausted(lease) for lease in await claim(harness.daemon)))
    await lose_chunks(harness.owner, unreadable)
    await harness.owner.execute(
        "update predictu_dispatch.callback set review_since = now() + interval '1 hour' where request_id = any($1)",
        [*wins[:1], unreadable],
    )
    code, shown = await asyncio.to_thread(on_a_terminal, person_cli.process("retry", "--operator", OPERATOR), b"y\n")
    question = "Send 4 callbacks of operator op_abc123 again: 15.00 EUR, and 1 whose amount cannot be read?"
    assert question in one_line(shown)
    assert code == 0
    ready = await harness.owner.fetch("select request_id from predictu_dispatch.callback where state = 'ready'")
    assert {row["request_id"] for row in ready} == {*wins, unreadable}


async def test_retry_of_an_operator_reads_several_pages(harness: Harness, person_cli: CommandLine) -> None:
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
    code, stdout, stderr = await person_cli.run("retry", "--operator", OPERATOR, "--yes")
    assert (code, stdout, stderr) == (0, f"1,201 callbacks of operator {OPERATOR} due again: 1,201 BET_WIN\n", "")


async def test_on_a_terminal_retry_of_an_operator_shows_count_and_sums_and_needs_a_yes(
    harness: Harness, person_cli: CommandLine
) -> None:
    win = await in_review(harness, "b1")
    await in_review(harness, "b2", "BET_SELL")
    await in_review(harness, "b3", "BET_LOSE")
    yen = await enqueue(harness.producer, "BET_MAKE", placement_params("b4", currency="JPY", amount=700))
    await harness.attempt(yen, delivered)
    await harness.attempt(await harness.end("BET_REFUND", "b4"), exhausted)
    for answer, expected in ((b"n\n", (1, "exhausted")), (b"\n", (1, "exhausted")), (b"y\n", (0, "ready"))):
        code, shown = await asyncio.to_thread(
            on_a_terminal, person_cli.process("retry", "--operator", OPERATOR), answer
        )
        assert (code, await harness.state(win)) == expected, shown
        assert "Send 4 callbacks of operator op_abc123 again: 10.00 EUR, 700 JPY? [y/N]" in shown


@pytest.mark.parametrize("redirected", ["stdin", "stderr"])
async def test_without_a_terminal_retry_of_an_operator_needs_yes_and_sends_nothing(
    harness: Harness, person_cli: CommandLine, redirected: str
) -> None:
    win = await in_review(harness, "b1")
    person, terminal = pty.openpty()
    os.write(person, b"y\n")
    command = person_cli.process("retry", "--operator", OPERATOR)
    elsewhere = {redirected: subprocess.PIPE}
    process = await asyncio.to_thread(
        subprocess.run,
        command,
        stdin=elsewhere.get("stdin", terminal),
        stderr=elsewhere.get("stderr", terminal),
        stdout=subprocess.PIPE,
        timeout=3 * WAIT_S,
        check=False,
    )
    os.close(terminal)
    os.close(person)
    assert (process.returncode, await harness.state(win)) == (2, "exhausted")
    code, _, stderr = await person_cli.run("retry", "--operator", OPERATOR)
    assert (code, "without a terminal it needs --yes" in stderr) == (2, True)
    assert (await person_cli.run("retry", "--operator", OPERATOR, "--yes"))[0] == 0
    assert await harness.state(win) == "ready"


async def test_the_support_role_has_no_right_to_retry(harness: Harness, tmp_path: Path, database: Database) -> None:
    win = await in_review(harness, "b1")
    code, stdout, stderr = await command_line_for(tmp_path, database.support).run("retry", str(win))
    assert (code, stdout) == (1, "")
    assert "permission denied for function retry_callback" in stderr
    assert await harness.state(win) == "exhausted"


async def test_a_retried_settlement_is_sent_with_the_same_bytes(tmp_path: Path, database: Database) -> None:
    """A rejection, a retry by a person, the daemon, the operator: the bet is closed."""
    async with open_environment(tmp_path, database) as environment:
        await environment.fleet.start("host-1")
        await environment.adopt("b1")
        environment.operator.refuse("PLAYER_NOT_FOUND")
        win = await environment.harness.end("BET_WIN")
        await environment.until_all_final()
        environment.operator.refuse(None)
        assert (await command_line_for(tmp_path, database.operations).run("retry", str(win)))[0] == 0

        async def is_closed() -> bool:
            return bool((await environment.harness.bet())["state"] == "closed")

        await until("the bet is closed", is_closed)
        first, second = environment.operator.sent(win)
        assert first.body == second.body
        assert [row[:2] for row in await environment.audit(win)] == [(1, "rejected"), (2, "delivered")]
        assert (environment.operator.faults, await environment.audit_faults()) == ([], [])
