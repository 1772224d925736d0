"""What `reconcile` prints at 80 columns, and the usage that it refuses."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from predictu_dispatch.commands.reconcile.lines import as_json, print_report
from predictu_dispatch.core.difference_classes import DifferenceClass
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.reconciliation.result import Changes, DaySum, RunResult, SourceRead, Total, UnreadableLine
from tests.support.command_line import CommandLine, command_line_for, one_line
from tests.support.harness import OPERATOR, Harness
from tests.support.postgres import Database

DAY = date(2026, 11, 21)
START, END = datetime(2026, 11, 20, 23, tzinfo=UTC), datetime(2026, 11, 21, 23, tzinfo=UTC)


def total(name: str, items: int, rows: tuple[int, int], money: tuple[int, int, int], currency: str = "EUR") -> Total:
    ours, theirs, disputed = money
    owed = disputed if name == "debit_standing" else max(disputed + ours - theirs, 0) // 2 * bool(disputed)
    return Total(DifferenceClass(name), currency, DAY, items, *rows, *money, owed)


AGREED = total("agreed", 88_195, (88_195, 88_195), (-4_122_015, -4_122_015, 0))
FOUND = (
    total("missing_there", 3, (3, 0), (125_000, 0, 125_000)),
    total("booked_twice", 1, (1, 2), (-2_500, -5_000, 2_500)),
    total("missing_here", 1, (0, 1), (0, 1_000, 1_000)),
    total("in_flight", 12, (12, 0), (-700, 0, 0)),
)
RESULT = RunResult(
    operator_id="op_abc123",
    run_id=UUID(int=7),
    first_day=DAY,
    last_day=DAY,
    time_zone="Europe/Malta",
    day_starts=time(0),
    starts_at=START,
    ends_at=END,
    cut_at=END,
    given_from=START,
    given_until=END,
    sources=(SourceRead("ledger-20261121.csv", "0" * 64, 1, 88_214, 88_198, 12, 4),),
    unreadable=(
        UnreadableLine(0, 17, "betrag", '"1.250,00" is no decimal number such as -12.55'),
        UnreadableLine(0, 18, "", "has 3 fields; the header has 8"),
    ),
    rows_ours=88_211,
    totals=(AGREED, *FOUND),
    sums=(DaySum("EUR", DAY, -4_000_215, -4_126_015),),
    is_complete=False,
    accepted=0,
    accepted_contradictions=0,
    changes=Changes(2, 7),
    digits={"EUR": 2, "JPY": 0},
)


def printed(capsys: pytest.CaptureFixture[str], result: RunResult, *, shows_unreadable: bool = False) -> str:
    print_report(result, shows_unreadable=shows_unreadable)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_a_report_has_every_row_every_sum_and_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        printed(capsys, RESULT, shows_unreadable=True)
        == """\
op_abc123, 2026-11-21 Europe/Malta (2026-11-20 23:00 to 11-21 23:00 UTC)
ledger-20261121.csv: 88,214 lines, 88,198 read, 12 of other products, 4
    unreadable
EUR, effect on players      rows        ours      theirs  difference
agreed                    88,195  -41,220.15  -41,220.15        0.00
in flight                     12       -7.00           -       +7.00
booked twice                   1      -25.00      -50.00      -25.00  owed
missing there                  3   +1,250.00           -   -1,250.00  owed
missing here                   1           -      +10.00      +10.00  over
owed 1,275.00 EUR: the operator's ledger gives players less than it confirmed
over 10.00 EUR: the operator's ledger gives players more than it confirmed
EUR: ours -40,002.15 + differences -1,265.00 + in flight +7.00 = theirs
    -41,260.15: holds
88,211 rows of ours and 88,198 lines of theirs: each in exactly one class
5 differences, 1,285.00 EUR. New since the last run: 2; closed by it: 7.
Not complete: 4 lines could not be read.
ledger-20261121.csv, line 17, column betrag: "1.250,00" is no decimal number
    such as -12.55
ledger-20261121.csv, line 18: has 3 fields; the header has 8
and 2 more
Missing there: what is missing may be among the lines that could not be read.
Make them readable and run it again before you ask the operator.
In flight: not final here, or booked near an edge of what was given. Give the
files of the day before and of the day after too; lines of other days are only
counted.
Next: predictu-dispatch reconcile list op_abc123, then reconcile show ID
"""
    )


def test_the_first_attempt_before_the_given_ledger_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = one_line(printed(capsys, replace(RESULT, first_sent_at=START - timedelta(days=2))))
    assert "Some of it was first sent before, at 2026-11-18T23:00:00Z: only a run from that day on decides" in text
    assert "Some of it" not in printed(capsys, RESULT)


def test_bookings_of_what_was_confirmed_on_other_days_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    hint, cause = "Its sums do not cancel", "If these are many, time_zone or day_starts"
    one = Total(DifferenceClass.DAY_DIFFERS, "EUR", DAY, 1, 1, 1, 0, -2500, 0, 0)
    text = one_line(printed(capsys, replace(RESULT, totals=(*RESULT.totals, one))))
    assert (hint in text, cause in text) == (True, True)
    other = one._replace(day=DAY + timedelta(days=1), items=0, ours=-2500, theirs=0)
    text = one_line(printed(capsys, replace(RESULT, totals=(*RESULT.totals, one, other))))
    assert (hint in text, cause in text) == (False, True)
    assert cause not in one_line(printed(capsys, RESULT))


def test_a_ledger_that_lacks_more_than_it_has_asks_for_all_files(capsys: pytest.CaptureFixture[str]) -> None:
    hint = "run it again with all of them, also with those of an earlier run"
    agreed = next(total for total in RESULT.totals if total.name is DifferenceClass.AGREED)
    missing = agreed._replace(name=DifferenceClass.MISSING_THERE)
    others = tuple(total for total in RESULT.totals if total.name is not DifferenceClass.MISSING_THERE)
    readable = replace(RESULT, sources=(RESULT.sources[0]._replace(unreadable=0),), unreadable=())
    assert hint not in one_line(printed(capsys, replace(readable, totals=(*others, missing))))
    more = missing._replace(items=missing.items + 1)
    assert hint in one_line(printed(capsys, replace(readable, totals=(*others, more))))


def test_agreement_is_short_and_the_first_run_compares_with_none(capsys: pytest.CaptureFixture[str]) -> None:
    source = RESULT.sources[0]._replace(lines=88_195, read=88_195, ignored=0, unreadable=0)
    result = replace(
        RESULT,
        sources=(source,),
        unreadable=(),
        totals=(AGREED,),
        rows_ours=88_195,
        sums=(DaySum("EUR", DAY, -4_122_015, -4_122_015),),
        is_complete=True,
        changes=None,
        cut_at=END.replace(hour=15),
    )
    assert (
        printed(capsys, result)
        == """\
op_abc123, 2026-11-21 Europe/Malta (2026-11-20 23:00 to 11-21 23:00 UTC)
The period has not ended: compared up to 2026-11-21T15:00:00Z.
ledger-20261121.csv: 88,195 lines, 88,195 read
EUR, effect on players      rows        ours      theirs  difference
agreed                    88,195  -41,220.15  -41,220.15        0.00
EUR: ours -41,220.15 + differences 0.00 = theirs -41,220.15: holds
88,195 rows of ours and 88,195 lines of theirs: each in exactly one class
No difference to settle.
"""
    )
    assert result.is_settled


def test_large_amounts_take_two_lines_and_yen_have_no_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    large = 10**15
    totals = (
        total("agreed", 2_000_000, (1, 1), (-large, -large, 0)),
        total("debit_standing", 1, (1, 1), (-large, -large, 500), "JPY"),
        total("ours", 1, (1, 1), (5, 5, 5), "JPY"),
    )
    text = printed(capsys, replace(RESULT, totals=totals, sums=()))
    assert "agreed: 2,000,000\n    ours -10,000,000,000,000.00, theirs -10,000,000,000,000.00, difference 0" in text
    assert "debit standing: 1  owed\n    ours -1,000,000,000,000,000, theirs -1,000,000,0" in text
    assert "Our own records contradict each other in 1 case: a fault of Predictu" in text
    assert "1 difference, 500 JPY." in text
    accepted = replace(RESULT, totals=totals[1:], sums=(), is_complete=True, accepted=1, accepted_contradictions=1)
    assert accepted.is_settled
    assert not replace(accepted, accepted_contradictions=0).is_settled
    assert "1 difference, 500 JPY, 1 of them accepted." in printed(capsys, accepted)


def test_a_class_whose_items_compensate_each_other_is_both_owed_and_over(capsys: pytest.CaptureFixture[str]) -> None:
    totals = (
        total("missing_there", 2, (2, 0), (0, 0, 2_500)),
        total("player_differs", 1, (1, 1), (5, 5, 0)),
        total("debit_standing", 1, (1, 1), (-7, -7, 7)),
        total("missing_here", 1, (0, 1), (0, 3, 3), "JPY"),
    )
    result = replace(RESULT, totals=totals, sums=())
    text = printed(capsys, result)
    assert "missing there                2   0.00       -        0.00  owed, over\n" in text
    assert "player differs               1  +0.05   +0.05        0.00\n" in text
    assert "\nowed 12.57 EUR: the operator's ledger" in text
    assert "\nover 12.50 EUR, 3 JPY: the operator's ledger" in text
    assert (as_json(result)["owed"], as_json(result)["over"]) == ({"EUR": 1_257}, {"EUR": 1_250, "JPY": 3})


def test_the_part_of_a_difference_that_tells_an_unknown_outcome_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    twice = Total(DifferenceClass.BOOKED_TWICE, "EUR", DAY, 1, 1, 2, 0, -5_000, 2_500, 2_500)
    text = one_line(printed(capsys, replace(RESULT, totals=(twice,), sums=())))
    assert "booked twice 1 0.00 -50.00 -50.00 owed owed 25.00 EUR: the" in text
    assert "-25.00 EUR of the differences show an outcome that was unknown here: not disputed" in text
    assert "that was unknown here" not in printed(capsys, RESULT)


def test_a_class_with_more_items_than_are_listed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    totals = tuple(total("missing_here", 6_000, (0, 6_000), (0, 1, 1), currency) for currency in ("EUR", "JPY"))
    result = replace(RESULT, totals=(AGREED, *totals))
    text = one_line(printed(capsys, result))
    assert "Missing here: of 12,000 the first 10,000 are listed; the table has all. To list the others" in text
    assert as_json(result)["unlisted"] == {"missing_here": 2_000}
    assert as_json(RESULT)["unlisted"] == {}


def test_what_was_not_compared_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    source = RESULT.sources[0]._replace(without_player=1)
    assert "Not compared: the players of 1 line without a player_id." in printed(
        capsys, replace(RESULT, sources=(source,))
    )
    source = source._replace(without_player=source.read)
    text = printed(capsys, replace(RESULT, sources=(source,)))
    assert "Not compared: players, because no line names one." in text
    outside = total("out_of_window", 1, (0, source.read), (0, 0, 0))
    text = printed(capsys, replace(RESULT, totals=(outside,), sources=(source,)))
    assert "No line was booked in the period: the ledger is of other days" in text
    foreign = total("missing_here", 1, (0, source.read), (0, 7, 7))
    text = printed(capsys, replace(RESULT, totals=(foreign,), sources=(source,)))
    assert "No line is about a request of ours: the ledger is another operator's" in text


def test_a_report_has_the_first_unreadable_line_of_each_column(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [UnreadableLine(0, number, column, f"why {column}") for number in range(2, 9) for column in ("b", "a", "")]
    text = printed(
        capsys, replace(RESULT, sources=(RESULT.sources[0]._replace(unreadable=21),), unreadable=tuple(lines))
    )
    assert "could not be read.\nledger-20261121.csv, line 2: why" in text
    assert "line 2, column a: why a\nledger-20261121.csv, line 2, column b: why b\nand 18 more\n" in text


def test_a_broken_identity_and_lost_rows_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, replace(RESULT, rows_ours=9, sums=(DaySum("EUR", DAY, 1, 2),)))
    assert "does not hold on 2026-11-21" in " ".join(text.split())
    assert "9 rows of ours and 88,198 lines of theirs, but 88,211 and 88,198 in classes" in " ".join(text.split())


def test_amounts_in_another_unit_are_a_sentence_instead_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, replace(RESULT, format_fault="Every amount is 100 times ours."))
    assert "Every amount is 100 times ours.\nNot complete" in text
    assert "agreed" not in text


def test_json_has_everything() -> None:
    found = as_json(RESULT)
    assert found["ok"] is False
    assert found["open_differences"] == 5
    assert found["changes"] == {"new": 2, "closed": 7}
    assert found["lines"] == {"read": 88_198, "ignored": 12, "unreadable": 4}
    totals = found["totals"]
    assert isinstance(totals, list)
    assert (totals[1]["class"], totals[1]["difference"]) == ("missing_there", -125_000)
    assert (found["owed"], found["over"]) == ({"EUR": 127_500}, {"EUR": 1_000})


OPERATOR_FILE = f"""
operator_id = "{OPERATOR}"
callback_url = "https://wallet.example.com/predictu"
[signing]
key_file = "none.pem"
[reconcile]
time_zone = "Pacific/Auckland"
"""


@pytest.fixture
def cli(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """In the folder of the configuration."""
    monkeypatch.chdir(tmp_path)
    cli = command_line_for(tmp_path, database.reconciler)
    cli.write_operator(OPERATOR, OPERATOR_FILE)
    return cli


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("op_abc123 ledger.csv", "give --day DAY, --last N, or --from DAY and --until DAY; both days are included"),
        ("op_abc123 --day 2026-11-21 --from 2026-11-20 ledger.csv", "give --day, or --from and --until, not both"),
        ("op_abc123 --from 2026-11-21 ledger.csv", "give --day DAY, --last N, or --from DAY and --until DAY"),
        ("op_abc123 --from 2026-11-21 --until 2026-11-20 ledger.csv", "--until 2026-11-20 is before --from 2026-11-21"),
        ("op_abc123 --from 2024-01-01 --until 2026-11-20 ledger.csv", "a run covers at most 366 days"),
        ("op_abc123 --last 2 --day 2026-11-21", "give --last without --day, --from and --until"),
        ("op_abc123 --day 20261121 ledger.csv", "'20261121' is no date such as 2026-11-21"),
        ("op_abc123 --day 9999-12-31 ledger.csv", "9999-12-31 has not begun: today is"),
        ("op_abc123 --day 2026-11-21", "give the ledger as FILE, or set [reconcile] url in"),
        ("op_abc124 --day 2026-11-21 ledger.csv", "op_abc124.toml does not exist; did you mean op_abc123?"),
        ("lits", "lits.toml does not exist; did you mean `reconcile list`?"),
        ("../op --day 2026-11-21 ledger.csv", "an operator's id must be 1 to 64 characters"),
        ("op_abc123 --day 2026-11-21 missing.csv", "missing.csv: cannot be read: no such file or directory"),
        ("op_abc123 --day 2026-11-21 ledger.csv copy.csv", "has the same content as"),
        ("op_abc123 --day 2026-11-21 other.csv", 'has no column "booked_at"'),
        ("op_abc123 --day 2026-11-21 ledger.csv image.png", "image.png: line 1: is not UTF-8; nothing was compared"),
        ("op_abc123 --day 2026-11-21 .", "'.' is a directory"),
    ],
)
async def test_wrong_usage_is_exit_code_2_and_stores_no_result(
    harness: Harness, cli: CommandLine, words: str, message: str
) -> None:
    for name in ("ledger.csv", "copy.csv"):
        (cli.folder / name).write_text("booked_at,amount,currency,request_id,method\n")
    (cli.folder / "other.csv").write_text("Datum;Betrag\n")
    (cli.folder / "image.png").write_bytes(b"\x89PNG\0\0\0\0")
    code, stdout, stderr = await cli.run("reconcile", *words.split())
    assert (code, stdout) == (2, "")
    assert message in one_line(stderr)
    assert "Traceback" not in stderr
    assert (
        await harness.owner.fetchval(
            "select count(*) from predictu_dispatch.reconciliation_run where finished_at is not null"
        )
        == 0
    )


async def test_help_after_an_operator_is_the_help_of_the_verb(cli: CommandLine) -> None:
    assert await cli.run("reconcile", OPERATOR, "--help") == await cli.run("reconcile", "--help")
    assert (await cli.run("reconcile", OPERATOR, "--help"))[0] == 0


async def test_what_the_database_refuses_is_exit_code_1_with_its_reason(harness: Harness, cli: CommandLine) -> None:
    cli.write_operator("op_new", OPERATOR_FILE.replace(OPERATOR, "op_new"))
    (ledger := cli.folder / "ledger.csv").write_text("booked_at,amount,currency,request_id\n")
    code, _, stderr = await cli.run("reconcile", "op_new", "--day", "2026-11-21", str(ledger))
    assert (code, stderr) == (1, "unknown operator op_new; predictu-dispatch status lists them\n")
    await harness.owner.execute("insert into predictu_dispatch.removed_history values ('2026-01-01')")
    code, stdout, _ = await cli.run("reconcile", OPERATOR, "--day", "2025-12-31", str(ledger), "--json")
    assert code == 1
    assert "retention has removed what ended before 2026-01-01" in stdout
    cli = command_line_for(cli.folder, "postgresql://x@127.0.0.1:1/none")
    code, _, stderr = await cli.run("reconcile", OPERATOR, "--day", "2026-11-21", str(ledger))
    assert code == 3
    assert "the database can't be reached" in stderr


async def test_only_what_counts_in_accounting_days_needs_the_time_zone(cli: CommandLine) -> None:
    """A daemon reads the file also on a host without time zones; see the cases of a reload."""
    cli.write_operator(OPERATOR, OPERATOR_FILE.replace("Pacific/Auckland", "Pacific/New_Town"))
    (ledger := cli.folder / "ledger.csv").write_text("booked_at,amount,currency,request_id\n")
    create_key_file(cli.folder / "operators" / "none.pem", "EdDSA")
    for words in (
        ("check",),
        ("reconcile", OPERATOR, "--day", "2026-11-21", str(ledger)),
        ("statement", OPERATOR, "--currency", "EUR", "--from", "2026-11-21", "--until", "2026-11-21"),
    ):
        code, _, stderr = await cli.run(*words)
        assert (
            code,
            one_line(stderr).endswith(
                f'operators/{OPERATOR}.toml: reconcile.time_zone = "Pacific/New_Town": must be "UTC" or an IANA'
                ' time zone that this host knows (package tzdata), such as "Europe/Malta"'
            ),
        ) == (2, True), stderr


async def test_a_pull_that_fails_is_exit_code_1_with_the_reason(harness: Harness, cli: CommandLine) -> None:
    del harness
    text = OPERATOR_FILE.replace("none.pem", "key.pem").replace(
        "[reconcile]", '[reconcile]\nurl = "http://127.0.0.1:1/ledger?secret=7"'
    )
    text = text.replace("[signing]", "allow_insecure_http = true\nallow_private_addresses = true\n[signing]")
    cli.write_operator(OPERATOR, text)
    code, _, stderr = await cli.run("reconcile", OPERATOR, "--day", "2026-11-21")
    assert code == 2
    assert "signing.key_file" in stderr
    create_key_file(cli.folder / "operators" / "key.pem", "EdDSA")
    code, _, stderr = await cli.run("reconcile", OPERATOR, "--day", "2026-11-21")
    assert code == 1
    assert stderr.startswith("no ledger from op_abc123: connect_refused: ")
    assert "secret" not in stderr
