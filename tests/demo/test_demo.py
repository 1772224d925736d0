"""The demo ends with its proof, the proof can fail, and nothing outlives the demo."""

import asyncio
import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.books_check.ledgers import OperatorLedger, PredictuLedger, read_operator, read_predictu
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.demo.figures import Figures, Progress
from predictu_dispatch.demo.fixtures import AUDIT_KEY_FILE, GOOD, OPERATORS, PLAYERS
from predictu_dispatch.demo.logs import logs_check
from predictu_dispatch.demo.paths import OBSERVED
from predictu_dispatch.demo.runner import Result, check_demo
from tests.support.statement_books import statement_check

TIMEOUT_S = 150.0
"""Five times what a demo takes, for a machine that runs other tests at the same time."""


COLUMNS, ROWS = 80, 24
NOT_INHERITED = {"PREDICTU_DISPATCH_DSN", "PREDICTU_DISPATCH_CONFIG", "CI", "COLUMNS", "LINES", "FORCE_COLOR"}


@contextlib.contextmanager
def demo(*arguments: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """Run a demo; it is killed after the block."""
    command = [sys.executable, "-m", "predictu_dispatch", "demo", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    environment["TERM"] = "xterm"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Terminal:
    """A terminal of 80 columns and 24 rows, and all that was written to it."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # The read fails when the last process that has the terminal ends.
        with contextlib.suppress(OSError):
            while block := os.read(self._master, 65536):
                self._written += block

    def close(self) -> str:
        """Returns the text, once the demo has ended."""
        os.close(self.slave)
        self._reader.join(TIMEOUT_S)
        os.close(self._master)
        return self._written.decode().replace("\r\n", "\n")


def folders_of(output: str) -> list[Path]:
    """The folder of the database, and with --keep that of the other files."""
    found = re.findall(r"^(?:Postgres \S+|logs and wallets) in (\S+)$", output, re.MULTILINE)
    assert found, output
    return [Path(folder) for folder in found]


def test_the_demo_ends_with_its_proof_and_leaves_no_file() -> None:
    with demo("--bets", "60", "--seed", "7") as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 0, output + errors
    assert re.search(
        r"^proof: 60 bets, \d+ callbacks, \d+ attempts: wallets, bets and audit agree to the cent$",
        output,
        re.MULTILINE,
    )
    assert errors == ""
    assert [folder for folder in folders_of(output) if folder.exists()] == []
    # A newcomer reads what will happen, what each operator is, each event, and what comes next.
    sentences = [
        "This demo plays 60 bets with three casinos on this machine",
        *(f"{fixture.operator_id} +{fixture.about}" for fixture in OPERATORS),
        "of 60 bets, about ",
        "the daemon was killed on purpose, .*; another takes over",
        "another daemon took over",
        "op_down went down",
        "op_down came back",
        "all 60 bets have ended",
        "proof: ",
        "It took .* s",
        "Next: .*--keep",
    ]
    assert re.search(".*".join(sentences), output, re.DOTALL), output
    assert output.startswith(sentences[0])
    assert all(line.isprintable() for line in output.splitlines()), "a line has control characters"


@pytest.mark.parametrize(
    ("ended", "elapsed_s", "text"),
    [
        (0, 0.0, "0 of 300 bets, about 24 s left"),
        (150, 15.0, "150 of 300 bets, about 14 s left"),
        (299, 120.0, "299 of 300 bets, about 1 s left"),
        (300, 26.0, "300 of 300 bets"),
    ],
)
def test_the_time_left_follows_from_the_bets_that_have_ended(ended: int, elapsed_s: float, text: str) -> None:
    figures = [Figures(bets=Counter(closed=ended, open=300 - ended), wallet=0)]
    assert str(Progress.of(figures, bets=300, elapsed_s=elapsed_s)) == text


@contextlib.contextmanager
def kept_demo(*arguments: str) -> Iterator[dict[str, Any]]:
    """The summary of a finished demo that still runs; it is interrupted after the block."""
    terminal = Terminal()
    with demo(*arguments, "--keep", "--json", stderr=terminal.slave) as process:
        assert process.stdout is not None
        summary: dict[str, Any] = json.loads(_first_json(process.stdout))
        yield summary
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        output = terminal.close()
        assert process.returncode == 0, output
        database, files = folders_of(output)
        assert not database.exists(), "the file to source is in this folder, too"
        shutil.rmtree(files)
        summary["written"] = output


def last_lines(written: str) -> list[str]:
    """What a terminal shows that was written after the live table was erased."""
    erasing = "\x1b[2K"
    assert erasing in written, "there was no live table"
    text = written[written.rindex(erasing) + len(erasing) :]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text).splitlines()


def rows_of(lines: list[str]) -> int:
    return sum(max(1, -(-len(line) // COLUMNS)) for line in lines)


def _first_json(stream: Any) -> str:
    text = ""
    while not text.endswith("\n}\n"):
        line = stream.readline()
        assert line, text
        text += line
    return text


@dataclasses.dataclass(kw_only=True)
class Forgery:
    """One fact changed on one side, the check that must fail, and a word of its faults."""

    name: str
    named: str
    check: str
    wallet: str = ""
    ledger: Callable[[PredictuLedger], PredictuLedger] = lambda ledger: ledger


def changed(table: str, is_chosen: Callable[[Any], bool], **values: Any) -> Callable[[PredictuLedger], PredictuLedger]:
    """The first chosen row has these values."""

    def change(ledger: PredictuLedger) -> PredictuLedger:
        rows = list(getattr(ledger, table))
        index = next(index for index, row in enumerate(rows) if is_chosen(row))
        rows[index] = rows[index]._replace(**values)
        return ledger._replace(**{table: tuple(rows)})

    return change


def without(table: str, is_chosen: Callable[[Any], bool]) -> Callable[[PredictuLedger], PredictuLedger]:
    """The first chosen row is missing."""

    def drop(ledger: PredictuLedger) -> PredictuLedger:
        rows = list(getattr(ledger, table))
        rows.remove(next(row for row in rows if is_chosen(row)))
        return ledger._replace(**{table: tuple(rows)})

    return drop


def all_changed(method: str, /, **values: Any) -> Callable[[PredictuLedger], PredictuLedger]:
    """Every callback of the method has these values."""
    return lambda ledger: ledger._replace(
        callbacks=tuple(row._replace(**values) if row.method == method else row for row in ledger.callbacks)
    )


def delivered(method: str) -> Callable[[Any], bool]:
    return lambda row: row.operator_id == GOOD and row.method == method and row.state == "delivered"


FORGERIES = [
    Forgery(
        name="a cent moves from one wallet to another",
        check="op_good: opening",
        named="player-4",
        wallet="update players set balance = balance + case player_id when 'player-3' then 1 else -1 end"
        " where player_id in ('player-3', 'player-4')",
    ),
    Forgery(
        name="a win is booked with a cent too much, in wallet and ledger alike",
        check="ledger matches",
        named="bet-",
        wallet="update players set balance = balance + 1 where player_id ="
        " (select player_id from transactions where method = 'BET_WIN' order by bet_id limit 1);"
        "update transactions set amount = amount + 1 where transaction_id ="
        " (select transaction_id from transactions where method = 'BET_WIN' order by bet_id limit 1)",
    ),
    Forgery(
        name="a debit stands without its bet",
        check="each delivery is booked",
        named="bet-forged",
        wallet="insert into transactions select 'tx-forged', '00000000-0000-4000-8000-000000000000', 'BET_MAKE',"
        " 'bet-forged', 'player-1', 'EUR', -1, created_at from transactions limit 1",
    ),
    Forgery(
        name="a delivered win was never booked",
        check="each delivery is booked",
        named="BET_WIN",
        wallet="delete from transactions where transaction_id ="
        " (select transaction_id from transactions where method = 'BET_WIN' order by bet_id limit 1)",
    ),
    Forgery(
        name="a bet has two terminals",
        check="no bet was ended twice",
        named="2 terminals booked",
        wallet="drop index one_terminal_per_bet; insert into transactions select 'tx-forged',"
        " '00000000-0000-4000-8000-000000000000', 'BET_LOSE', bet_id, player_id, currency, 0, created_at"
        " from transactions where method = 'BET_WIN' limit 1",
    ),
    Forgery(
        name="a callback was received with other bytes",
        check="operators received",
        named="same bytes",
        wallet="update callback_record set body = body || ' ' where record_id ="
        " (select record_id from callback_record where method = 'BET_WIN' limit 1)",
    ),
    Forgery(
        name="an answered callback was never received",
        check="operators received",
        named="received 0",
        wallet="delete from callback_record where request_id ="
        " (select request_id from callback_record where method = 'BET_LOSE' limit 1)",
    ),
    Forgery(
        name="a bet is still open",
        check="nothing is unfinished",
        named="is open",
        ledger=changed("bets", lambda bet: bet.state == "void", state="open"),
    ),
    Forgery(
        name="a booked debit is not delivered",
        check="each delivery is booked",
        named="is not delivered",
        ledger=changed("callbacks", delivered("BET_MAKE"), state="exhausted"),
    ),
    Forgery(
        name="an attempt was decided twice",
        check="each attempt has one",
        named="the audit decides [1, 1]",
        ledger=lambda ledger: ledger._replace(
            attempts=tuple(sorted([*ledger.attempts, ledger.attempts[0]], key=lambda row: row.attempt))
        ),
    ),
    Forgery(
        name="a balance was answered wrong",
        check="answered balances",
        named="player-",
        ledger=all_changed("BALANCE", balance=1),
    ),
    Forgery(
        name="a rejected credit needs review",
        check="each review",
        named="BET_WIN",
        ledger=changed("reviews", lambda review: review.method == "BET_WIN", state="rejected"),
    ),
    Forgery(
        name="a path did not occur",
        check="every path",
        named="did not occur: ended by BET_SELL",
        ledger=all_changed("BET_SELL", method="BET_REFUND"),
    ),
]


FORGED_MONEY = {
    "a win is booked with a cent too much, in wallet and ledger alike": "BET_WIN",
    "a debit stands without its bet": "bet-forged",
    "a delivered win was never booked": "BET_WIN",
}
"""Forgeries that the comparison with the statements must notice, and a word of the fault."""


def forged(wallet: Path, statements: str, tmp_path: Path) -> Path:
    """A copy of a wallet in which the statements ran, without the triggers that guard it."""
    copy = tmp_path / wallet.name
    with (
        contextlib.closing(sqlite3.connect(f"{wallet.as_uri()}?mode=ro", uri=True)) as original,
        contextlib.closing(sqlite3.connect(copy)) as sql,
    ):
        original.backup(sql)
        for (trigger,) in sql.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            sql.execute(f"drop trigger {trigger}")
        sql.executescript(statements)
        sql.commit()
    return copy


def test_the_proof_of_a_kept_demo_notices_every_forgery(tmp_path: Path) -> None:
    """A check that cannot fail proves nothing."""
    with kept_demo("--bets", "40", "--seed", "7") as summary:
        assert summary["ok"], summary
        look_into(summary)
        wallets = {operator_id: Path(file) for operator_id, file in summary["inside"]["wallets"].items()}
        for _ in range(5):
            ledger = asyncio.run(read_predictu(summary["inside"]["database"]))
            operators = [read_operator(operator_id, wallet) for operator_id, wallet in wallets.items()]
            # A PING between the two reads is on one side only; the next read has it on both.
            if result_of(ledger, operators).holds:
                break
        else:
            pytest.fail("the books of the kept demo do not hold")
        copies = {}
        for number, forgery in enumerate(FORGERIES):
            (folder := tmp_path / str(number)).mkdir()
            copies[forgery.name] = forged(wallets[GOOD], forgery.wallet, folder)
        the_statements_have_the_money_of_the_books(summary, ledger, operators, copies)
        act_on(summary)
        asyncio.run(the_check_of_the_logs_notices_a_change(summary))

    for forgery in FORGERIES:
        result = result_of(forgery.ledger(ledger), [read_operator(GOOD, copies[forgery.name]), *operators[1:]])
        assert not result.holds, forgery.name
        faults = [fault for check in result.checks if check.name.startswith(forgery.check) for fault in check.faults]
        assert any(forgery.named in fault for fault in faults), (forgery.name, faults)
        assert result.sentence.startswith("FAILED")
    for changed_ledger, changed_operators in every_small_change(ledger, operators):
        assert not result_of(changed_ledger, changed_operators).holds
    the_last_screen_has_the_result(summary)


def the_statements_have_the_money_of_the_books(
    summary: dict[str, Any], ledger: PredictuLedger, operators: list[OperatorLedger], copies: dict[str, Path]
) -> None:
    """They do, and forged books are noticed."""
    compared = asyncio.run(statement_check(summary["inside"]["database"], ledger, operators))
    assert compared.holds, compared
    for name, words in FORGED_MONEY.items():
        forged_operators = [read_operator(GOOD, copies[name]), *operators[1:]]
        noticed = asyncio.run(statement_check(summary["inside"]["database"], ledger, forged_operators))
        assert any(words in fault for fault in noticed.faults), (name, noticed)


def the_last_screen_has_the_result(summary: dict[str, Any]) -> None:
    """On 80 columns and 24 rows; the shell's prompt takes one."""
    lines = last_lines(summary["written"])
    lines = lines[: next(at for at, line in enumerate(lines) if line.startswith("Stopping"))]
    while rows_of(lines) > ROWS - 1:
        lines.pop(0)
    for expected in (
        *(rf"^ok +{fixture.operator_id}( +[\d.,]+){{5}} *$" for fixture in OPERATORS),
        "^proof: 40 bets, ",
        "^It took .* until Ctrl-C",
        rf"^  \. {summary['inside']['shell_file']}$",
        *(rf"^  {re.escape(command)} " for command in summary["inside"]["commands"]),
    ):
        assert [line for line in lines if re.search(expected, line)], (expected, lines)
    # Without --keep all checks are on the last screen, too: three lines follow the verdict.
    lines = last_lines(summary["written"])
    verdict = next(at for at, line in enumerate(lines) if line.startswith("It took"))
    first = next(at for at, line in enumerate(lines) if line.startswith("ok"))
    assert rows_of(lines[first:verdict]) + 3 < ROWS


def in_another_shell(summary: dict[str, Any], command: str) -> str:
    """Run a command as a person does who has sourced the demo's file; returns what it prints."""
    answer = subprocess.run(
        ["/bin/sh", "-c", f". '{summary['inside']['shell_file']}' && {command}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
    )
    assert answer.returncode == 0, (command, answer.stdout, answer.stderr)
    return answer.stdout


def look_into(summary: dict[str, Any]) -> None:
    """The commands that a kept demo lists work, and so does `show --bet`."""
    bet = summary["needs_review"][0]
    shown = json.loads(
        in_another_shell(summary, f"predictu-dispatch show --json --bet {bet['operator_id']} {bet['bet_id']}")
    )
    assert shown["bet"]["bet_id"] == bet["bet_id"]
    assert {callback["state"] for callback in shown["callbacks"]} >= {"cancelled", "delivered"}
    commands = summary["inside"]["commands"]
    verbs = {command.split()[1]: command.split()[-1] for command in commands}
    assert verbs.keys() == {"status", "top", "find", "ping", "audit", "reconcile", "show", "why"}
    assert verbs["why"] in {review["request_id"] for review in summary["needs_review"]}
    # `top` ends with Ctrl-C.
    ending = [command for command in commands if not command.endswith(" top")]
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda command: in_another_shell(summary, command), ending))
    for command, printed in zip(ending, answers, strict=True):
        expected = {"status": "", "verify": "clean: "}.get(command.split()[-1], command.split()[-1])
        assert expected in printed, (command, printed)


def act_on(summary: dict[str, Any]) -> None:
    """The login of the sourced file may also change something."""
    request_id = summary["needs_review"][-1]["request_id"]
    in_another_shell(summary, f"predictu-dispatch resolve {request_id} --reason 'settled with the operator'")


async def the_check_of_the_logs_notices_a_change(summary: dict[str, Any]) -> None:
    """A superuser changes one row by one microsecond."""
    database, key_file = summary["inside"]["database"], Path(summary["inside"]["config"]).with_name(AUDIT_KEY_FILE)
    auditor = database.replace("demo_support", "demo_auditor")
    public_key = SigningKey.from_pem(key_file.read_bytes(), "EdDSA").ed25519_public_key
    before = await logs_check(auditor, public_key, is_sealed=True)
    assert before.holds, before
    assert before.rows > len(OPERATORS)
    assert not (await logs_check(auditor, public_key, is_sealed=False)).holds
    assert not (await logs_check(auditor, bytes(32), is_sealed=True)).holds
    owner = await asyncpg.connect(database.replace("demo_support", "postgres"))
    try:
        await owner.execute("alter table predictu_dispatch.attempt_record disable trigger all")
        request_id = await owner.fetchval(
            "update predictu_dispatch.attempt_record set finished_at = finished_at + interval '1 microsecond'"
            " where report_id = (select report_id from predictu_dispatch.attempt limit 1) returning request_id::text"
        )
    finally:
        await owner.close()
    after = await logs_check(auditor, public_key, is_sealed=True)
    assert any(request_id in fault for fault in after.faults), after


def every_small_change(
    ledger: PredictuLedger, operators: list[OperatorLedger]
) -> Iterator[tuple[PredictuLedger, list[OperatorLedger]]]:
    """One cent more or one row less, for every stake, payout, ledger entry and attempt."""
    for row in ledger.bets:
        yield changed("bets", row.__eq__, amount=row.amount + 1)(ledger), operators
    for callback in ledger.callbacks:
        if callback.method in {"BET_WIN", "BET_SELL"} and callback.state == "delivered" and callback.amount is not None:
            yield changed("callbacks", callback.__eq__, amount=callback.amount + 1)(ledger), operators
    for attempt in ledger.attempts:
        yield without("attempts", attempt.__eq__)(ledger), operators
    for place, operator in enumerate(operators):
        for entry in operator.entries:
            others = tuple(other for other in operator.entries if other is not entry)
            more = entry._replace(amount=entry.amount + 1)
            for entries in (others, (*others, more), (*others, entry, entry)):
                yield ledger, [*operators[:place], operator._replace(entries=entries), *operators[place + 1 :]]


def test_empty_books_prove_nothing() -> None:
    operators = [OperatorLedger(operator_id=GOOD, balances=dict(PLAYERS), entries=(), received={}, unverified=())]
    result = result_of(PredictuLedger(bets=(), callbacks=(), attempts=(), reviews=()), operators)
    assert [check.name for check in result.checks if check.holds] == []


def result_of(ledger: PredictuLedger, operators: list[OperatorLedger]) -> Result:
    return check_demo(ledger, operators, dict.fromkeys(OBSERVED, 1))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_a_signal_to_the_demo_ends_every_process_it_started(number: signal.Signals, code: int) -> None:
    with demo("--bets", "40", "--seed", "7") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        folders = folders_of("".join(itertools.takewhile(lambda line: "of 40 bets" not in line, lines)))
        started = processes_of(folders)
        assert len(started) >= len(("postgres", "daemon", "op_good", "op_flaky", "op_down"))

        process.send_signal(number)

        for descriptor in started:
            end = select.poll()
            end.register(descriptor, select.POLLIN)
            assert end.poll(TIMEOUT_S * 1000), "a process of the demo outlived it"
            os.close(descriptor)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == code
        assert [folder for folder in folders if folder.exists()] == []


def processes_of(folders: list[Path]) -> list[int]:
    """Descriptors of the processes whose command names one of the folders."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            if any(str(folder) in command for folder in folders):
                found.append(os.pidfd_open(int(entry.name)))
    return found
