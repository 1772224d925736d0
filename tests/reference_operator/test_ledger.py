"""`GET {path}/ledger`: what Predictu can compare with its own books."""

import asyncio
import contextlib
import csv
import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from predictu_dispatch.certification.ledger import read_ledger
from predictu_dispatch.core.ledger_line import LedgerLine, read_line
from predictu_dispatch.core.reconcile_settings import ReconcileSettings
from predictu_dispatch.reconciliation.files import open_ledger
from predictu_dispatch.reconciliation.record import Record
from predictu_dispatch.reconciliation.records import read_records
from predictu_dispatch.reference_operator import ledger
from predictu_dispatch.reference_operator.cli import main
from predictu_dispatch.reference_operator.database import open_database
from tests.reference_operator.client import Operator, bet_body, body_of, request_id_of, running, token_of
from tests.reference_operator.test_hostile_arrivals import connect, served

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


def ledger_token(**claims: Any) -> str:
    envelope = json.dumps({"request_id": str(uuid4()), "method": "LEDGER"}).encode()
    return token_of(envelope, claims={"digest": hashlib.sha256(b"").hexdigest(), **claims})


async def fetch(operator: Operator, token: str, **query: str) -> tuple[int, str]:
    url, headers = f"{operator.url}/ledger?{urlencode(query)}", {"Authorization": f"Bearer {token}"}
    async with operator.http.get(url, headers=headers) as reply:
        return reply.status, await reply.text()


async def test_each_booking_is_there_once_with_its_signed_amount(tmp_path: Path) -> None:
    async with running(tmp_path) as operator:
        odd = 'b-"2",\r\nnext line'
        debits = [bet_body("BET_MAKE", bet_id, 700) for bet_id in ("b-1", odd, "b-3", "b-4", "b-5")]
        ends = [
            bet_body("BET_WIN", "b-1", 900),
            bet_body("BET_LOSE", odd),
            bet_body("BET_SELL", "b-3", 650),
            bet_body("BET_REFUND", "b-4", 700),
            bet_body("BET_ROLLBACK", "b-5", 700, rollback_of=request_id_of(debits[4])),
        ]
        moves_nothing = [
            bet_body("BET_MAKE", "b-6", 10**9),
            bet_body("BET_ROLLBACK", "b-7", 1, rollback_of=str(uuid4())),
            body_of("BALANCE", player_id="player-1", currency="EUR"),
            *debits,
        ]
        answers: dict[str, Any] = {}
        for body in (*debits, *ends, *moves_nothing):
            answers.setdefault(request_id_of(body), (await operator.post(body))[1])
        status, text = await fetch(operator, ledger_token())
        assert status == 200
        rows = list(csv.DictReader(text.splitlines(keepends=True), strict=True))
        # Bookings of one millisecond have no order.
        assert sorted((row["request_id"], row["method"], row["bet_id"], int(row["amount"])) for row in rows) == sorted(
            (request_id_of(body), json.loads(body)["method"], json.loads(body)["params"]["bet_id"], amount)
            for body, amount in zip((*debits, *ends), (*[-700] * 5, 900, 0, 650, 700, 700), strict=True)
        )
        assert all(answers[row["request_id"]]["transaction_id"] == row["transaction_id"] for row in rows)
        assert len(read_ledger(text.encode()).rows) == 10

        # A period has its first moment and not its last one.
        times = sorted({row["booked_at"] for row in rows})
        _, text = await fetch(operator, ledger_token(), **{"from": times[0], "until": times[-1]})
        found = list(csv.DictReader(text.splitlines(keepends=True)))
        assert {row["booked_at"] for row in found} == set(times[:-1])
        _, text = await fetch(operator, ledger_token(), **{"from": times[-1].replace("Z", "+00:00")})
        assert {row["booked_at"] for row in csv.DictReader(text.splitlines(keepends=True))} == {times[-1]}


async def test_only_a_token_for_the_ledger_can_read_it(tmp_path: Path) -> None:
    now = int(time.time())
    async with running(tmp_path) as operator:
        for token in (
            "",
            token_of(body_of("PING")),
            ledger_token(method="PING"),
            ledger_token(digest=hashlib.sha256(b"x").hexdigest()),
            ledger_token(sub="op_other99"),
            ledger_token(iat=now - 60, exp=now - 30),
        ):
            status, text = await fetch(operator, token)
            assert (status, json.loads(text)["status"]) == (401, "UNAUTHORIZED")
        for query in ({"from": "yesterday"}, {"until": "2026-03-19T14:30:00"}, {"from": "0001-01-01T00:00:00+05:00"}):
            status, text = await fetch(operator, ledger_token(), **query)
            assert (status, json.loads(text)["status"]) == (400, "BAD_REQUEST")
        # It is no callback either.
        async with operator.http.post(
            operator.url, data=b"", headers={"Authorization": f"Bearer {ledger_token()}"}
        ) as reply:
            assert reply.status == 400


def lines_that_reconcile_reads(file: Path) -> list[LedgerLine]:
    """Reads it with the default settings; raises if a line is not read."""
    settings = ReconcileSettings()
    found = []
    with open_ledger(file) as opened:
        for part in opened.parts():
            for record in read_records(part, settings):
                assert isinstance(record, Record), record
                line = read_line(record.fields, settings, settings.days, {"EUR": 2})
                assert isinstance(line, LedgerLine), line
                found.append(line)
    return found


async def test_the_export_has_the_same_bytes_and_reconcile_reads_it_without_any_setting(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = tmp_path / "ledger.csv"
    async with running(tmp_path) as operator:
        debits = [bet_body("BET_MAKE", f"b-{number}", 700) for number in range(4)]
        ends = [
            bet_body("BET_WIN", "b-0", 900),
            bet_body("BET_LOSE", "b-1"),
            bet_body("BET_ROLLBACK", "b-2", 700, rollback_of=request_id_of(debits[2])),
        ]
        for body in (*debits, *ends):
            assert await operator.status(body) == "OK"
        _, text = await fetch(operator, ledger_token())
        command = ("ledger", "--database", str(operator.database))
        assert main([*command, "--output", str(file)]) == 0, "while the operator runs"
        assert file.read_bytes() == text.encode()

        lines = lines_that_reconcile_reads(file)
        moved = [*[(-700, True)] * 4, (900, False), (0, False), (700, False)]
        assert {line.request_id: (line.method, line.bet_id, line.amount, line.is_debit) for line in lines} == {
            request_id_of(body): (json.loads(body)["method"], json.loads(body)["params"]["bet_id"], *amount)
            for body, amount in zip((*debits, *ends), moved, strict=True)
        }
        assert len(lines) == len(moved)
        times = sorted({line.booked_at for line in lines})
        assert {(line.currency, line.player_id) for line in lines} == {("EUR", "player-1")}
        assert all(line.transaction_id for line in lines)

        # A bound between two milliseconds, in another zone: the first booking is before it.
        bound = times[0].astimezone(timezone(timedelta(hours=1))) + timedelta(microseconds=1)
        assert main([*command, "--from", bound.isoformat(), "--output", str(file)]) == 0
        assert {line.booked_at for line in lines_that_reconcile_reads(file)} == set(times[1:])
    capfdbinary.readouterr()
    assert main(list(command)) == 0, "to stdout, after the operator has stopped"
    assert capfdbinary.readouterr().out == text.encode()


def test_an_export_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, database = tmp_path / "ledger.csv", tmp_path / "wallet.db"
    file.write_text("yesterday's")
    command = ["ledger", "--database", str(database), "--output", str(file)]
    assert main(command) == 1
    assert f"there is no file {database}" in capsys.readouterr().err
    assert not database.exists()
    database.write_text("no database")
    assert main(command) == 1
    assert main([*command, "--from", "yesterday"]) == 2
    assert "--from is 'yesterday', not RFC 3339" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "missing/ledger.csv")]) == 2
    database.unlink()
    open_database(database).close()

    with closing(sqlite3.connect(database)) as sql, sql:
        sql.execute("insert into players values ('player-1', 'EUR', 0)")
        sql.execute(
            "insert into transactions values ('t-1', 'r-1', 'BET_LOSE', 'b-1', 'player-1', 'EUR', 0, '2026-03-19T00')"
        )

    def fails_at_the_second_page(rows: Sequence[Sequence[object]]) -> bytes:
        if rows[0] != ledger.COLUMNS:
            raise OSError("no space left")
        return b"half a ledger"

    with monkeypatch.context() as broken:
        broken.setattr(ledger, "_csv", fails_at_the_second_page)
        assert main(command) == 1
    assert "no space left" in capsys.readouterr().err
    assert file.read_text() == "yesterday's"
    assert [one.name for one in tmp_path.iterdir() if "ledger" in one.name] == ["ledger.csv"]
    assert main(command) == 0
    assert len(file.read_bytes().splitlines()) == 2


async def test_a_reader_that_does_not_read_gets_no_whole_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply ends without its last chunk, so that nobody takes it for complete."""
    # More than the sockets' buffers hold: the operator must wait, and gives up at once.
    monkeypatch.setattr(ledger, "WRITE_TIMEOUT_S", 0)
    monkeypatch.setattr(ledger, "_csv", lambda _rows: b"x" * 40_000_000)
    async with served(tmp_path, "--log", "off") as listening:
        reader, writer = await connect(listening.url)
        head = f"GET /predictu/ledger HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ledger_token()}\r\n\r\n"
        writer.write(head.encode())
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(20):
                while chunk := await reader.read(65_536):
                    received += chunk
        writer.close()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert len(received) < 40_000_000
    assert not received.endswith(b"0\r\n\r\n")
