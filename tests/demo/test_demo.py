"""The demo (DESIGN.md 8): it comes to its proof, the proof can fail, and nothing outlives it, whatever ends it."""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from predictu_dispatch.demo.books import OperatorBook, PredictuBooks, read_operator, read_predictu
from predictu_dispatch.demo.cast import GOOD, ROLES
from predictu_dispatch.demo.paths import WITNESSED
from predictu_dispatch.demo.proof import Proof, prove

PATIENCE_S = 150.0
"""Five times what a demo takes, for a machine that runs everything else at the same time."""
OPENING = {role.operator_id: role.players for role in ROLES}
ALL_WITNESSED = dict.fromkeys(WITNESSED, 1)


@contextlib.contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo of its own; what is left of it after the block is ended."""
    command = [sys.executable, "-m", "predictu_dispatch", "demo", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PREDICTU_DISPATCH_DSN"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def folders_of(announcement: str) -> list[Path]:
    match = re.search(r"runs in (\S+), everything else in (\S+)", announcement)
    assert match, announcement
    return [Path(match[1]), Path(match[2])]


def test_the_demo_ends_in_its_proof_and_leaves_nothing() -> None:
    with demo("--bets", "60", "--seed", "7") as process:
        shown, complaints = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0, shown + complaints
    assert re.search(
        r"^proof: 60 bets, \d+ callbacks, \d+ attempts, 33 wallets: .* agree to the cent$", shown, re.MULTILINE
    )
    assert complaints == ""
    assert [folder for folder in folders_of(shown) if folder.exists()] == []


@contextlib.contextmanager
def kept_demo(*arguments: str) -> Iterator[dict[str, Any]]:
    """The summary of a finished demo that still runs; it is interrupted afterwards, as a person would."""
    with demo(*arguments, "--keep", "--json") as process:
        assert process.stdout is not None
        summary: dict[str, Any] = json.loads(_first_json(process.stdout))
        yield summary
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        database, files = folders_of(said)
        assert not database.exists()
        shutil.rmtree(files)


def _first_json(stream: Any) -> str:
    text = ""
    while not text.endswith("\n}\n"):
        line = stream.readline()
        assert line, text
        text += line
    return text


@dataclasses.dataclass(kw_only=True)
class Forgery:
    """One fact that was changed on one side, and the word in the faults that must name it."""

    name: str
    named: str
    check: str
    wallet: str = ""
    books: Callable[[PredictuBooks], PredictuBooks] = lambda books: books


def changed(kind: str, choose: Callable[[Any], bool], **values: Any) -> Callable[[PredictuBooks], PredictuBooks]:
    """The first row that is chosen has these values."""

    def change(books: PredictuBooks) -> PredictuBooks:
        rows = list(getattr(books, kind))
        index = next(index for index, row in enumerate(rows) if choose(row))
        rows[index] = dataclasses.replace(rows[index], **values)
        return with_rows(books, kind, rows)

    return change


def without(kind: str, choose: Callable[[Any], bool]) -> Callable[[PredictuBooks], PredictuBooks]:
    """The first row that is chosen is gone."""

    def drop(books: PredictuBooks) -> PredictuBooks:
        rows = list(getattr(books, kind))
        rows.remove(next(row for row in rows if choose(row)))
        return with_rows(books, kind, rows)

    return drop


def with_rows(books: PredictuBooks, kind: str, rows: list[Any]) -> PredictuBooks:
    sides = {name: getattr(books, name) for name in ("bets", "callbacks", "attempts", "reviews")}
    return PredictuBooks(**{**sides, kind: tuple(rows)})


def delivered(method: str) -> Callable[[Any], bool]:
    return lambda row: row.operator_id == GOOD and row.method == method and row.state == "delivered"


FORGERIES = [
    Forgery(
        name="a cent is taken from a wallet",
        check="op_good: opening",
        named="player-3",
        wallet="update players set balance = balance - 1 where player_id = 'player-3'",
    ),
    Forgery(
        name="a cent moves from one wallet to another",
        check="op_good: opening",
        named="player-4",
        wallet="update players set balance = balance + case player_id when 'player-3' then 1 else -1 end"
        " where player_id in ('player-3', 'player-4')",
    ),
    Forgery(
        name="a win is booked with a cent too much, in wallet and ledger alike",
        check="every bet moved the ledger",
        named="bet-",
        wallet="update players set balance = balance + 1 where player_id ="
        " (select player_id from transactions where method = 'BET_WIN' order by bet_id limit 1);"
        "update transactions set amount = amount + 1 where transaction_id ="
        " (select transaction_id from transactions where method = 'BET_WIN' order by bet_id limit 1)",
    ),
    Forgery(
        name="a debit stands without its bet",
        check="every delivered callback",
        named="bet-forged",
        wallet="insert into transactions select 'tx-forged', '00000000-0000-4000-8000-000000000000', 'BET_MAKE',"
        " 'bet-forged', 'player-1', 'EUR', -1, created_at from transactions limit 1",
    ),
    Forgery(
        name="a delivered win was never booked",
        check="every delivered callback",
        named="BET_WIN",
        wallet="delete from transactions where transaction_id ="
        " (select transaction_id from transactions where method = 'BET_WIN' order by bet_id limit 1)",
    ),
    Forgery(
        name="a bet has two terminals",
        check="no bet has two terminals",
        named="2 terminals booked",
        wallet="drop index one_terminal_per_bet; insert into transactions select 'tx-forged',"
        " '00000000-0000-4000-8000-000000000000', 'BET_LOSE', bet_id, player_id, currency, 0, created_at"
        " from transactions where method = 'BET_WIN' limit 1",
    ),
    Forgery(
        name="a callback arrived with other bytes",
        check="what arrived is what was sent",
        named="same bytes",
        wallet="update callback_record set body = body || ' ' where record_id ="
        " (select record_id from callback_record where method = 'BET_WIN' limit 1)",
    ),
    Forgery(
        name="an answered callback never arrived",
        check="what arrived is what was sent",
        named="arrived 0",
        wallet="delete from callback_record where request_id ="
        " (select request_id from callback_record where method = 'BET_LOSE' limit 1)",
    ),
    Forgery(
        name="a bet's stake was another",
        check="every bet moved the ledger",
        named="bet-",
        books=changed("bets", lambda bet: bet.state == "void", amount=1),
    ),
    Forgery(
        name="an adopted bet's debit was another amount",
        check="every delivered callback",
        named="does not believe",
        # The first bet of all was placed by the system before this one.
        wallet="update transactions set amount = amount - 1 where transaction_id ="
        " (select transaction_id from transactions where method = 'BET_MAKE' order by created_at limit 1)",
    ),
    Forgery(
        name="a bet is still open",
        check="nothing is left unfinished",
        named="is open",
        books=changed("bets", lambda bet: bet.state == "void", state="open"),
    ),
    Forgery(
        name="a payout is a cent more",
        check="every delivered callback",
        named="BET_WIN",
        books=changed("callbacks", delivered("BET_WIN"), amount=1),
    ),
    Forgery(
        name="a debit is not believed",
        check="every delivered callback",
        named="does not believe",
        books=changed("callbacks", delivered("BET_MAKE"), state="exhausted"),
    ),
    Forgery(
        name="an audit row is missing",
        check="every attempt has exactly one",
        named="the audit decides []",
        books=without("attempts", lambda attempt: attempt.operator_id == GOOD and attempt.method == "BET_LOSE"),
    ),
    Forgery(
        name="an attempt was decided twice",
        check="every attempt has exactly one",
        named="the audit decides [1, 1]",
        books=lambda books: with_rows(
            books, "attempts", sorted([*books.attempts, books.attempts[0]], key=lambda row: row.attempt)
        ),
    ),
    Forgery(
        name="a balance was told wrong",
        check="BALANCE tells",
        named="player-",
        books=lambda books: with_rows(
            books,
            "callbacks",
            [dataclasses.replace(c, balance=1) if c.method == "BALANCE" else c for c in books.callbacks],
        ),
    ),
    Forgery(
        name="a credit that was refused needs review",
        check="what needs review",
        named="BET_WIN",
        books=changed("reviews", lambda review: review.method == "BET_WIN", state="rejected"),
    ),
    Forgery(
        name="a path was never walked",
        check="every path",
        named="never: ended by BET_SELL",
        books=lambda books: with_rows(
            books,
            "callbacks",
            [dataclasses.replace(c, method="BET_REFUND") if c.method == "BET_SELL" else c for c in books.callbacks],
        ),
    ),
]


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


def test_a_kept_demo_can_be_looked_into_and_its_proof_notices_every_forgery(tmp_path: Path) -> None:
    """A proof that cannot fail proves nothing."""
    with kept_demo("--bets", "40", "--seed", "7") as summary:
        assert summary["ok"], summary
        look_into(summary)
        books = asyncio.run(read_predictu(summary["inside"]["database"]))
        wallets = {operator_id: Path(file) for operator_id, file in summary["inside"]["wallets"].items()}
        operators = [read_operator(operator_id, wallet) for operator_id, wallet in wallets.items()]
        copies = {}
        for number, forgery in enumerate(FORGERIES):
            (folder := tmp_path / str(number)).mkdir()
            copies[forgery.name] = forged(wallets[GOOD], forgery.wallet, folder)

    assert proof_of(books, operators).holds
    for forgery in FORGERIES:
        proof = proof_of(forgery.books(books), [read_operator(GOOD, copies[forgery.name]), *operators[1:]])
        assert not proof.holds, forgery.name
        faults = [fault for check in proof.checks if check.name.startswith(forgery.check) for fault in check.faults]
        assert any(forgery.named in fault for fault in faults), (forgery.name, faults)
        assert proof.sentence.startswith("DISPROOF")
    for changed_books, changed_operators in every_small_change(books, operators):
        assert not proof_of(changed_books, changed_operators).holds


def look_into(summary: dict[str, Any]) -> None:
    """The commands that a kept demo prints work: here the one for a bet's life."""
    bet = summary["needs_review"][0]
    command = [sys.executable, "-m", "predictu_dispatch", "show", "--config", summary["inside"]["config"], "--json"]
    answer = subprocess.run(
        [*command, "--bet", bet["operator_id"], bet["bet_id"]],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PREDICTU_DISPATCH_DSN"},
    )
    shown = json.loads(answer.stdout)
    assert shown["bet"]["bet_id"] == bet["bet_id"]
    assert {callback["state"] for callback in shown["callbacks"]} >= {"cancelled", "delivered"}


def every_small_change(
    books: PredictuBooks, operators: list[OperatorBook]
) -> Iterator[tuple[PredictuBooks, list[OperatorBook]]]:
    """Both sides with one cent more or one row less, for every stake, every payout, every booking and every attempt."""
    for row in books.bets:
        yield changed("bets", row.__eq__, amount=row.amount + 1)(books), operators
    for callback in books.callbacks:
        if callback.method in {"BET_WIN", "BET_SELL"} and callback.state == "delivered" and callback.amount is not None:
            yield changed("callbacks", callback.__eq__, amount=callback.amount + 1)(books), operators
    for attempt in books.attempts:
        yield without("attempts", attempt.__eq__)(books), operators
    for place, operator in enumerate(operators):
        for booking in operator.bookings:
            others = tuple(other for other in operator.bookings if other is not booking)
            more = dataclasses.replace(booking, amount=booking.amount + 1)
            for bookings in (others, (*others, more), (*others, booking, booking)):
                forged_operator = dataclasses.replace(operator, bookings=bookings)
                yield books, [*operators[:place], forged_operator, *operators[place + 1 :]]


def test_nothing_compared_is_nothing_proved() -> None:
    operators = [OperatorBook(operator_id=GOOD, balances=dict(OPENING[GOOD]), bookings=(), arrivals={}, unverified=0)]
    proof = proof_of(PredictuBooks(bets=(), callbacks=(), attempts=(), reviews=()), operators)
    assert [check.name for check in proof.checks if check.holds] == []


def proof_of(books: PredictuBooks, operators: list[OperatorBook]) -> Proof:
    return prove(books, operators, opening=OPENING, witnessed=ALL_WITNESSED)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the processes of a folder are looked up in /proc")
def test_whatever_ends_the_demo_ends_all_that_it_started(number: signal.Signals, code: int) -> None:
    with demo("--bets", "40", "--seed", "7") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        folders = folders_of(next(line for line in lines if "runs in" in line))
        next(line for line in lines if "op_good: " in line)
        started = processes_of(folders)
        assert len(started) >= len(("postgres", "daemon", "op_good", "op_flaky", "op_down"))

        process.send_signal(number)

        for descriptor in started:
            gone = select.poll()
            gone.register(descriptor, select.POLLIN)
            assert gone.poll(PATIENCE_S * 1000), "a process of the demo outlived it"
            os.close(descriptor)
        process.communicate(timeout=PATIENCE_S)
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
