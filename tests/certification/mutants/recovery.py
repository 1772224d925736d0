"""Mutants that lose money if a connection breaks or under load, or have a wrong ledger."""

from __future__ import annotations

from tests.certification.mutants.mutant import (
    APPLY,
    BOOKS_DEBITS_AGAIN,
    FORGETFUL,
    Change,
    Mutant,
    before,
    reads_first,
)

_WALLET, _RECEIVER = "wallet.py", "receiver.py"
_HELD = (
    "            _IN_PROGRESS.add(content.request_id)\n"
    "            try:\n"
    "                await asyncio.sleep(0.5)\n"
    f"    {APPLY}"
    "            finally:\n"
    "                _IN_PROGRESS.discard(content.request_id)\n"
)
"""Books after 0.5 s, and counts what is in progress."""
_DECIDED = "        if fault is Fault.STALL_AFTER_APPLY:\n"


def _await_disconnect(most_s: float) -> str:
    """Waits before the answer to a debit; what follows happens if the client disconnects."""
    return (
        "        request_id = str(verification.names.request_id)\n"
        "        gone = lambda: request.transport is None or request.transport.is_closing()\n"
        f"        until_s = time.monotonic() + {most_s}\n"
        '        is_debit = verification.names.method == "BET_MAKE"\n'
        "        while is_debit and not gone() and time.monotonic() < until_s:\n"
        "            await asyncio.sleep(0.001)\n"
        "        if is_debit and gone():\n"
    )


def _lock_is_never_released(condition: str) -> tuple[Change, ...]:
    """Marks a request_id while it is booked; if the client disconnects, the mark remains."""
    return (
        Change(
            file="server.py",
            old="access_log=None,",
            new="access_log=None, handler_cancellation=True,",
        ),
        before(
            _RECEIVER,
            APPLY,
            f"            if content.request_id in _IN_PROGRESS:\n"
            "                return self._unavailable('this request is in progress')\n"
            f"            if {condition}:\n"
            "                _IN_PROGRESS.add(content.request_id)\n"
            "                await asyncio.sleep(3)\n"
            "                _IN_PROGRESS.discard(content.request_id)\n",
        ),
        before(_RECEIVER, "def _unread(", "_IN_PROGRESS: set[str] = set()\n\n\n"),
    )


RECOVERY = (
    Mutant(
        name="disconnect-reverses",
        wrong="If the client has disconnected before the answer, the booking is reversed, and its answer is kept.",
        scenario="recovery-cut-after-body",
        changes=(
            before(
                _RECEIVER,
                _DECIDED,
                _await_disconnect(3.0)
                + "            await self.writer.write(functools.partial(self.wallet.undo, request_id))\n",
            ),
            before(
                _WALLET,
                "    def record(self, names",
                "    def undo(self, request_id: str) -> None:\n"
                "        self._sql.execute(\n"
                '            "update players set balance = balance - t.amount from transactions t"\n'
                '            " where t.request_id = ? and t.player_id = players.player_id"\n'
                '            " and t.currency = players.currency", (request_id,)\n'
                "        )\n\n",
            ),
        ),
    ),
    Mutant(
        name="credit-locked-by-a-disconnect",
        wrong="A credit whose client disconnected stays locked for ever.",
        scenario="recovery-win-cut",
        changes=_lock_is_never_released('content.method in ("BET_WIN", "BET_SELL")'),
    ),
    Mutant(
        name="rollback-locked-by-a-disconnect",
        wrong="A rollback whose client disconnected stays locked for ever.",
        scenario="recovery-rollback-cut",
        changes=_lock_is_never_released('content.method == "BET_ROLLBACK"'),
    ),
    Mutant(
        name="known-before-the-body",
        wrong="A request counts as known once its headers were read, so half a body makes its repetition a duplicate.",
        scenario="recovery-cut-inside-body",
        changes=(
            Change(
                file=_RECEIVER,
                old="        try:\n            async with asyncio.timeout(READ_TIMEOUT_S):\n",
                new="        import jwt\n\n"
                '        token = request.headers.get("Authorization", "").partition(" ")[2]\n'
                '        jti = jwt.decode(token, options={"verify_signature": False})["jti"] if token else ""\n'
                "        if jti in _KNOWN:\n"
                "            duplicate = Answer(http_status=200, status=Status.DUPLICATE)\n"
                '            return await request.read(), Verification(signature="verified", content=duplicate)\n'
                "        _KNOWN.add(jti)\n"
                "        try:\n            async with asyncio.timeout(READ_TIMEOUT_S):\n",
            ),
            before(_RECEIVER, "def _unread(", "_KNOWN: set[str] = set()\n\n\n"),
        ),
    ),
    Mutant(
        name="answer-kept-only-if-delivered",
        wrong="An answer is stored only if the client still waits for it.",
        scenario="recovery-answer-never-read",
        changes=(
            *BOOKS_DEBITS_AGAIN,
            before(
                _RECEIVER,
                _DECIDED,
                _await_disconnect(2.5)
                + "            await self.writer.write(functools.partial(self.wallet.forget, request_id))\n",
            ),
            before(
                _WALLET,
                "    def record(self, names",
                "    def forget(self, request_id: str) -> None:\n"
                '        self._sql.execute("delete from answers where request_id = ?", (request_id,))\n\n',
            ),
        ),
    ),
    Mutant(
        name="rollback-of-a-debit-in-progress",
        wrong="A rollback finds no debit, because the debit is still being booked, and the debit stands.",
        scenario="recovery-cut-and-rolled-back",
        changes=reads_first('content.method == "BET_MAKE"', bets=True, pause_s=2.0),
    ),
    Mutant(
        name="remembers-32-answers",
        wrong="Only the last 32 answers are remembered.",
        scenario="recovery-fifty-cut",
        changes=(
            *BOOKS_DEBITS_AGAIN,
            before(
                _WALLET,
                FORGETFUL,
                "        if callback.request_id not in _RECENT:\n"
                "            row = None\n"
                "            _RECENT.append(callback.request_id)\n",
            ),
            before(_WALLET, "class Wallet:\n", "_RECENT: deque[str] = deque(maxlen=32)\n\n\n"),
            Change(file=_WALLET, old="import sqlite3\n", new="import sqlite3\nfrom collections import deque\n"),
        ),
    ),
)

LOAD = (
    Mutant(
        name="lost-updates",
        wrong="The balance is read before the transaction that changes it.",
        scenario="load-sixteen",
        changes=reads_first('content.currency and content.method != "BALANCE"', balance=True),
    ),
    Mutant(
        name="refuses-under-load",
        wrong="A player's row that is locked by other debits is answered INSUFFICIENT_FUNDS.",
        scenario="load-sixty-four",
        changes=(
            Change(
                file=_RECEIVER,
                old=APPLY,
                new="            if len(_IN_PROGRESS) >= 20:\n"
                "                answer = Answer(http_status=200, status=Status.INSUFFICIENT_FUNDS)\n"
                "                return _refused(answer, to_reply)\n" + _HELD,
            ),
            before(_RECEIVER, "def _unread(", "_IN_PROGRESS: set[str] = set()\n\n\n"),
        ),
    ),
    Mutant(
        name="credits-lost-from-a-buffer",
        wrong="Credits go through a buffer of 100, which loses those that come on top.",
        scenario="load-five-hundred-settlements",
        changes=(
            before(
                _RECEIVER,
                APPLY,
                '            if content.method in ("BET_WIN", "BET_SELL"):\n'
                "                _BUFFER.add(content.request_id)\n"
                "                if len(_BUFFER) > 100:\n"
                "                    return _refused(Answer(http_status=200, status=Status.OK), to_reply)\n",
            ),
            before(_RECEIVER, "def _unread(", "_BUFFER: set[str] = set()\n\n\n"),
        ),
    ),
)

_BOOKING = ("money-win", "repetition-at-once", "order-rollback-twice")
_ROWS = '"select created_at, transaction_id, request_id, method, bet_id, player_id, currency, amount from transactions"'

LEDGER = (
    Mutant(
        name="ledger-without-rollbacks",
        wrong="The ledger has no rollbacks.",
        scenario="ledger-each-booking-once",
        played_before=_BOOKING,
        changes=(
            Change(
                file="ledger.py",
                old="where method <> 'DEPOSIT'",
                new="where method not in ('DEPOSIT', 'BET_ROLLBACK')",
            ),
        ),
    ),
    Mutant(
        name="ledger-of-arrivals",
        wrong="The ledger has a row for each copy of a request.",
        scenario="ledger-each-booking-once",
        played_before=_BOOKING,
        changes=(
            Change(
                file="ledger.py",
                old=_ROWS,
                new=_ROWS.replace(
                    "from transactions", "from (select t.* from transactions t join callback_record using (request_id))"
                ),
            ),
        ),
    ),
    Mutant(
        name="ledger-without-signs",
        wrong="The ledger's amounts have no sign.",
        scenario="ledger-each-booking-once",
        played_before=_BOOKING,
        changes=(Change(file="ledger.py", old=_ROWS, new=_ROWS.replace("amount from", "abs(amount) from")),),
    ),
)
