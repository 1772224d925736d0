"""`show` and `status` tell a support engineer what happened, in words, without knowing the code."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from pathlib import Path

import click
import pytest

from tests.support.command_line import command_line_for
from tests.support.harness import OPERATOR, Harness, delivered, exhausted, rejected, retried
from tests.support.postgres import Database

PLACEMENT = uuid.UUID("00000000-0000-4000-8000-000000000001")


class Desk:
    """The support desk: a person with the support role, and no operator's file anywhere near."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.config = folder / "dispatcher.toml"
        self.config.write_text(f'[database]\ndsn = "{dsn}"\n', encoding="utf-8")

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the command."""
        asked = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "predictu_dispatch", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return asked.returncode, asked.stdout, asked.stderr


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> Desk:
    return Desk(tmp_path, database.support)


async def test_show_tells_a_callbacks_life_attempt_by_attempt(harness: Harness, desk: Desk) -> None:
    placement = await harness.place(request_id=PLACEMENT)
    await harness.attempt(
        placement,
        retried,
        reason="timeout",
        evidence="unanswered",
        url="https://w.example/p",
        key_id="k1",
        total_ms=5000.0,
    )
    answer = {
        "response_status": 200,
        "response_body": b'{"status":"DUPLICATE"}\n\x1b[2J\xff\x00',
        "operator_status": "DUPLICATE",
        "operator_transaction_id": "tx-1",
        "balance": 123456,
        "instance": "host-2",
    }
    await harness.attempt(placement, delivered, **answer)
    code, said, _ = await desk.run("show", str(PLACEMENT))
    assert code == 0
    assert f"BET_MAKE {PLACEMENT} of operator {OPERATOR} is delivered" in said
    for words in (
        "it was confirmed by the operator",
        "the operator has applied it",
        "b1, open",
        "5.00 EUR",
        "status DUPLICATE, transaction tx-1, balance 1,234.56 EUR",
        "no complete answer within attempt_timeout_s",
        "to https://w.example/p, signed with key k1",
        'HTTP 200 {"status":"DUPLICATE"}\\n\\x1b[2J\\xff\\x00',
        "attempt 2 by host-2",
    ):
        assert words in said
    assert said.index("attempt 1 by host-1") < said.index("attempt 2 by host-2")

    code, said, _ = await desk.run("show", str(PLACEMENT), "--json")
    (callback,) = json.loads(said)["callbacks"]
    assert (code, callback["state"], callback["balance"]) == (0, "delivered", 123456)
    assert [(row["attempt"], row["verdict"]) for row in callback["audit"]] == [(1, "retry"), (2, "delivered")]


async def test_on_a_terminal_no_line_is_wider_than_it(
    harness: Harness, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    placement = await harness.place(request_id=PLACEMENT)
    url = "https://wallet.example.com/predictu"
    await harness.attempt(placement, exhausted, reason="address_refused", url=url, key_id="k" * 43)
    code, said, _ = await command_line_for(tmp_path, database.support).run("show", str(PLACEMENT))
    assert code == 0
    assert max(len(line) for line in click.unstyle(said).splitlines()) <= 80
    assert f"to {url}, signed with key {'k' * 43}" in " ".join(said.split())


async def test_show_tells_a_bets_whole_life_in_order(harness: Harness, desk: Desk) -> None:
    """A debit of unknown fate, its automatic rollback, and the win that must not be sent any more."""
    placement = await harness.place()
    lease = await harness.lease(placement)
    win = await harness.end("BET_WIN")
    await harness.settle(exhausted(lease))
    code, said, _ = await desk.run("show", "--bet", OPERATOR, "b1")
    (rollback,) = await harness.rollbacks()
    assert code == 0
    assert f"Bet b1 of operator {OPERATOR} is closing: its last callback is on its way." in said
    assert said.index(str(placement)) < said.index(str(win)) < said.index(str(rollback["request_id"]))
    assert "a person must look at it" in said
    assert "the placement's fate was unknown, so it is rolled back" in said


async def test_status_lists_the_backlog_and_what_needs_review_within_80_columns(harness: Harness, desk: Desk) -> None:
    placement = await harness.place()
    await harness.attempt(placement, delivered)
    win = await harness.end("BET_WIN")
    await harness.attempt(win, rejected, operator_status="PLAYER_NOT_FOUND")
    await harness.place("b2")
    code, said, _ = await desk.run("status")
    table, _, review = said.partition("needs review")
    assert code == 0
    assert max(len(line) for line in said.splitlines()) <= 80
    assert review.endswith("predictu-dispatch why REQUEST_ID\n")
    (row,) = [line.split() for line in table.splitlines() if line.startswith(OPERATOR) and "interactive" in line]
    assert row[2:5] == ["0", "1", "0"]
    assert str(win) in review
    assert "The operator refused it with PLAYER_NOT_FOUND; it is not retried by itself." in " ".join(review.split())

    said = (await desk.run("status", "--json"))[1]
    assert [row["request_id"] for row in json.loads(said)["needs_review"]] == [str(win)]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", str(uuid.UUID(int=7))], 1, f"no callback {uuid.UUID(int=7)}"),
        (["show", "--bet", OPERATOR, "b9"], 1, f"operator {OPERATOR} has no bet b9"),
        (["show", "--bet", "op_x", "b9"], 1, "unknown operator op_x; predictu-dispatch status lists them"),
        (["show", "7"], 2, "not a valid UUID"),
        (["show"], 2, "give a REQUEST_ID, or --bet OPERATOR BET_ID"),
    ],
)
@pytest.mark.usefixtures("harness")
async def test_what_is_not_there_is_said_so(desk: Desk, arguments: list[str], code: int, words: str) -> None:
    found, said, complaint = await desk.run(*arguments)
    assert (found, said) == (code, "")
    assert words in complaint


async def test_an_id_that_two_operators_have_asks_for_the_operator(harness: Harness, desk: Desk) -> None:
    await harness.owner.execute("update predictu_dispatch.operator set enabled = true")
    for operator_id in (OPERATOR, "op_off"):
        await harness.producer.execute(
            "select predictu_dispatch.enqueue_callback($1, 'PING', '{}', $2)", operator_id, PLACEMENT
        )
    code, _, complaint = await desk.run("show", str(PLACEMENT))
    assert code == 1
    assert f"--operator {OPERATOR} | op_off" in complaint
    code, said, _ = await desk.run("show", str(PLACEMENT), "--operator", "op_off")
    assert code == 0
    assert "of operator op_off" in said


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", "Connect call failed ('127.0.0.1', 1)"),
        ("postgresql:///none?host=/nowhere", "No such file or directory (the server's socket, or"),
    ],
)
async def test_a_database_that_is_away_is_exit_code_3_and_the_place_to_look(
    tmp_path: Path, dsn: str, words: str
) -> None:
    desk = Desk(tmp_path, dsn)
    code, said, complaint = await desk.run("status")
    assert (code, said) == (3, "")
    assert "the database can't be reached" in complaint
    assert words in complaint
    assert complaint.endswith(f"look at [database] dsn in {tmp_path / 'dispatcher.toml'}\n")


async def test_an_empty_database_asks_for_migrate(embedded_database: str, tmp_path: Path) -> None:
    code, _, complaint = await Desk(tmp_path, embedded_database).run("status")
    assert code == 1
    assert "predictu-dispatch migrate" in complaint


@pytest.fixture
async def embedded_database(harness: Harness, database: Database) -> str:
    """A database without our schema."""
    await harness.owner.execute("drop schema predictu_dispatch cascade")
    return database.owner
