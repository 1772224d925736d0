"""`show` explains a callback's or a bet's life to a person who does not know the code."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, command_line_for
from tests.support.corruption import large, lose_chunks
from tests.support.harness import (
    OPERATOR,
    Harness,
    claim,
    delivered,
    enqueue,
    exhausted,
    rejected,
    retried,
    terminal_params,
)
from tests.support.postgres import Database

PLACEMENT = uuid.UUID("00000000-0000-4000-8000-000000000001")
URL, KEY_ID = "https://wallet.example.com/predictu", "k" * 43


@pytest.fixture
def support(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "80")
    return command_line_for(tmp_path, database.support)


async def show(support: CommandLine, *arguments: str) -> str:
    """The text of `show` on one line, after a check that its lines fit 80 columns."""
    code, text, stderr = await support.run("show", *arguments)
    assert (code, stderr) == (0, "")
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


async def test_a_callback_is_shown_attempt_by_attempt(harness: Harness, support: CommandLine) -> None:
    placement = await harness.place(request_id=PLACEMENT)
    sent = {"url": URL, "key_id": KEY_ID}
    await harness.attempt(placement, retried, reason="timeout", evidence="unanswered", total_ms=5000.0, **sent)
    answer = {
        "response_status": 200,
        "response_body": b'{"status":"DUPLICATE"}\n\x1b[2J\xff\x00',
        "operator_status": "DUPLICATE",
        "operator_transaction_id": "tx\x1b[2J1",
        "balance": 123456,
    }
    [lease] = await claim(harness.daemon, instance="host-2")
    await harness.settle(delivered(lease, **answer))
    text = await show(support, str(PLACEMENT))
    assert text.startswith("debited 5.00 EUR at 20")
    for phrase in (
        f"Z, the bet has not ended The whole bet: predictu-dispatch show --bet {OPERATOR} b1 BET_MAKE",
        "market m1, outcome yes, odds 1.85",
        f"BET_MAKE {PLACEMENT} of operator {OPERATOR} is delivered:",
        "it was confirmed by the operator",
        "the operator has applied it",
        "b1, open",
        "5.00 EUR",
        "status DUPLICATE, transaction tx\\x1b[2J1, balance 1,234.56 EUR",
        "no complete answer within attempt_timeout_s",
        f"to {URL}, signed with key {KEY_ID}",
        'HTTP 200 {"status":"DUPLICATE"}\\n\\x1b[2J\\xff\\x00',
        "attempt 2 by host-2",
    ):
        assert phrase in text
    assert text.index("attempt 1 by host-1") < text.index("attempt 2 by host-2")

    code, text, _ = await support.run("show", str(PLACEMENT), "--json")
    shown = json.loads(text)
    assert (shown["money"]["debit"], shown["money"]["credit"]) == ("debited", "none")
    (callback,) = shown["callbacks"]
    assert (code, callback["state"], callback["balance"]) == (0, "delivered", 123456)
    assert [(row["attempt"], row["verdict"]) for row in callback["audit"]] == [(1, "retry"), (2, "delivered")]
    assert callback["params"]["amount"] == 500
    assert callback["created_at"].endswith("Z")


async def test_a_bet_is_shown_with_its_rollback_and_its_cancelled_win(harness: Harness, support: CommandLine) -> None:
    placement = await harness.place()
    lease = await harness.lease(placement)
    win = await harness.end("BET_WIN")
    await harness.settle(exhausted(lease))
    (rollback,) = await harness.rollbacks()
    text = await show(support, "--bet", OPERATOR, "b1")
    assert text.startswith("outcome unknown since 20")
    assert (
        "Z: the debit of 5.00 EUR may have been applied, being rolled back (5.00 EUR);"
        f" a cancelled BET_WIN needs manual review What to do: predictu-dispatch why {win} Bet b1" in text
    )
    assert "market m1, outcome yes, odds 1.85" in text
    assert f"Bet b1 of operator {OPERATOR} is closing: its terminal callback is not confirmed yet." in text
    assert text.index(f"BET_MAKE {placement}") < text.index(f"BET_WIN {win}") < text.index(str(rollback["request_id"]))
    assert "has needed manual review since 20" in text
    assert "the placement ended with an unknown outcome" in text


async def test_the_first_line_says_what_became_of_the_money(harness: Harness, support: CommandLine) -> None:
    """On real rows; tests/core/test_money_summary.py has every combination."""
    await harness.attempt(await harness.place("paid"), delivered)
    win = await harness.end("BET_WIN", "paid")
    assert "the win of 5.00 EUR is being sent" in await show(support, str(win))
    await harness.attempt(win, delivered)
    rolled_back = await harness.place("rolled back")
    await harness.attempt(rolled_back, exhausted)
    assert (await show(support, str(rolled_back))).startswith("outcome unknown since 20")
    (rollback,) = await harness.rollbacks("rolled back")
    await harness.attempt(rollback["request_id"], delivered, state_reason="nothing_to_reverse", effect="unknown")
    await harness.attempt(await harness.place("rejected"), rejected)
    expected = {
        "paid": r"debited 5\.00 EUR at \S+Z, paid 5\.00 EUR at \S+Z",
        "rolled back": r"never charged: the operator had no debit to return \(confirmed at \S+Z\)",
        "rejected": r"never charged: the operator answered INSUFFICIENT_FUNDS",
    }
    for bet_id, line in expected.items():
        assert re.match(rf"{line} Bet {bet_id} of", await show(support, "--bet", OPERATOR, bet_id)), bet_id


async def test_attempts_that_failed_alike_are_shown_once_and_the_next_command_is_named(
    harness: Harness, support: CommandLine
) -> None:
    placement = await harness.place("b1", request_id=PLACEMENT)
    for reason in ("timeout", *["http_500"] * 5, "timeout"):
        await harness.attempt(placement, retried, reason=reason)
    text = await show(support, str(PLACEMENT))
    assert f"What to do: predictu-dispatch why {PLACEMENT}" in text
    shown = [int(number) for number in re.findall(r" attempt (\d+) by host-1", text)]
    assert shown == [1, 2, 6, 7]
    assert "attempts 3 to 5 from 20" in text
    _, parsed = await support.run_json("show", str(PLACEMENT))
    assert len(parsed["callbacks"][0]["audit"]) == 7
    await harness.attempt(placement, delivered)
    text = await show(support, str(PLACEMENT))
    assert f"The whole bet: predictu-dispatch show --bet {OPERATOR} b1" in text
    assert "What to do" not in await show(support, "--bet", OPERATOR, "b1")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", str(uuid.UUID(int=7))], 1, f"no callback {uuid.UUID(int=7)}"),
        (["show", str(PLACEMENT), "--operator", OPERATOR], 1, f"no callback {PLACEMENT} of operator {OPERATOR}"),
        (["why", str(PLACEMENT), "--operator", "op_x"], 1, f"no callback {PLACEMENT}: unknown operator op_x;"),
        (["show", "--bet", OPERATOR, "b9"], 1, f"operator {OPERATOR} has no bet b9"),
        (["show", "--bet", "op_x", "b9"], 1, "unknown operator op_x; predictu-dispatch status lists them"),
        (["show", "7"], 2, "at least 4 hex digits of the id"),
        (["why"], 2, "Missing argument 'REQUEST_ID'"),
        (["show"], 2, "give a REQUEST_ID, or --bet OPERATOR BET_ID"),
    ],
)
@pytest.mark.usefixtures("harness")
async def test_an_unknown_id_is_an_error(support: CommandLine, arguments: list[str], code: int, message: str) -> None:
    found, stdout, stderr = await support.run(*arguments)
    assert (found, stdout) == (code, "")
    assert message in stderr


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", "Connect call failed ('127.0.0.1', 1)"),
        ("postgresql:///none?host=/nowhere", "No such file or directory (the server's socket, or"),
    ],
)
async def test_an_unavailable_database_is_exit_code_3(tmp_path: Path, dsn: str, message: str) -> None:
    for arguments in (["status"], ["retry", str(PLACEMENT)], ["pause", OPERATOR, "--reason", "x"], ["ping", OPERATOR]):
        code, stdout, stderr = await command_line_for(tmp_path, dsn).run(*arguments)
        assert (code, stdout) == (3, "")
        assert "the database can't be reached" in stderr
        assert message in stderr
        assert stderr.endswith(f"check [database] dsn in {tmp_path / 'dispatcher.toml'}\n")


async def test_a_callback_with_unreadable_params_is_settled_and_hides_no_other_one(
    harness: Harness, support: CommandLine
) -> None:
    await harness.attempt(await harness.place(), delivered)
    params = large(terminal_params("BET_WIN", await harness.bet()))
    credit = await enqueue(harness.producer, "BET_WIN", params)
    lease = await harness.lease(credit)
    await lose_chunks(harness.owner, credit)
    await harness.settle(exhausted(lease))
    assert "params cannot be read, SQLSTATE XX00" in await show(support, str(credit))
    for verb in (["status"], ["why", str(credit)], ["show", "--bet", OPERATOR, "b1"]):
        code, stdout, stderr = await support.run(*verb)
        assert (code, stderr) == (0, ""), verb
        assert "exhausted" in stdout or "review" in stdout


async def test_a_database_without_our_schema_asks_for_migrate(
    harness: Harness, database: Database, tmp_path: Path
) -> None:
    await harness.owner.execute("drop schema predictu_dispatch cascade")
    code, _, stderr = await command_line_for(tmp_path, database.owner).run("status")
    assert code == 1
    assert "predictu-dispatch migrate" in stderr
