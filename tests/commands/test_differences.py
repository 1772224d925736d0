"""`reconcile list`, `show`, `explain` and `accept`: what people do with differences."""

import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from predictu_dispatch.commands.advice import on_difference
from predictu_dispatch.core.difference_classes import TABLE, Kind
from predictu_dispatch.edge.postgres.reconciliation_store import open_reconciliation_store
from tests.commands.test_hostile_text import HOSTILE, obeyed
from tests.support.command_line import CommandLine, command_line_for, one_line
from tests.support.differences import ALICE, BOB, DAY, accept, explain, finished_run, item, open_items
from tests.support.disputes import BET, Disputes, bundle_of, content_of, proved, sealed, verified
from tests.support.harness import DISABLED, OPERATOR, Harness, connected, delivered, placement_params, retried
from tests.support.interventions import recorded_interventions
from tests.support.postgres import Database
from tests.support.witnesses import LOG_VKEY

BOOKED = {
    "source": 0,
    "line": 88,
    "booked_at": "2026-11-21T10:00:05.123+00:00",
    "transaction_id": "t-88",
    "request_id": None,
    "method": "BET_WIN",
    "bet_id": "b-9",
    "player_id": "p-9",
    "currency": "EUR",
    "amount": 2500,
}
SOURCES = json.dumps([{"name": "ledger-20261121.csv", "sha256": "ab" * 32}])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A confirmed win that is missing there, and a booking that is missing here."""

    alice: CommandLine
    bob: CommandLine
    win: uuid.UUID
    missing_there: str
    missing_here: str
    run_id: str


@pytest.fixture
async def scene(harness: Harness, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("COLUMNS", "80")
    people = []
    for name, login in (("alice", database.reconciler), ("bob", database.second_reconciler)):
        (tmp_path / name).mkdir()
        people.append(command_line_for(tmp_path / name, login))
    await harness.attempt(await harness.place("b1"), delivered)
    win = await harness.end("BET_WIN", "b1")
    await harness.attempt(win, retried, error="reset", reason="reset")
    await harness.attempt(
        win, delivered, operator_transaction_id="t-7", response_body=b'{"status": "OK"}', response_status=200
    )
    there = item(f"request:{win}", request_id=win, bet_id="b1", player_id="p1")
    here = item(
        "transaction:t-88",
        "missing_here",
        bet_id="b-9",
        player_id="p-9",
        amounts=[{"currency": "EUR", "day": str(DAY), "ours": 0, "theirs": 2500}],
        lines=[BOOKED],
        disputed=2500,
    )
    run_id = await finished_run(harness.owner, there, here, sources=SOURCES, lines_read=7)
    return Scene(
        alice=people[0],
        bob=people[1],
        win=win,
        missing_there=str(there["item_id"]),
        missing_here=str(here["item_id"]),
        run_id=str(run_id),
    )


async def test_the_list_has_what_is_open_with_its_money_and_what_was_said(harness: Harness, scene: Scene) -> None:
    await finished_run(harness.owner, item("line:1", "ours", currency="JPY", ours=12), operator_id=DISABLED)
    assert (await scene.alice.run("reconcile", "explain", scene.missing_there, "--reason", "ticket 7", "--by", ALICE))[
        0
    ] == 0
    code, stdout, stderr = await scene.bob.run("reconcile", "list")
    assert (code, stderr) == (0, "")
    assert max(map(len, stdout.splitlines())) <= 80
    lines = stdout.splitlines()
    assert lines[0] == f"{OPERATOR}: 2 open differences, 37.50 EUR"
    assert lines[1].strip() == f"{scene.missing_here}  {DAY}  25.00 EUR"
    text = one_line(stdout)
    assert f"missing there: BET_WIN {scene.win} of bet b1, player p1 explained by {ALICE} at " in text
    assert ": ticket 7 " in text
    assert f"{DISABLED}: 1 open difference, 12 JPY" in text
    code, output = await scene.bob.run_json("reconcile", "list", OPERATOR, "--class", "missing_here")
    [row] = output["differences"]
    assert (code, row["item_id"], row["disputed"], row["said_action"]) == (0, scene.missing_here, 2500, None)
    assert output["open"] == [
        {"operator_id": OPERATOR, "currency": "EUR", "minor_digits": 2, "differences": 1, "disputed": 2500}
    ]
    assert output["unlisted"] == []
    await harness.owner.execute(
        "insert into predictu_dispatch.reconciliation_total"
        " values ($1, $2, 'missing_there', 'EUR', $3, 10003, 10003, 0, 0, 0, 0, 0)",
        *(OPERATOR, scene.run_id, DAY),
    )
    for arguments, code, phrase in (
        (("--class", "missing_here"), 0, f"{OPERATOR}: 1 open difference of class missing here, 25.00 EUR"),
        (("--class", "booked_twice"), 0, "no open differences of class booked twice"),
        (("op_new",), 1, "unknown operator op_new"),
        (("--class", "agreed"), 2, "'agreed' is not one of"),
        (("--runs", "--all"), 2, "--runs lists runs"),
        (("--class", "missing_there"), 0, "and 3 more of missing there, which are not in this list and its sums"),
        (("--limit", "1"), 0, "1 are shown, and there are more; give a larger --limit"),
    ):
        given, stdout, stderr = await scene.bob.run("reconcile", "list", *arguments)
        assert (given, phrase in one_line(stdout + stderr)) == (code, True), stdout + stderr


async def test_one_explains_and_another_login_accepts(harness: Harness, scene: Scene, database: Database) -> None:
    async def run(person: CommandLine, verb: str, by: str, *more: str) -> tuple[int, str]:
        code, stdout, stderr = await person.run(
            "reconcile", verb, scene.missing_there, *more, "--reason", "their import failed", "--by", by
        )
        return code, one_line(stdout + stderr)

    for person, verb, by, expected, phrase in (
        (
            scene.bob,
            "accept",
            BOB,
            1,
            f"nobody has explained it To explain it: predictu-dispatch reconcile explain {scene.missing_there}",
        ),
        (
            scene.alice,
            "explain",
            ALICE,
            0,
            f"missing there, BET_WIN {scene.win} of bet b1: difference {scene.missing_there} is explained",
        ),
        (scene.alice, "accept", BOB, 1, "database login test_reconciler has explained it"),
        (scene.alice, "explain", ALICE, 0, "is explained"),
        (scene.bob, "accept", BOB, 0, f"difference {scene.missing_there} is accepted"),
        (scene.bob, "accept", BOB, 1, f"{BOB} accepted it at "),
        (scene.alice, "explain", ALICE, 1, f"{BOB} accepted it at "),
    ):
        code, text = await run(person, verb, by)
        assert (code, phrase in text) == (expected, True), text
    assert [row[0] for row in await recorded_interventions(harness)] == ["explain", "explain", "accept"]
    assert {str(one) for one in await open_items(harness.owner)} == {scene.missing_here}
    _, stdout, _ = await scene.bob.run("reconcile", "list", "--all")
    # Its run may be gone.
    named = f"missing there: BET_WIN {scene.win} of bet b1, player p1 accepted by {BOB} at "
    assert named in one_line(stdout)
    assert scene.missing_there not in (await scene.bob.run("reconcile", "list"))[1]
    # The rest of a batch is done.
    unknown = str(uuid.uuid4())
    code, output = await scene.alice.run_json("reconcile", "explain", unknown, scene.missing_here, "--reason", "x")
    assert (code, [(row["item_id"], row["disputed"]) for row in output["done"]]) == (1, [(scene.missing_here, 2500)])
    assert [(row["item_id"], row["message"]) for row in output["refused"]] == [(unknown, f"no difference {unknown}")]
    code, _, stderr = await scene.alice.run("reconcile", "accept", scene.missing_here[:8], "--reason", "x")
    assert (code, "takes whole ids only" in one_line(stderr)) == (2, True)
    # The other commands name the difference.
    support = command_line_for(scene.alice.folder, database.support)
    text = one_line((await support.run("interventions"))[1])
    named = f"difference {scene.missing_there} (missing_there)".replace("missing_there)", "missing there)")
    assert f"accepted {named} of operator {OPERATOR}, bet b1 by {BOB} (database role test_second_reconciler" in text
    assert "state explained → accepted" in text
    assert f"explained {named} by {ALICE}" in one_line((await support.run("show", str(scene.win)))[1])
    assert (await support.run("interventions", "--action", "accept", "--bet", "b1"))[1].count("accepted") == 2
    code, stdout, _ = await support.run("why", str(scene.win))
    assert (code, "explained" in stdout) == (0, False)


async def test_show_has_both_sides_the_history_and_what_to_do(harness: Harness, scene: Scene) -> None:
    code, stdout, stderr = await scene.bob.run("reconcile", "show", scene.missing_there[:13])
    assert (code, stderr) == (0, "")
    assert max(map(len, stdout.splitlines())) <= 80
    text = one_line(stdout)
    for phrase in (
        f"missing there: BET_WIN {scene.win} of bet b1 of operator {OPERATOR}: confirmed to us, not in their ledger.",
        "What to do: Send the operator its own confirmation",
        f"predictu-dispatch reconcile explain {scene.missing_there} --reason TEXT",
        "state open",
        "disputed 12.50 EUR",
        f"{DAY} EUR +12.50 0.00 -12.50",
        "attempt 1 by host-1 at",
        'HTTP 200 {"status": "OK"}',
        "no line is about it",
    ):
        assert phrase in text, (phrase, text)
    await scene.alice.run("reconcile", "explain", scene.missing_here, "--reason", "of another system", "--by", ALICE)
    text = one_line((await scene.bob.run("reconcile", "show", scene.missing_here))[1])
    for phrase in (
        "ledger-20261121.csv, line 88: BET_WIN, +25.00 EUR, booked 2026-11-21T10:00:05.123Z transaction t-88, bet b-9,",
        "state open, explained",
        "no callback was matched to it",
        f"predictu-dispatch reconcile accept {scene.missing_here} --reason TEXT",
        f"explained difference {scene.missing_here} (missing here) by {ALICE} (database role test_reconciler",
        "reason: of another system",
    ):
        assert phrase in text, (phrase, text)
    code, output = await scene.bob.run_json("reconcile", "show", scene.missing_here)
    [line] = output["difference"]["lines"]
    assert (line["source"], line["booked_at"]) == ("ledger-20261121.csv", "2026-11-21T10:00:05.123Z")
    assert [row["action"] for row in output["history"]] == ["explain"]
    booked_again = item("transaction:t-9", "booked_twice", disputed=600)
    later = await finished_run(harness.owner, item("request:9", "in_flight"), booked_again)
    assert "the first booking shows the outcome" not in text
    in_flight = str(item("request:9", "in_flight")["item_id"])
    assert "state not decided: it is not final" in one_line((await scene.bob.run("reconcile", "show", in_flight))[1])
    text = one_line((await scene.bob.run("reconcile", "show", str(booked_again["item_id"])))[1])
    assert "disputed 6.00 EUR the first booking shows the outcome, which was unknown here" in text
    text = one_line((await scene.bob.run("reconcile", "show", scene.missing_here))[1])
    assert f"state closed by run {later}" in text
    assert "What to do: nothing, it is not open." in text
    missing, ours = item("request:8"), item("request:8", "ours")
    await finished_run(harness.owner, missing, ours, is_complete=False, lines_read=3, lines_unreadable=1)
    for one, is_named in ((missing, True), (ours, False)):
        text = (await scene.bob.run("reconcile", "show", str(one["item_id"])))[1]
        assert ("The run could not read 1 line" in text) is is_named, text


async def test_show_takes_any_beginning_that_is_not_ambiguous(harness: Harness, scene: Scene) -> None:
    same = [item(f"line:{n}") | {"item_id": uuid.UUID(f"abcd000{n}-0000-4000-8000-000000000000")} for n in (1, 2)]
    await finished_run(harness.owner, *same, first=DAY + timedelta(days=1))
    for words, code, phrase in (
        (("abcd",), 1, "2 differences and runs begin with abcd; give more digits, or one of these ids:"),
        (("abcd0001",), 0, "missing there"),
        (("abcd0001", "--operator", DISABLED), 1, f"no difference or run of operator {DISABLED} begins with abcd0001"),
        (("0123456",), 1, "no difference or run begins with 01234"),
        ((str(scene.win),), 1, f" If it is a REQUEST_ID: predictu-dispatch show {scene.win}"),
        (("x",), 2, "not a valid UUID"),
        (("abc",), 2, "give at least 4 hex digits of the id"),
    ):
        given, stdout, stderr = await scene.bob.run("reconcile", "show", *words)
        assert (given, phrase in one_line(stdout + stderr)) == (code, True), stdout + stderr


async def test_a_rollback_booked_without_its_debit_is_no_wrong_amount(harness: Harness, scene: Scene) -> None:
    await harness.attempt(await harness.place("b2"), delivered)
    request_id = await harness.rollback("b2")
    for booked, phrase in ((500, "ask the operator for its booking of the debit"), (600, "the amount that we sent")):
        line = {**BOOKED, "method": "BET_ROLLBACK", "amount": booked}
        difference = item(
            f"{booked}", "amount_differs", request_id=request_id, method="BET_ROLLBACK", ours=0, lines=[line]
        )
        await finished_run(harness.owner, difference)
        text = one_line((await scene.bob.run("reconcile", "show", str(difference["item_id"])))[1])
        assert phrase in text, text


async def test_a_contradiction_says_which_values_differ(harness: Harness, scene: Scene, database: Database) -> None:
    body = {"method": "BET_MAKE", "params": placement_params("b2") | {"amount": 900, "player_id": f"p-{'9' * 60}"}}
    request_id = await harness.place("b2")
    await harness.attempt(request_id, delivered, request_body=json.dumps(body))
    one = item(f"request:{request_id}", "ours", request_id=request_id, method="BET_MAKE", bet_id="b2")
    await finished_run(harness.owner, one)
    for login in (database.support, database.auditor, database.operations, database.reconciler):
        cli = command_line_for(scene.alice.folder, login)
        code, stdout, stderr = await cli.run("reconcile", "show", str(one["item_id"]))
        assert (code, stderr, max(map(len, stdout.splitlines())) <= 80) == (0, "", True)
        text = one_line(stdout)
        assert "amount: 5.00 EUR in the callback, 9.00 EUR in the request of attempt 1" in text, text
        assert f"player: p1 in the callback, p-{'9' * 60} in the request of attempt 1" in text


async def test_a_callback_and_a_bet_say_that_they_have_an_open_difference(
    harness: Harness, scene: Scene, database: Database
) -> None:
    line = f"An open difference (missing there): predictu-dispatch reconcile show {scene.missing_there}"
    for login in (database.support, database.operations, database.auditor, database.dispatcher, database.reconciler):
        cli = command_line_for(scene.alice.folder, login)
        for words in (("show", str(scene.win)), ("show", "--bet", OPERATOR, "b1")):
            code, stdout, stderr = await cli.run(*words)
            assert (code, line in one_line(stdout)) == (0, True), stdout + stderr
    support = command_line_for(scene.alice.folder, database.support)
    code, output = await support.run_json("show", str(scene.win))
    assert output["differences"] == [{"item_id": scene.missing_there, "class": "missing_there"}]
    await finished_run(harness.owner)
    assert line not in one_line((await support.run("show", str(scene.win)))[1])


async def test_hostile_text_is_shown_and_never_obeyed(harness: Harness, scene: Scene) -> None:
    """Of a ledger, a producer and a person."""
    named = {name: f"{name} {HOSTILE}" for name in ("transaction_id", "bet_id", "player_id", "method")}
    difference = item(f"line:{HOSTILE}", "missing_here", **named, lines=[{**BOOKED, **named}])
    sources = json.dumps([{"name": f"file {HOSTILE}"}])
    await finished_run(
        harness.owner, difference, first=DAY + timedelta(days=1), sources=sources, done_by=f"ann {HOSTILE}"
    )
    harmful = difference | {"day": DAY + timedelta(days=1)}
    await finished_run(harness.owner, harmful, first=DAY + timedelta(days=1), sources=sources)
    item_id = str(difference["item_id"])
    shown = ""
    for code, words in (
        (0, ("explain", item_id, "--reason", HOSTILE, "--by", f"ann {HOSTILE}")),
        (1, ("accept", item_id, "--reason", HOSTILE)),
        (0, ("list",)),
        (0, ("list", "--runs")),
        (0, ("show", item_id)),
        (0, ("show", item_id, "--json")),
        (2, ("show", HOSTILE)),
        (1, ("list", HOSTILE)),
        (1, ("show", item_id, "--operator", HOSTILE)),
    ):
        given, stdout, stderr = await scene.alice.run("reconcile", *words)
        assert given == code, stdout + stderr
        assert obeyed(stdout + stderr) == [], words
        shown += stdout
    assert "\\x1b[31337m" in shown


async def test_the_list_of_runs_says_who_ran_them_and_what_they_changed(harness: Harness, scene: Scene) -> None:
    await finished_run(harness.owner, is_complete=False, lines_read=3, lines_unreadable=4, last=DAY + timedelta(days=1))
    code, stdout, _ = await scene.bob.run("reconcile", "list", OPERATOR)
    named = rf"The newest run, [-0-9a-f]+ of {DAY} to {DAY + timedelta(days=1)}, is not complete: 4 unreadable lines\. "
    assert (code, bool(re.match(named, one_line(stdout)))) == (0, True), stdout
    code, stdout, _ = await scene.bob.run("reconcile", "list", DISABLED)
    begin = f"predictu-dispatch reconcile {DISABLED} --last 1 FILE"
    never = f"{DISABLED} has not been reconciled: no run has finished. To begin: {begin}"
    assert (code, one_line(stdout)) == (0, never)
    code, stdout, _ = await scene.bob.run("reconcile", "list", OPERATOR, "--runs")
    newest, oldest = re.findall(r"(?ms)^\S.*?(?=^\S)", stdout)
    assert code == 0
    assert f"{OPERATOR}, {DAY} to {DAY + timedelta(days=1)} UTC" in newest
    assert (
        # What has a line stays open, because the run could not read all.
        "opened 0 and closed 1 difference; 0 of its differences are open; not complete: 4 unreadable lines"
        in one_line(newest)
    )
    assert oldest.startswith(scene.run_id)
    assert f"by {ALICE} (database role " in one_line(oldest)
    assert "7 lines read, opened 2 and closed 0 differences" in one_line(oldest)
    code, output = await scene.bob.run_json("reconcile", "list", "--runs", "--limit", "1")
    assert [(row["opened"], row["closed"]) for row in output["runs"]] == [(0, 1)]


OPERATOR_FILE = f"""
operator_id = "{OPERATOR}"
callback_url = "https://wallet.example.com/predictu"
[signing]
key_file = "none.pem"
[reconcile]
settle_s = 0
"""


async def test_a_run_is_shown_again_and_an_accepted_difference_fails_it_no_more(
    harness: Harness, scene: Scene, database: Database, tmp_path: Path
) -> None:
    """With a real run: two confirmed callbacks are missing in a ledger with one line."""
    for person in (scene.alice, scene.bob):
        person.write_operator(OPERATOR, OPERATOR_FILE)
    today = await harness.owner.fetchval("select (now() at time zone 'UTC')::date")
    (ledger := tmp_path / "ledger.csv").write_text(
        f"booked_at,amount,currency,request_id\nyesterday,1,EUR,\n{today}T00:00:00Z,1,EUR,{uuid.uuid4()}\n"
    )
    period = ("--from", str(today - timedelta(days=1)), "--until", str(today))
    run = ("reconcile", OPERATOR, *period, str(ledger))
    (unread := tmp_path / "unread.csv").write_text("booked_at,amount,currency,request_id\nyesterday,1,EUR,\n")
    code, output = await scene.alice.run_json(*run[:-1], str(unread))
    # The callbacks are not missing there: nothing was given.
    assert (code, output["open_differences"], {one["class"] for one in output["totals"]}) == (1, 0, {"in_flight"})
    code, report, stderr = await scene.bob.run("reconcile", "show", output["run_id"])
    assert (code, "EUR: " in report) == (0, False)
    assert "No line could be read, so nothing was compared, and no difference of lines was opened" in one_line(report)
    code, report, stderr = await scene.alice.run(*run, "--unreadable", "--by", ALICE)
    assert stderr == ""
    assert (code, "missing there" in report, "Not complete: 1 line could not be read." in report) == (1, True, True)
    assert "what is missing may be among the lines that could not be read" in one_line(report)
    _, output = await scene.bob.run_json("reconcile", "list", "--runs")
    run_id = output["runs"][0]["run_id"]
    code, shown, _ = await scene.bob.run("reconcile", "show", run_id[:13])
    header, again = shown.split("\n\n", 1)
    assert (code, again) == (0, report)
    digest = hashlib.sha256(ledger.read_bytes()).hexdigest()
    for phrase in (run_id, f"by {ALICE} (database role test_reconciler)", f"{digest} {ledger.name}"):
        assert phrase in one_line(header)
    code, output = await scene.bob.run_json("reconcile", "show", run_id)
    assert (code, output["run"]["is_complete"], output["run"]["done_by"]) == (0, False, ALICE)

    ledger.write_text("booked_at,amount,currency,request_id\n")
    code, report, _ = await scene.alice.run(*run)
    assert (code, "The ledger has no line, so it says that nothing was booked." in one_line(report)) == (1, True)
    _, output = await scene.alice.run_json("reconcile", "list", "--class", "missing_there")
    ids = [row["item_id"] for row in output["differences"] if row["day"] != str(DAY)]
    assert len(ids) == 2
    assert "The run could not read" not in (await scene.bob.run("reconcile", "show", ids[0]))[1]
    assert (await scene.alice.run("reconcile", "explain", *ids, "--reason", "they lost a file"))[0] == 0
    assert (await scene.bob.run("reconcile", "accept", *ids, "--reason", "paid"))[0] == 0
    code, report, stderr = await scene.alice.run(*run)
    assert (code, "2 of them accepted" in report) == (0, True), report + stderr
    await harness.owner.execute("update predictu_dispatch.reconciliation_run set finished_at = null")
    support = command_line_for(scene.alice.folder, database.support)
    for reader, words in ((scene.alice, ("show", run_id)), (support, ("list", "--runs"))):
        async with open_reconciliation_store(database.second_reconciler):
            text = one_line((await reader.run("reconcile", *words))[1])
            assert ("ended without a result, so it counts for nothing" in text, "under way" in text) == (True, False)
        async with open_reconciliation_store(database.reconciler):
            assert "under way" in one_line((await reader.run("reconcile", *words))[1])


@pytest.mark.parametrize(
    "rule", [r for r in TABLE if r.kind in (Kind.DIFFERENCE, Kind.CONTRADICTION)], ids=lambda r: r.name
)
def test_every_class_of_difference_says_what_to_do(rule: Any) -> None:
    assert on_difference(rule.name).endswith((".", "}"))
    assert "nothing to return" in on_difference(rule.name, is_rollback_without_debit=True)


async def test_a_dispute_proves_what_was_said_about_the_bets_differences(
    harness: Harness, disputes: Disputes, auditor: CommandLine, database: Database
) -> None:
    """Of a callback of ours, and of a booking that has none; the audit is intact."""
    placement, _ = await disputes.whole_bet()
    twice = item(f"request:{placement}", "booked_twice", request_id=placement, bet_id=BET)
    foreign = item("transaction:t-1", "missing_here", bet_id=BET)
    await finished_run(harness.owner, twice, foreign)
    async with connected(database.reconciler, 1) as [alice], connected(database.second_reconciler, 1) as [bob]:
        for one in (twice, foreign):
            await explain(alice, one["item_id"], "ticket 7")
        await accept(bob, twice["item_id"])
    await sealed(database)
    path = await bundle_of(auditor)
    texts = [text for text in proved(verified(path)) if text.startswith("The intervention ")]
    assert sorted(re.findall("intervention ([a-z]+) by", " ".join(texts))) == ["accept", "explain", "explain", "retry"]
    story = one_line(content_of(path, "story.txt").decode())
    assert f"accepted difference {twice['item_id']} (booked twice) by {BOB}" in story
    assert story.index("Bookings in the operator's ledger without a callback of ours:") < story.index(
        f"explained difference {foreign['item_id']} (missing here) by {ALICE}"
    )
    code, text, _ = await auditor.run("audit", "verify", "--key", LOG_VKEY)
    assert code == 0, text
