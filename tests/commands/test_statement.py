"""`statement`: what finance reads, by accounting day, and the errors."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from predictu_dispatch.edge.postgres.statement_reader import open_statement_reader
from tests.support.command_line import CommandLine, command_line_for, one_line
from tests.support.harness import OPERATOR, Harness, delivered, exhausted, report, retried
from tests.support.movements import Movement, add_movements
from tests.support.postgres import Database

FILE = f"""
operator_id = "{OPERATOR}"
callback_url = "https://wallet.example.com/predictu"
[signing]
key_file = "key.pem"
[reconcile]
time_zone = "Europe/Malta"
"""
OCTOBER = ("--currency", "EUR", "--from", "2024-10-26", "--until", "2024-10-27")
PRINTED = f"""\
{OPERATOR}, EUR, 2024-10-26 to 2024-10-27 Europe/Malta
2024-10-25T22:00:00Z to 2024-10-27T23:00:00Z

day         rows    debits       wins  sales  refunds  rollbacks         net
2024-10-26     2  1,012.50       0.00   0.00     0.00       0.00   -1,012.50
2024-10-27     4      0.00  20,000.00   5.00     0.05       0.01  +20,005.06
total          6  1,012.50  20,000.00   5.00     0.05       0.01  +18,992.56

total, EUR         rows      amount
debits                2   -1,012.50
wins                  1  +20,000.00
sales                 1       +5.00
refunds               1       +0.05
rollbacks             1       +0.01
net for players       6  +18,992.56
net for the house        -18,992.56

Unknown outcome at the start, 2024-10-25T22:00:00Z: none
Unknown outcome at the end, 2024-10-27T23:00:00Z: none
"""


@pytest.fixture
def finance(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "80")
    cli = command_line_for(tmp_path, database.support)
    cli.write_operator(OPERATOR, FILE)
    return cli


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def an_october(harness: Harness) -> None:
    """Two days of Malta, the second one of 25 hours; and what is of neither."""
    await add_movements(
        harness.owner,
        [
            Movement("BET_WIN", at("2024-10-25T21:59:59.999999"), 7, "b-before"),
            Movement("BET_MAKE", at("2024-10-25T22:00:00"), 1_250, "b-1"),
            Movement("BET_MAKE", at("2024-10-26T21:59:59.999999"), 100_000, "b-2"),
            Movement("BET_WIN", at("2024-10-26T22:00:00"), 2_000_000, "b-3"),
            Movement("BET_SELL", at("2024-10-27T22:30:00"), 500, "b-4"),
            Movement("BET_REFUND", at("2024-10-27T22:59:00"), 5, "b-5"),
            Movement("BET_ROLLBACK", at("2024-10-27T22:59:59.999999"), 1, "b-6"),
            Movement("BET_WIN", at("2024-10-27T23:00:00"), 7, "b-after"),
            Movement("BET_WIN", at("2024-10-27T12:00:00"), 7, "b-dollars", currency="USD"),
        ],
    )


async def test_a_statement_has_the_sums_of_each_accounting_day_and_method(
    harness: Harness, finance: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await an_october(harness)
    assert await finance.run("statement", OPERATOR, *OCTOBER) == (0, PRINTED, "")
    # A year is as long as it has days with movements.
    year = ("--currency", "EUR", "--from", "2024-01-01", "--until", "2024-12-31")
    _, text, _ = await finance.run("statement", OPERATOR, *year)
    days = [f"2024-10-{day}" for day in (25, 26, 27, 28)]
    assert re.findall(r"^(2024\S+|total) +\d", text, re.MULTILINE) == [*days, "total"]
    assert "\n362 days without a movement are left out.\n" in text
    assert len((await finance.run_json("statement", OPERATOR, *year))[1]["days"]) == 366
    # If the methods do not fit, the days have the sum of the credits.
    monkeypatch.setenv("COLUMNS", "72")
    _, narrow, _ = await finance.run("statement", OPERATOR, *OCTOBER)
    assert "day         rows    debits    credits  net for players\n" in narrow
    assert "2024-10-27     4      0.00  20,005.06       +20,005.06\n" in narrow
    code, found = await finance.run_json("statement", OPERATOR, *OCTOBER)
    assert (code, found["is_finished"], found["time_zone"], found["day_starts"]) == (0, True, "Europe/Malta", "00:00")
    assert [(day["day"], day["debits"], day["credits"], day["net_for_house"]) for day in found["days"]] == [
        ("2024-10-26", 101_250, 0, 101_250),
        ("2024-10-27", 0, 2_000_506, -2_000_506),
    ]
    assert found["total"]["by_method"]["BET_SELL"] == {"rows": 1, "amount": 500}


async def test_an_empty_period_and_another_zone_are_printed_with_zeros(finance: CommandLine, harness: Harness) -> None:
    await an_october(harness)
    period = ("--currency", "JPY", "--from", "2024-10-26", "--until", "2024-10-26")
    code, stdout, _ = await finance.run("statement", OPERATOR, *period, "--zone", "Asia/Kolkata")
    assert code == 0
    assert "2024-10-26 Asia/Kolkata\n2024-10-25T18:30:00Z to 2024-10-26T18:30:00Z\n" in stdout
    assert re.search(r"^2024-10-26( +0){7}\ntotal( +0){7}$", stdout, re.MULTILINE)
    # This host has no file of the operator, or no configuration at all.
    (finance.folder / "operators" / f"{OPERATOR}.toml").unlink()
    _, stdout, _ = await finance.run("statement", OPERATOR, *period)
    assert f"This host has no file of {OPERATOR}: days of UTC; --zone names another zone." in stdout
    assert "2024-10-26T00:00:00Z to 2024-10-27T00:00:00Z" in stdout


@pytest.mark.parametrize(
    "days",
    [
        ("Europe/Malta", "00:00", "2024-03-30", [24, 23, 24]),
        ("Europe/Malta", "00:00", "2024-10-26", [24, 25, 24]),
        ("Australia/Lord_Howe", "00:00", "2024-04-06", [24, 24.5, 24]),
        ("Australia/Lord_Howe", "06:00", "2024-10-05", [23.5, 24, 24]),
        ("Asia/Kolkata", "05:30", "2024-10-26", [24, 24, 24]),
    ],
)
async def test_a_day_of_any_length_has_what_was_confirmed_from_its_first_moment_on(
    harness: Harness, finance: CommandLine, days: tuple[str, str, str, list[float]]
) -> None:
    zone, starts, first, hours = days
    finance.write_operator(OPERATOR, FILE.replace("Europe/Malta", zone) + f'day_starts = "{starts}"\n')
    edges = [datetime.fromisoformat(f"{first}T{starts}").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)]
    for length in hours:
        edges.append(edges[-1] + timedelta(hours=length))
    movements = [
        Movement("BET_WIN", edge + offset, 10**number, f"b-{number}-{offset.microseconds}")
        for number, edge in enumerate(edges)
        for offset in (timedelta(microseconds=-1), timedelta(0))
    ]
    await add_movements(harness.owner, movements)
    last = (datetime.fromisoformat(first) + timedelta(days=2)).date().isoformat()
    period = ("--currency", "EUR", "--from", first, "--until", last)
    _, found = await finance.run_json("statement", OPERATOR, *period)
    assert [day["credits"] for day in found["days"]] == [11, 110, 1_100]
    _, stdout, _ = await finance.run("statement", OPERATOR, *period, "--csv")
    named = [line.split(",")[1] for line in stdout.splitlines()[1:]]
    assert named == [day["day"] for day in found["days"] for _ in range(2)]


REFUSED = [
    (
        "op_none --currency EUR --from 2024-01-01 --until 2024-01-01",
        1,
        "unknown operator op_none; predictu-dispatch",
    ),
    (
        "{op} --currency EURO --from 2024-01-01 --until 2024-01-01",
        1,
        "unknown currency EURO; predictu-dispatch curr",
    ),
    (
        "{op} --currency EUR --from 2024-01-02 --until 2024-01-01",
        2,
        "--until 2024-01-01 is before --from 2024-01-02",
    ),
    ("{op} --currency EUR --from 2024-02-30 --until 2024-03-01", 2, "'2024-02-30' is no date such as 2026-11-21"),
    ("{op} --currency EUR --from 0001-01-01 --until 2024-03-01", 2, "--from 0001-01-01 is not between 2000-01-01"),
    ("{op} --currency EUR --from 2001-01-01 --until 2024-03-01", 2, "a statement covers at most 3,660 days"),
    (
        "{op} --currency EUR --from 2999-01-01 --until 2999-01-01",
        2,
        "the period begins at 2998-12-31T23:00:00Z, in the",
    ),
    (
        "{op} --currency EUR --from 2024-01-01 --until 2024-01-01 --zone Malta",
        2,
        "'Malta' is not \"UTC\" or an IANA",
    ),
    ("{op} --currency EUR --from 2024-01-01 --until 2024-01-01 --csv --json", 2, "give --json or --csv, not both"),
    ("{op} --from 2024-01-01 --until 2024-01-01", 2, "Missing option '--currency'"),
]
"""A command line, its exit code, and its message."""


@pytest.mark.usefixtures("harness")
async def test_what_can_be_no_statement_is_refused(finance: CommandLine) -> None:
    for arguments, code, message in REFUSED:
        found, stdout, stderr = await finance.run("statement", *arguments.format(op=OPERATOR).split())
        assert (found, stdout) == (code, ""), arguments
        assert message in one_line(stderr), arguments


async def test_a_period_that_retention_has_touched_is_refused_and_says_where_to_begin(
    harness: Harness, finance: CommandLine
) -> None:
    await harness.owner.execute("insert into predictu_dispatch.removed_history values ('2024-10-01T00:00Z')")
    period = ("--currency", "EUR", "--from", "2024-10-01", "--until", "2024-10-31")
    # The day begins two hours before the cutoff.
    code, stdout, stderr = await finance.run("statement", OPERATOR, *period)
    assert (code, stdout) == (1, "")
    assert stderr == (
        "the period begins at 2024-09-30T22:00:00Z, and retention has removed what ended before 2024-10-01T00:00:00Z\n"
        "    Begin with --from 2024-10-02 or later.\n"
    )
    assert (await finance.run("statement", OPERATOR, *period, "--zone", "UTC"))[0] == 0


async def test_unknown_outcomes_and_rollbacks_apart_are_listed_and_a_long_list_is_shortened(
    harness: Harness, finance: CommandLine
) -> None:
    for n in range(11):
        await harness.attempt(await harness.place(f"b-{n}"), exhausted)
        # Each is rolled back.
        [reversal] = await harness.rollbacks(f"b-{n}")
        lease = await harness.lease(reversal["request_id"])
        await harness.settle([delivered, _nothing_to_reverse, _unanswered, *[_not_sent] * 8][n](lease))
    confirmed = await harness.place("b-standing")
    await harness.attempt(confirmed, delivered)
    standing = await harness.rollback("b-standing")
    assert standing is not None
    await harness.attempt(standing, _nothing_to_reverse)
    today = datetime.now(UTC).date()
    period = ("--currency", "EUR", "--from", f"{today - timedelta(days=1)}", "--until", f"{today}", "--zone", "UTC")
    code, stdout, _ = await finance.run("statement", OPERATOR, *period)
    assert code == 0
    assert "The period is not finished: read at " in stdout
    # Nine debits and one rollback are unknown: two of eleven debits are settled by their rollbacks.
    assert "10 callbacks, debits 45.00 EUR, credits 5.00 EUR" in one_line(stdout)
    assert "  BET_MAKE      5.00 EUR  exhausted since " in stdout
    assert "  BET_ROLLBACK  5.00 EUR  being retried since " in stdout
    for title in (
        "1 rollback of 5.00 EUR: reversed; the debit was never confirmed",
        "1 rollback of 5.00 EUR: nothing to reverse; the debit was never confirmed",
        "1 rollback of 5.00 EUR: nothing to reverse, but the debit was confirmed: it stands",
    ):
        assert f"Not in the totals: {title}" in one_line(stdout)
    assert f"    {standing}  bet b-standing  player p1\n" in stdout
    assert [line for line in stdout.splitlines() if len(line) > 80] == []
    await harness.attempt(await harness.place("b-more"), exhausted)
    _, stdout, _ = await finance.run("statement", OPERATOR, *period)
    assert "  … and 1 more; --csv prints all\n" in stdout
    _, found = await finance.run_json("statement", OPERATOR, *period)
    assert (found["closing"]["rows"], len(found["closing"]["callbacks"])) == (11, 11)
    assert found["apart"]["debit_standing"]["callbacks"][0]["request_id"] == str(standing)
    assert found["total"] == {**found["total"], "rows": 1, "debits": 500, "credits": 0}
    kinds = [
        line.split(",")[0] for line in (await finance.run("statement", OPERATOR, *period, "--csv"))[1].splitlines()
    ]
    assert kinds == [
        "kind",
        "movement",
        "unconfirmed_rollback",
        "nothing_to_reverse",
        "debit_standing",
        *["closing"] * 11,
    ]


def _unanswered(lease: Any) -> Any:
    return retried(lease, evidence="unanswered", reason="timeout", due_in_s=3e8)


def _not_sent(lease: Any) -> Any:
    return report(lease, state="ready", verdict="retry", evidence="not_sent", reason="connect_refused", due_in_s=3e8)


def _nothing_to_reverse(lease: Any, **fields: Any) -> Any:
    return report(lease, state="delivered", verdict="delivered", state_reason="nothing_to_reverse", **fields)


async def test_an_amount_that_cannot_be_read_is_in_no_sum_and_fails_the_statement(
    harness: Harness, finance: CommandLine
) -> None:
    [damaged] = await add_movements(harness.owner, [Movement("BET_WIN", at("2024-10-26T12:00:00"), 7, "b-1")])
    # Damage is nothing that triggers see.
    await harness.owner.execute("alter table predictu_dispatch.callback disable trigger all")
    await harness.owner.execute(
        "update predictu_dispatch.callback set params = jsonb_set(params, '{amount}', '[]') where request_id = $1",
        damaged,
    )
    code, stdout, stderr = await finance.run("statement", OPERATOR, *OCTOBER)
    assert (code, stderr.splitlines()[0]) == (1, "1 amount cannot be read and is in no sum")
    assert re.search(r"^wins +1 +0\.00$", stdout, re.MULTILINE)
    code, stdout, _ = await finance.run("statement", OPERATOR, *OCTOBER, "--csv")
    assert (code, stdout.splitlines()[1].split(",")[8:10]) == (1, ["", ""])


async def test_rows_and_totals_are_of_one_moment(harness: Harness, database: Database) -> None:
    edges = [at("2024-10-26"), at("2024-10-27")]
    await add_movements(harness.owner, [Movement("BET_WIN", edges[0], 1, "b-1")])
    async with open_statement_reader(database.auditor, application_name="test") as reader:
        [totals] = await reader.fetch("statement_totals", OPERATOR, "EUR", edges)
        await add_movements(harness.owner, [Movement("BET_WIN", edges[0], 2, "b-2")])
        rows = [row async for batch in reader.rows("statement_movements", OPERATOR, "EUR", *edges) for row in batch]
        assert (totals["movements"], totals["amount"], [row["amount"] for row in rows]) == (1, 1, [1])
        assert len(await reader.fetch("statement_totals", OPERATOR, "EUR", edges)) == 1
