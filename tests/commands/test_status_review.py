"""The review list of `status`: by cause, with money, what fits the terminal, and all with --all."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from tests.commands.test_status import run_daemon
from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import until
from tests.support.harness import Harness, delivered, rejected
from tests.support.postgres import Database
from tests.support.terminal import terminal

pytestmark = pytest.mark.usefixtures("long_heartbeat_timeout")
RUNBOOK = Path(__file__).parents[2] / "deploy" / "runbook.md"
LONGEST = "o" * 64


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> CommandLine:
    return command_line_for(tmp_path, database.support)


async def review_many(harness: Harness, number: int) -> None:
    """Wins that one operator rejected, the first of an enormous amount, and some never sent."""
    await harness.daemon.execute(query("sync_operators"), [LONGEST], [True], [15.0], [0.0], ["f"])
    await harness.owner.execute(
        "insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount,"
        "                                   placement_request_id, terminal_request_id)"
        " select $1, 'b' || n, 'closing', 'p' || n, case when n % 3 = 0 then 'JPY' else 'EUR' end, 5,"
        "        gen_random_uuid(), gen_random_uuid() from generate_series(1, $2::int) n",
        *(LONGEST, number),
    )
    await harness.owner.execute(
        "insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, reason,"
        "                     operator_status, effect, attempts, params, review_since, finished_at)"
        " select b.operator_id, b.terminal_request_id, 'BET_WIN', b.bet_id, 'settlement',"
        "        case when n > 10 then 'rejected' else 'exhausted' end,"
        "        case when n > 10 then 'player_blocked' else 'max_attempts' end,"
        "        case when n > 10 then 'PLAYER_BLOCKED' end, 'none', 1,"
        "        jsonb_build_object('player_id', b.player_id, 'currency', b.currency, 'bet_id', b.bet_id,"
        "                           'amount', case when n = 11 then 123456789012345678 else 1250 end),"
        "        now() - interval '1 h' + n * interval '1 s', now()"
        "   from predictu_dispatch.bet b, lateral (select substring(b.bet_id from 2)::int) as numbered (n)"
        "  where b.operator_id = $1",
        LONGEST,
    )


async def test_what_needs_review_is_listed_after_the_daemons(harness: Harness, desk: CommandLine) -> None:
    await harness.attempt(await harness.place(), delivered)
    win = await harness.end("BET_WIN")
    assert "nothing needs review" in (await desk.run("status"))[1]
    await harness.attempt(win, rejected, operator_status="PLAYER_NOT_FOUND")
    text = (await desk.run("status"))[1]
    assert text.index("no daemon is running") < text.index("1 callback needs review") < text.index(str(win))
    assert "PLAYER_NOT_FOUND" in text
    assert max(map(len, text.splitlines())) <= 80
    [review] = json.loads((await desk.run("status", "--json"))[1])["needs_review"]
    assert review["request_id"] == str(win)


async def test_many_reviews_of_one_cause_are_one_entry_with_their_sums(harness: Harness, desk: CommandLine) -> None:
    await review_many(harness, 300)
    listed = json.loads((await desk.run("status", "--json"))[1])
    assert (listed["totals"]["needs_review"], len(listed["needs_review"])) == (300, 20)
    assert len(json.loads((await desk.run("status", "--json", "--all"))[1])["needs_review"]) == 300
    first, second = listed["groups"]["needs_review"]
    assert (first["callbacks"], first["operator_id"], first["method"]) == (290, LONGEST, "BET_WIN")
    assert first["reason_code"] == "player_blocked"
    euros, yen = sorted(first["amounts"], key=lambda one: one["currency"])
    assert (euros["currency"], euros["minor_digits"]) == ("EUR", 2)
    assert (yen["currency"], yen["minor_digits"]) == ("JPY", 0)
    assert euros["amount"] == 123456789012345678 + 192 * 1250
    assert second["callbacks"] == 10
    [line] = [line for line in RUNBOOK.read_text(encoding="utf-8").splitlines() if "status --json | jq" in line]
    program = line.partition("jq -c '")[2].removesuffix("'")
    # As jq evaluates it, and by jq itself where it is installed.
    names = re.fullmatch(r"\.groups\.needs_review\[\] \| \[\.(.*)\]", program)
    assert names is not None
    rows = [[group[name] for name in names[1].split(", .")] for group in (first, second)]
    assert [row[-1] for row in rows] == [290, 10]
    if jq := shutil.which("jq"):
        made = await asyncio.to_thread(
            subprocess.run, [jq, "-c", program], input=json.dumps(listed), capture_output=True, text=True, check=True
        )
        assert [json.loads(row) for row in made.stdout.splitlines()] == rows


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (40, 120)])
async def test_a_terminal_gets_what_fits_and_learns_how_many_more_there_are(
    harness: Harness, desk: CommandLine, rows: int, columns: int
) -> None:
    await review_many(harness, 300)
    await run_daemon(harness.owner, "host-1", LONGEST, slots=8)
    with terminal(desk, "status", rows=rows, columns=columns) as screen:
        await until(
            "the screen is complete", lambda: screen.process.poll() is not None and screen.shows("status --all")
        )
        lines = screen.text.splitlines()
    assert len(lines) <= rows
    # Only the id itself may be wider than what is left of a line.
    assert [line for line in lines if len(line) > columns] == []
    text = " ".join(" ".join(lines).split())
    assert "300 callbacks need review, of 2 causes:" in text
    assert "290 callbacks, 1,234,567,890,125,856.78 EUR, 121,250 JPY" in text
    assert LONGEST in text
    left = re.search(r"… and .*?(\d+) callbacks not listed by id; to list all: predictu-dispatch status --all$", text)
    assert left is not None
    shown = re.findall(r"[0-9a-f-]{36}, [\d.,]+ (?:EUR|JPY), player p\d+, bet b\d+", text)
    assert int(left[1]) + len(shown) == 300
    everything = " ".join((await desk.run("status", "--all"))[1].split())
    assert len(re.findall(r"player p\d+", everything)) == 300
    assert "not listed by id" not in everything
