"""Mutants that book a repeated request again, or answer it as if nothing had been booked."""

from __future__ import annotations

from tests.certification.mutants.mutant import (
    APPLY,
    BOOKS_DEBITS_AGAIN,
    ENDS_TWICE,
    FORGETFUL,
    Change,
    Mutant,
    allows_end,
    before,
    reads_first,
)

_RULES, _WALLET = "rules.py", "wallet.py"
_IS_KNOWN = "        if row is not None and row[1]:\n"


def _answer_known_if(condition: str) -> Change:
    return Change(file=_WALLET, old=_IS_KNOWN, new=f"{_IS_KNOWN[:-2]} and {condition}:\n")


def _forgets_after(seconds: float) -> tuple[Change, ...]:
    """Books a repeated debit again after this time, which a test may divide by SPEED."""
    return (
        *BOOKS_DEBITS_AGAIN,
        before(
            _WALLET,
            FORGETFUL,
            "        now = time.monotonic()\n"
            f"        if now - _SEEN_AT.setdefault(callback.request_id, now) > {seconds} / _SPEED:\n"
            "            row = None\n",
        ),
        Change(file=_WALLET, old="import sqlite3\n", new="import os\nimport sqlite3\nimport time\n"),
        before(
            _WALLET,
            "class Wallet:\n",
            '_SEEN_AT: dict[str, float] = {}\n_SPEED = float(os.environ.get("SPEED", "1"))\n\n\n',
        ),
    )


def forgets_bets(condition: str) -> tuple[Change, ...]:
    """Deletes a bet and what is known of its debit, if the condition on the bet holds."""
    return (
        *BOOKS_DEBITS_AGAIN,
        before(
            _WALLET,
            "    def _book(\n",
            "    def _forget(self, bet: Bet) -> None:\n"
            '        self._sql.execute("delete from bets where bet_id = ?", (bet.bet_id,))\n'
            '        self._sql.execute("delete from answers where request_id = ?", (bet.debit_request_id,))\n\n',
        ),
        Change(
            file=_WALLET,
            old="            self._save(ruling.bet)\n",
            new="            self._save(ruling.bet)\n"
            f"            if (lambda bet: {condition})(ruling.bet):\n"
            "                self._forget(ruling.bet)\n",
        ),
    )


REPETITION = (
    Mutant(
        name="no-idempotency",
        wrong="A repeated debit is booked again.",
        scenario="repetition-at-once",
        changes=(*BOOKS_DEBITS_AGAIN, _answer_known_if("callback.method is not Method.BET_MAKE")),
    ),
    Mutant(
        name="idempotency-by-bet-id",
        wrong="A repeated debit is refused, because the bet exists.",
        scenario="repetition-at-once",
        changes=(_answer_known_if("callback.method is not Method.BET_MAKE"),),
    ),
    Mutant(
        name="duplicate-is-an-error",
        wrong="A repeated debit violates a unique index, and the answer is 500.",
        scenario="repetition-at-once",
        changes=(
            Change(
                file=_WALLET,
                old="            return Outcome.DUPLICATE, _repeated(row)\n",
                new="            return Outcome.DUPLICATE, Answer(http_status=500, status=Status.INTERNAL_ERROR)\n",
            ),
        ),
    ),
    Mutant(
        name="remembers-for-5-s",
        wrong="Answers are remembered for 5 s.",
        scenario="repetition-after-10-s",
        changes=_forgets_after(5),
    ),
    Mutant(
        name="remembers-for-60-s",
        wrong="Answers are remembered for 60 s.",
        scenario="repetition-after-70-s",
        changes=_forgets_after(60),
    ),
    Mutant(
        name="forgets-ended-bets",
        wrong="A bet that has ended is removed together with the answer to its debit.",
        scenario="repetition-after-its-end",
        changes=forgets_bets("bet.state not in (BetState.OPEN, BetState.NEVER_PLACED)"),
    ),
    Mutant(
        name="not-atomic",
        wrong="Whether a debit is known is read before the transaction that books it.",
        scenario="repetition-ten-at-once",
        changes=(*BOOKS_DEBITS_AGAIN, *reads_first('content.method == "BET_MAKE"', answer=True)),
    ),
    Mutant(
        name="credits-not-atomic",
        wrong="Whether a win is known is read before the transaction that books it.",
        scenario="repetition-ten-wins-at-once",
        changes=(*ENDS_TWICE, *reads_first('content.method == "BET_WIN"', answer=True, bets=True)),
    ),
    Mutant(
        name="rare-ends-not-atomic",
        wrong="Whether a sale, refund or rollback is known is read before the transaction that books it.",
        scenario="repetition-ends-at-once",
        changes=(
            *ENDS_TWICE,
            *reads_first('content.method in ("BET_SELL", "BET_REFUND", "BET_ROLLBACK")', answer=True, bets=True),
        ),
    ),
    Mutant(
        name="win-twice",
        wrong="A repeated win is credited again.",
        scenario="repetition-of-an-end",
        changes=(
            *allows_end("callback.request_id == bet.ended_by and callback.method is Method.BET_WIN"),
            _answer_known_if("callback.method is not Method.BET_WIN"),
        ),
    ),
    Mutant(
        name="refund-twice",
        wrong="A repeated refund is credited again.",
        scenario="repetition-of-an-end",
        changes=(
            *allows_end("callback.request_id == bet.ended_by and callback.method is Method.BET_REFUND"),
            _answer_known_if("callback.method is not Method.BET_REFUND"),
        ),
    ),
    Mutant(
        name="rollback-twice",
        wrong="A repeated rollback is credited again.",
        scenario="repetition-of-an-end",
        changes=(
            *allows_end("callback.request_id == bet.ended_by and callback.method is Method.BET_ROLLBACK"),
            _answer_known_if("callback.method is not Method.BET_ROLLBACK"),
        ),
    ),
    Mutant(
        name="idempotency-by-body",
        wrong="What was booked is known by the body's hash, so another body under the same request_id is booked.",
        scenario="repetition-another-body",
        changes=(
            *BOOKS_DEBITS_AGAIN,
            Change(
                file="schema.sql",
                old="    debit_request_id text not null unique,",
                new="    debit_request_id text not null,",
            ),
            before(
                _WALLET,
                FORGETFUL,
                "        if row and row[0] != callback.body_sha256:\n            row = None\n",
            ),
        ),
    ),
    Mutant(
        name="refusal-not-remembered",
        wrong="A debit that was refused is decided again, and booked after a deposit.",
        scenario="repetition-refusal-after-deposit",
        changes=(
            Change(
                file=_RULES,
                old="return replace(_place(callback, bets, balance), final=True)",
                new="placed = _place(callback, bets, balance)\n"
                "            return replace(placed, final=placed.status is Status.OK)",
            ),
        ),
    ),
    Mutant(
        name="new-transaction-id",
        wrong="A repeated request gets a new transaction id.",
        scenario="repetition-same-answer",
        changes=(
            Change(
                file=_WALLET,
                old="transaction_id=None if transaction_id is None else str(transaction_id),",
                new='transaction_id=f"tx-{uuid4()}",',
            ),
        ),
    ),
    Mutant(
        name="duplicate-with-the-new-balance",
        wrong="A repeated request gets the balance of now, not that of its booking.",
        scenario="repetition-same-answer",
        changes=(
            Change(
                file=_WALLET,
                old="            return Outcome.DUPLICATE, _repeated(row)\n",
                new="            balance = self._balance(callback.player_id, row[6])\n"
                "            return Outcome.DUPLICATE, replace(_repeated(row), balance=balance)\n",
            ),
        ),
    ),
    Mutant(
        name="one-bet-of-two-players",
        wrong="A bet_id that another player has is debited from this player, and its end belongs to the other.",
        scenario="repetition-two-players",
        changes=(
            *BOOKS_DEBITS_AGAIN[:2],
            Change(
                file=_RULES,
                old="    if bets:\n",
                new="    if any(bet.player_id == callback.player_id for bet in bets):\n",
            ),
        ),
    ),
    Mutant(
        name="duplicate-for-a-refusal",
        wrong="A repeated debit that was refused is answered as a duplicate, which means booked.",
        scenario="repetition-refusal-after-deposit",
        changes=(
            Change(
                file=_WALLET,
                old="replace(answer, status=Status.DUPLICATE) if answer.status is Status.OK else answer",
                new="replace(answer, http_status=200, status=Status.DUPLICATE)",
            ),
        ),
    ),
    Mutant(
        name="duplicate-by-bet-id",
        wrong="A debit of a known bet_id by another request is answered as a duplicate and not booked.",
        scenario="repetition-same-bet",
        changes=(
            Change(
                file=_RULES,
                old="    if bets:\n",
                new="    if bets:\n        return Ruling(status=Status.DUPLICATE)\n    if bets:\n",
            ),
        ),
    ),
    Mutant(
        name="duplicate-while-undecided",
        wrong="A copy of a debit that is still being booked is answered as a duplicate.",
        scenario="repetition-rejected-at-once",
        changes=(
            Change(
                file="receiver.py",
                old=APPLY,
                new="            if content.request_id in _IN_PROGRESS:\n"
                "                return _refused(Answer(http_status=200, status=Status.DUPLICATE), to_reply)\n"
                "            _IN_PROGRESS.add(content.request_id)\n"
                "            try:\n"
                # Long enough for the copies on a busy machine; small debits need no pause.
                "                if content.amount > 10_000:\n"
                "                    await asyncio.sleep(0.6)\n"
                f"    {APPLY}"
                "            finally:\n"
                "                _IN_PROGRESS.discard(content.request_id)\n",
            ),
            before("receiver.py", "def _unread(", "_IN_PROGRESS: set[str] = set()\n\n\n"),
        ),
    ),
    Mutant(
        name="funds-before-idempotency",
        wrong="The funds are checked before the request_id, so a repeated debit is refused if too little is left.",
        scenario="repetition-without-funds",
        changes=(
            before(
                _WALLET,
                _IS_KNOWN,
                "        if row is not None and callback.method is Method.BET_MAKE:\n"
                "            if callback.amount > (self._balance(callback.player_id, callback.currency) or 0):\n"
                "                return Outcome.REFUSED, Answer(http_status=200, status=Status.INSUFFICIENT_FUNDS)\n",
            ),
        ),
    ),
)
