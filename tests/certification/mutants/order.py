"""Mutants that book callbacks which come in an order that production can have."""

from __future__ import annotations

from tests.certification.mutants.mutant import ENDS_TWICE, Change, Mutant, allows_end, before, reads_first
from tests.certification.mutants.repetition import forgets_bets

_RULES = "rules.py"
_TOMBSTONE = "        bet=tombstone,\n        final=True,\n"
_NOT_FOUND = "        status=Status.TRANSACTION_NOT_FOUND,\n        http_status=404,\n"

ORDER = (
    Mutant(
        name="error-for-an-unknown-rollback",
        wrong="A rollback of an unknown debit is answered with 500.",
        scenario="order-rollback-of-unknown",
        changes=(
            Change(
                file=_RULES, old=_NOT_FOUND, new="        status=Status.INTERNAL_ERROR,\n        http_status=500,\n"
            ),
            Change(file=_RULES, old=_TOMBSTONE, new=""),
        ),
    ),
    Mutant(
        name="no-tombstone",
        wrong="A debit that arrives after its rollback is booked.",
        scenario="order-rollback-of-unknown",
        changes=(Change(file=_RULES, old=_TOMBSTONE, new="        final=True,\n"),),
    ),
    Mutant(
        name="rollback-credits-the-unknown",
        wrong="A rollback of an unknown debit credits its amount.",
        scenario="order-rollback-of-unknown",
        changes=(
            Change(file=_RULES, old=_NOT_FOUND, new="        status=Status.OK,\n        delta=callback.amount,\n"),
        ),
    ),
    Mutant(
        name="rejected-debit-rolled-back",
        wrong="A debit that is rejected is stored like a booked one, so its rollback is credited.",
        scenario="order-rollback-of-rejected",
        changes=(
            Change(
                file=_RULES,
                old="    if balance < callback.amount:\n        return Ruling(\n",
                new="    if balance < callback.amount:\n        return Ruling(\n            bet=_bet_of(callback),\n",
            ),
            Change(file=_RULES, old="    bet = Bet(\n", new="    bet = _bet_of(callback)\n    Bet(\n"),
            before(
                _RULES,
                "def _never_placed(",
                "def _bet_of(callback: Callback) -> Bet:\n"
                "    return Bet(\n"
                "        bet_id=callback.bet_id,\n"
                "        debit_request_id=callback.request_id,\n"
                "        player_id=callback.player_id,\n"
                "        currency=callback.currency,\n"
                "        amount=callback.amount,\n"
                "        state=BetState.OPEN,\n"
                "        ended_by=None,\n"
                "    )\n\n\n",
            ),
        ),
    ),
    Mutant(
        name="refund-after-win-credited",
        wrong="A refund of a bet that was won gives the stake back as well.",
        scenario="order-second-ends",
        changes=allows_end("callback.method is Method.BET_REFUND and bet.state is BetState.WON"),
    ),
    Mutant(
        name="rollback-after-loss-credited",
        wrong="A rollback of a lost bet gives the stake back.",
        scenario="order-second-ends",
        changes=allows_end("callback.method is Method.BET_ROLLBACK and bet.state is BetState.LOST"),
    ),
    Mutant(
        name="two-sales-credited",
        wrong="A second sale of the same bet, by another request, is credited.",
        scenario="order-second-ends",
        changes=allows_end("callback.method is Method.BET_SELL and bet.state is BetState.SOLD"),
    ),
    Mutant(
        name="second-rollback-credited",
        wrong="A second rollback of the same debit, by another request, is credited.",
        scenario="order-rollback-twice",
        changes=allows_end("callback.method is Method.BET_ROLLBACK and bet.state is BetState.ROLLED_BACK"),
    ),
    Mutant(
        name="win-without-a-bet",
        wrong="A win of a bet that was never placed is credited.",
        scenario="order-win-before-debit",
        changes=(
            Change(
                file=_RULES,
                old="    if not bets:\n        return Ruling(\n",
                new="    if not bets and callback.method is Method.BET_WIN:\n"
                "        return Ruling(status=Status.OK, delta=callback.amount, final=True, with_balance=True)\n"
                "    if not bets:\n        return Ruling(\n",
            ),
        ),
    ),
    Mutant(
        name="win-after-rollback-credited",
        wrong="A win of a bet that was rolled back is credited.",
        scenario="order-win-after-rollback",
        changes=allows_end("callback.method is Method.BET_WIN and bet.state is BetState.ROLLED_BACK"),
    ),
    Mutant(
        name="win-after-loss-credited",
        wrong="A win of a lost bet is credited.",
        scenario="order-win-after-loss",
        changes=allows_end("callback.method is Method.BET_WIN and bet.state is BetState.LOST"),
    ),
    Mutant(
        name="two-wins-credited",
        wrong="A second win of the same bet, by another request, is credited.",
        scenario="order-two-wins",
        changes=allows_end("callback.method is Method.BET_WIN and bet.state is BetState.WON"),
    ),
    Mutant(
        name="rollback-after-win-credited",
        wrong="A rollback of a bet that was won gives the stake back as well.",
        scenario="order-rollback-after-win",
        changes=allows_end("callback.method is Method.BET_ROLLBACK and bet.state is BetState.WON"),
    ),
    Mutant(
        name="rollback-forgets-the-debit",
        wrong="A rollback removes the bet and the answer to its debit, so the repeated debit is booked again.",
        scenario="order-debit-after-rollback",
        changes=forgets_bets("bet.state is BetState.ROLLED_BACK"),
    ),
    Mutant(
        name="tombstone-for-5-s",
        wrong="That a bet was rolled back before its debit is remembered for 5 s.",
        scenario="order-rollback-10-s-before-debit",
        changes=(
            Change(
                file="wallet.py",
                old="        ruling = rule(callback,",
                new="        bets = [b for b in bets if b.state is not BetState.NEVER_PLACED or _is_fresh(b.bet_id)]\n"
                "        ruling = rule(callback,",
            ),
            before(
                "wallet.py",
                "class Wallet:\n",
                "_SINCE: dict[str, float] = {}\n\n\n"
                "def _is_fresh(bet_id: str) -> bool:\n"
                "    import os\n"
                "    import time\n"
                "    now = time.monotonic()\n"
                '    return now - _SINCE.setdefault(bet_id, now) < 5 / float(os.environ.get("SPEED", "1"))\n\n\n',
            ),
            Change(
                file="wallet.py",
                old="            self._save(ruling.bet)\n",
                new="            self._save(ruling.bet)\n            _is_fresh(ruling.bet.bet_id)\n",
            ),
        ),
    ),
    Mutant(
        name="rollback-beside-its-debit",
        wrong="Debits and rollbacks read what is known of the bet before the transaction that books them.",
        scenario="order-rollback-beside-debit",
        changes=reads_first('content.method in ("BET_MAKE", "BET_ROLLBACK")', bets=True),
    ),
    Mutant(
        name="two-ends-beside-each-other",
        wrong="Whether a bet is open is read before the transaction that ends it.",
        scenario="order-two-ends-at-once",
        changes=(
            *ENDS_TWICE,
            *reads_first('content.method in ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND")', bets=True),
        ),
    ),
)
