"""The ledger is read strictly: a line that is not understood is a fault, never skipped."""

from typing import Any

import pytest

from predictu_dispatch.certification import ledger as ledgers
from predictu_dispatch.certification.ledger import COLUMNS, read_ledger
from predictu_dispatch.certification.observation import Ledger, LedgerRow
from tests.support.raw_server import Peer, RawServer
from tests.support.sandboxes import NOW, answer, sender_to, target_for

HEADER = ",".join(COLUMNS)
LINE = "2026-11-30T10:15:02.123Z,tx-1,4f1c0b1e-6f0e-4a51-9a2b-0d2f5a3f7e10,BET_MAKE,b-1,p-1,EUR,-1250"
ROW = LedgerRow(
    request_id="4f1c0b1e-6f0e-4a51-9a2b-0d2f5a3f7e10",
    transaction_id="tx-1",
    method="BET_MAKE",
    bet_id="b-1",
    player_id="p-1",
    currency="EUR",
    amount=-1250,
)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_line_is_a_booking(end: str) -> None:
    lines = [HEADER, LINE, LINE.replace("b-1", '"b ""1"", or 2"').replace("-1250", "0"), ""]
    read = read_ledger(end.join(lines).encode())
    assert [row.amount for row in read.rows] == [-1250, 0]
    assert (read.rows[0], read.rows[1].bet_id, read.fault) == (ROW, 'b "1", or 2', "")


def test_a_ledger_without_bookings_is_only_its_header() -> None:
    assert read_ledger(f"{HEADER}\n".encode()) == Ledger()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the ledger's first line is ''"),
        ("<html>", "the ledger's first line is '<html>'"),
        (f"{HEADER},note\n{LINE},x", "the ledger's first line is"),
        (f"\ufeff{HEADER}\n{LINE}", "the ledger's first line is"),
        (f"{HEADER}\n{LINE}\n{LINE},x", "line 3: 9 fields instead of 8"),
        (f"{HEADER}\n{LINE}\n\n{LINE}", "line 3: 0 fields instead of 8"),
        (f"{HEADER}\n{LINE.replace('-1250', '-12.50')}", "amount is '-12.50'"),
        (f"{HEADER}\n{LINE.replace('-1250', '1e3')}", "amount is '1e3'"),
        (f"{HEADER}\n{LINE.replace('-1250', '٣')}", "amount is '٣'"),
        (f"{HEADER}\n{LINE.replace('-1250', '9' * 40)}", "amount is"),
        (f"{HEADER}\n{LINE.replace('Z', '')}", "not an RFC 3339 time with an offset"),
        (f"{HEADER}\n{LINE.replace('BET_MAKE', 'BET')}", "method is 'BET'"),
        (f"{HEADER}\n{LINE.replace('b-1', chr(34) + 'b-1')}", "is not CSV"),
    ],
)
def test_a_line_that_is_not_a_booking_is_named(text: str, fault: str) -> None:
    read = read_ledger(text.encode())
    assert fault in read.fault
    assert read.rows == ()


def test_other_encodings_are_not_guessed() -> None:
    assert read_ledger(HEADER.encode("utf-16")).fault == "the ledger is not UTF-8"


# Fetching

CSV = (
    "booked_at,transaction_id,request_id,method,bet_id,player_id,currency,amount\n"
    "2026-11-30T10:15:02.123Z,tx-1,4f1c0b1e-6f0e-4a51-9a2b-0d2f5a3f7e10,BET_MAKE,b-1,p-1,EUR,-1250\n"
)


async def get_and_answer(peer: Peer, reply: bytes) -> None:
    peer.server.requests.append(await peer.reader.readuntil(b"\r\n\r\n"))
    await peer.send(reply)
    await peer.read_until_closed()


async def ledger_with(reply: bytes) -> tuple[Any, RawServer]:
    async with RawServer(lambda peer: get_and_answer(peer, reply)).running() as server:
        ledger_url = f"http://127.0.0.1:{server.address[1]}/ledger?account=7"
        async with sender_to(target_for("https://sandbox.example.com/predictu", ledger_url=ledger_url)) as sender:
            return await sender.ledger(NOW, NOW.replace(minute=16)), server


async def test_the_ledger_of_a_period_is_fetched() -> None:
    ledger, server = await ledger_with(answer(CSV))
    [request] = server.requests
    assert request.startswith(
        b"GET /ledger?account=7&from=2026-11-30T10%3A15%3A02.123Z&until=2026-11-30T10%3A16%3A02.123Z HTTP/1.1\r\n"
    )
    assert b"Authorization: Bearer " in request
    assert server.unexpected_bytes == b""
    assert [(row.bet_id, row.amount) for row in ledger.rows] == [("b-1", -1250)]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (answer("", code="404 Not Found"), "the operator answered 404, not 200"),
        (answer("", code="302 Found", headers="Location: /elsewhere\r\n"), "the operator answered 302, not 200"),
        (answer("<html>"), "the ledger's first line"),
        (answer(CSV + "x" * 2000), "too_large: the answer is longer than"),
        (answer(CSV)[:-5], "timeout: "),
    ],
)
async def test_a_ledger_that_cannot_be_read_says_why(reply: bytes, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "LEDGER_BYTES_MAX", 1000)
    monkeypatch.setattr(ledgers, "LEDGER_TIMEOUT_S", 0.3)
    ledger, server = await ledger_with(reply)
    assert ledger.fault.startswith(fault)
    assert (ledger.rows, len(server.requests)) == ((), 1)
