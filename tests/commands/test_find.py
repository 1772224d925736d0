"""Support finds a bet or a callback by whatever it has, page by page, each exactly once."""

import csv
import json
import shlex
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine, command_line_for
from tests.support.corruption import large, lose_chunks
from tests.support.harness import (
    DISABLED,
    OPERATOR,
    Harness,
    delivered,
    enqueue,
    exhausted,
    placement_params,
    terminal_params,
)
from tests.support.postgres import Database

OTHER = DISABLED


@pytest.fixture
def support(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "80")
    return command_line_for(tmp_path, database.support)


async def place(harness: Harness, bet_id: str, operator_id: str = OPERATOR, **given: Any) -> uuid.UUID:
    return await enqueue(harness.producer, "BET_MAKE", placement_params(bet_id, **given), operator_id=operator_id)


async def win(harness: Harness, bet_id: str, amount: int, **fields: Any) -> uuid.UUID:
    """A win of this amount that the operator confirmed, on a bet that was not sent yet."""
    placement = (await harness.bet(bet_id))["placement_request_id"]
    await harness.attempt(placement, delivered)
    params = {**terminal_params("BET_WIN", await harness.bet(bet_id)), "amount": amount}
    request_id = await enqueue(harness.producer, "BET_WIN", params)
    await harness.attempt(request_id, delivered, **fields)
    return request_id


async def found(support: CommandLine, *arguments: str) -> list[str]:
    """What `find` lists, as "bet method", in its order."""
    code, stdout, stderr = await support.run("find", *arguments, "--json")
    assert stderr == "", stderr
    rows = json.loads(stdout)["rows"]
    assert code == (0 if rows else 1)
    return [f"{row['bet_id']} {row['method']}" for row in rows]


async def test_a_bet_is_found_by_each_thing_that_support_may_have(harness: Harness, support: CommandLine) -> None:
    await place(harness, "b1", amount=641, player_id="p-1")
    paid = await win(harness, "b1", 569, operator_transaction_id="tx-9")
    await place(harness, "b2", amount=569, player_id="p-2", currency="USD")
    both = ["b1 BET_WIN", "b1 BET_MAKE"]
    for arguments in (
        ("--player", "p-1"),
        ("--bet", "b1"),
        ("--amount", "6.41"),
        ("--amount", "6,41 eur", "--operator", OPERATOR),
        ("--amount", "5.69 EUR"),
        ("--amount", "641 subunits"),
    ):
        assert await found(support, *arguments) == both, arguments
    assert await found(support, "--amount", "5.69") == ["b2 BET_MAKE", *both]
    assert await found(support, "--amount", "5.69 JPY") == []
    assert await found(support, "--transaction", "tx-9") == ["b1 BET_WIN"]
    assert await found(support, "--request", str(paid)[:20]) == ["b1 BET_WIN"]
    assert await found(support) == ["b2 BET_MAKE", *both]
    assert await found(support, "--method", "BET_WIN") == ["b1 BET_WIN"]
    assert await found(support, "--state", "ready", "--player", "p-2") == ["b2 BET_MAKE"]
    assert await found(support, "--player", "p-1", "--since", "2d", "--until", "1d") == []
    assert await found(support, "--operator", OTHER) == []


async def test_every_page_continues_exactly_where_the_last_one_ended(harness: Harness, support: CommandLine) -> None:
    """Also with equal times, two operators, a bet with several callbacks, and filters."""
    await harness.owner.execute("update predictu_dispatch.operator set enabled = true")
    expected = []
    for number in range(40):
        bet_id = f"b/{number} ü"
        for operator_id in (OPERATOR, OTHER):
            await place(harness, bet_id, operator_id, player_id="p-1", amount=500)
            expected.append((operator_id, bet_id, "BET_MAKE"))
        if number % 4 == 0:
            await win(harness, bet_id, 500, operator_transaction_id="tx-1")
            expected.append((OPERATOR, bet_id, "BET_WIN"))
    # Three bets of each operator have the same time.
    await harness.owner.execute(
        "update predictu_dispatch.bet set created_at = date_trunc('minute', now())"
        " - (regexp_replace(bet_id, '[^0-9]', '', 'g')::int / 3) * interval '1 second'"
    )
    for arguments in (["--player", "p-1"], [], ["--amount", "5"], ["--player", "p-1", "--method", "BET_MAKE"]):
        command, rows, pages = ["find", *arguments, "--rows", "7", "--json"], [], 0
        while command:
            code, stdout, stderr = await support.run(*command)
            assert (code, stderr) == (0, "")
            page = json.loads(stdout)
            # A bet is never split, and no page has more rows than asked for, but for one bet.
            assert 0 < len(page["rows"]) <= 7
            rows += page["rows"]
            command = shlex.split(page["next"])[1:] if page["next"] else []
            # The test's own configuration is added to each command.
            if "--config" in command:
                del command[command.index("--config") : command.index("--config") + 2]
            pages += 1
        keys = [(row["operator_id"], row["bet_id"], row["method"]) for row in rows]
        wanted = [key for key in expected if "--method" not in arguments or key[2] == "BET_MAKE"]
        if "--amount" in arguments:
            # Such a bet is found by its stake and by its payout, at the time of each.
            assert set(keys) == set(wanted)
        else:
            assert sorted(keys) == sorted(wanted)
        assert pages > 5


async def test_a_filter_without_a_hit_says_how_far_back_it_has_searched(
    harness: Harness, support: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predictu_dispatch.core.search_page.SCANNED_MAX", 10)
    for number in range(30):
        await place(harness, f"b{number}")
    code, text, _ = await support.run("find", "--state", "cancelled", "--rows", "5", "--operator", OPERATOR)
    assert code == 0
    assert "No hit: all bets of operator op_abc123 with state cancelled." in text
    tenth = (await harness.bet("b20"))["created_at"]
    assert f"Searched back to {tenth.isoformat(timespec='milliseconds')[:23]}Z. Further back:" in text
    next_command = shlex.split(text.splitlines()[-1])[1:]
    assert next_command[:-1][:5] == ["find", "--operator", OPERATOR, "--state", "cancelled"]
    assert next_command[next_command.index("--after-page") + 1].endswith("/op_abc123/b20")


@pytest.mark.parametrize(("columns", "lines_each"), [("80", 2), ("200", 1)])
async def test_a_hit_takes_two_lines_of_80_columns_or_one_of_a_wide_terminal(
    harness: Harness, support: CommandLine, monkeypatch: pytest.MonkeyPatch, columns: str, lines_each: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    await place(harness, "b1", amount=1250, player_id="p\x1b[2J1")
    request_id = await place(harness, "b2", player_id="p2")
    await harness.attempt(request_id, exhausted)
    (rollback,) = await harness.rollbacks("b2")
    await harness.attempt(rollback["request_id"], delivered, state_reason="nothing_to_reverse")
    code, text, _ = await support.run("find")
    assert code == 0
    hits, _, commands = text.partition("\n\n")
    assert max(map(len, hits.splitlines())) <= int(columns)
    assert len(hits.splitlines()) == 3 * lines_each + (columns == "200")
    for phrase in (
        "exhausted (max_attempts)",
        "12.50 EUR",
        str(request_id),
        "p\\x1b[2J1",
        "delivered (no debit)",
    ):
        assert phrase in hits
    assert commands == f"The first in detail: predictu-dispatch show --bet {OPERATOR} b2\n"


async def test_csv_has_a_header_and_decimal_amounts(harness: Harness, support: CommandLine) -> None:
    await place(harness, "b,1", amount=1250)
    await place(harness, "b2", amount=7, currency="JPY")
    code, text, stderr = await support.run("find", "--csv", "--rows", "1")
    assert code == 0
    (row,) = csv.DictReader(text.splitlines())
    assert (row["bet_id"], row["amount"], row["currency"]) == ("b2", "7", "JPY")
    command = shlex.split(stderr.splitlines()[-1])[1:]
    _, text, stderr = await support.run(*command[:-1], command[-1])
    (row,) = csv.DictReader(text.splitlines())
    assert (row["bet_id"], row["amount"], row["player_id"], stderr) == ("b,1", "12.50", "p1", "")


async def test_a_spreadsheet_reads_ids_in_csv_as_text_and_each_hit_as_one_row(
    harness: Harness, support: CommandLine
) -> None:
    ids = ["=1+1", "+1", "-2+3", "@SUM(A1)", " =1", 'Zoë "Q", x', "玩家-7", "a\nb", "p;q"]
    for number, player in enumerate(ids):
        await place(harness, f"b{number}", player_id=player)
    code, text, _ = await support.run("find", "--csv")
    assert code == 0
    shown = [row["player_id"] for row in csv.DictReader(text.splitlines())]
    assert shown == ["p;q", "a\\nb", "玩家-7", 'Zoë "Q", x', "' =1", "'@SUM(A1)", "'-2+3", "'+1", "'=1+1"]
    _, parsed = await support.run_json("find")
    assert [row["player_id"] for row in parsed["rows"]] == ids[::-1]


async def test_an_id_that_retention_removed_is_named(harness: Harness, support: CommandLine) -> None:
    request_id = await place(harness, "b1")
    await harness.owner.execute(
        "insert into predictu_dispatch.bet_tombstone (operator_id, bet_id, state) values ($1, 'old-1', 'closed')",
        OPERATOR,
    )
    await harness.owner.execute(
        "insert into predictu_dispatch.request_tombstone (operator_id, request_id, method, state)"
        " values ($1, $2, 'BET_WIN', 'delivered')",
        *(OPERATOR, uuid.UUID(int=7)),
    )
    for arguments, name in (
        (("--bet", "old-1"), f"- Bet old-1 of operator {OPERATOR} ended closed; retention removed it at 20"),
        (("--request", "00000000"), f"- BET_WIN {uuid.UUID(int=7)} of operator {OPERATOR} ended delivered; retention"),
    ):
        code, text, _ = await support.run("find", *arguments)
        assert code == 1
        assert name in " ".join(text.split())
    assert "retention removed it" not in (await support.run("find", "--request", str(request_id)))[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--player", "p", "--bet", "b"], "give one of --player, --bet"),
        (["--amount", "6.4.1"], "--amount '6.4.1' is not understood: write 6.41"),
        (["--since", "yesterday"], "--since 'yesterday' is not understood: give a time"),
        (["--since", "1h", "--until", "2h"], "is not before --until"),
        (["--method", "BALANCE"], "BALANCE has no bet: search it with --request or --transaction"),
        (["--after-page", "x"], "copy it from the last line"),
        (["--after-page", "2026-11-28T10:00:00/op/b"], "copy it from the last line"),
        (["--request", "01a2", "--since", "1h"], "--request goes without --since"),
        (["--state", "lost"], "'lost' is not one of 'waiting'"),
        (["--player", ""], "--player must have 1 to 200 characters"),
        (["--json", "--csv"], "not both"),
    ],
)
async def test_wrong_usage_is_exit_code_2_before_the_database_is_asked(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, stdout, stderr = await command_line_for(tmp_path, "postgresql://127.0.0.1:1/none").run("find", *arguments)
    assert (code, stdout) == (2, "")
    assert message in stderr


async def test_no_hit_says_what_was_searched_and_what_else_to_try(harness: Harness, support: CommandLine) -> None:
    code, text, _ = await support.run("find", "--player", "P-1", "--operator", "op_x", "--since", "3d")
    shown = " ".join(text.split())
    assert code == 1
    for phrase in (
        "No hit: player P-1 of operator op_x since 20",
        "No daemon has registered operator op_x;",
        "Leave out --since and --until",
        "capitals and leading zeros count",
        "There is no bet here.",
    ):
        assert phrase in shown
    await place(harness, "b1")
    _, text, _ = await support.run("find", "--amount", "5.55")
    assert "in EUR. - Stakes and confirmed" in " ".join(text.split())
    assert "The oldest bet here was placed at 20" in " ".join(text.split())


@pytest.mark.parametrize(
    ("index", "arguments"),
    [
        ("bet_of_player", ["--player", "p1"]),
        ("bet_placed", []),
        ("bet_of_stake", ["--amount", "5"]),
        ("callback_of_payout", ["--amount", "5"]),
        ("callback_of_transaction", ["--transaction", "t"]),
    ],
)
async def test_without_its_index_a_search_says_what_to_do(
    harness: Harness, support: CommandLine, index: str, arguments: list[str]
) -> None:
    await place(harness, "b1")
    await harness.owner.execute(
        f"update pg_index set indisvalid = false where indexrelid = 'predictu_dispatch.{index}'::regclass"  # noqa: S608 - of the test
    )
    code, stdout, stderr = await support.run("find", *arguments)
    assert (code, stdout) == (1, "")
    assert f"the index {index} is missing or not complete" in stderr
    assert "Run `predictu-dispatch migrate`" in stderr
    assert (await support.run("find", "--bet", "b1"))[0] == 0


async def test_a_payout_with_unreadable_params_is_delivered_and_hides_no_other_hit(
    harness: Harness, support: CommandLine
) -> None:
    """The index of payouts reads the params when the callback is settled."""
    await harness.attempt(await place(harness, "b1"), delivered)
    params = large(terminal_params("BET_WIN", await harness.bet("b1")))
    credit = await enqueue(harness.producer, "BET_WIN", params)
    lease = await harness.lease(credit)
    await lose_chunks(harness.owner, credit)
    await harness.settle(delivered(lease, operator_transaction_id="tx-1"))
    state = "select state from predictu_dispatch.callback where request_id = $1"
    assert await harness.owner.fetchval(state, credit) == "delivered"
    await place(harness, "b2")
    assert await found(support, "--player", "p1") == ["b2 BET_MAKE", "b1 BET_WIN", "b1 BET_MAKE"]
    assert await found(support, "--transaction", "tx-1") == ["b1 BET_WIN"]
    assert await found(support, "--amount", "5 EUR") == ["b2 BET_MAKE", "b1 BET_WIN", "b1 BET_MAKE"]


async def test_balance_is_found_by_its_request_and_its_transaction(harness: Harness, support: CommandLine) -> None:
    request_id = await enqueue(harness.producer, "BALANCE", {"player_id": "p-1", "currency": "EUR"})
    await harness.attempt(request_id, delivered, operator_transaction_id="tx-1", balance=5)
    for arguments in (["--request", str(request_id)], ["--transaction", "tx-1", "--method", "BALANCE"]):
        code, text, _ = await support.run("find", *arguments)
        assert (code, "player p-1" in text) == (0, True)
        assert f"show {request_id}" in text
