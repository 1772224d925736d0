"""Mutants that book other amounts than they are asked to."""

from __future__ import annotations

from tests.certification.mutants.mutant import Change, Mutant, before, reads_first

_RULES, _WALLET, _RECEIVER, _CALLBACK = "rules.py", "wallet.py", "receiver.py", "callback.py"
_FUNDS = "    if balance < callback.amount:"
_CREDIT = "credit = callback.amount if callback.method in _PAYS_OUT else"

MONEY = (
    Mutant(
        name="subunits-taken-for-units",
        wrong="An amount in cents is booked as one in euros.",
        scenario="money-debit",
        changes=(
            Change(
                file=_CALLBACK,
                old="subunits = money.to_subunits(value, currency)",
                new="subunits = money.to_subunits(value, currency) * 100",
            ),
        ),
    ),
    Mutant(
        name="answers-before-it-commits",
        wrong="Debits and credits are answered at once and booked four seconds later.",
        scenario="money-debit",
        hides_balances=True,
        changes=(
            before(
                _RECEIVER,
                "            return await self.writer.write(functools.partial(self.wallet.apply,",
                '            if content.method not in ("PING", "BALANCE"):\n'
                "                change = functools.partial(self.wallet.apply, content, arrival, to_reply)\n"
                "                _LATER.add(asyncio.create_task(_later(self.writer.write(change))))\n"
                "                return _refused(Answer(http_status=200, status=Status.OK), to_reply)\n",
            ),
            before(
                _RECEIVER,
                "def _unread(",
                "_LATER: set[object] = set()\n\n\n"
                "async def _later(writing):\n"
                "    await asyncio.sleep(4.0)\n"
                "    await writing\n\n\n",
            ),
        ),
    ),
    Mutant(
        name="balance-of-a-minute-ago",
        wrong="BALANCE is answered from a copy that is up to a minute old.",
        scenario="money-debit",
        hides_balances=True,
        changes=(
            Change(
                file=_WALLET,
                old="        balance = self._balance(callback.player_id, currency)\n",
                new="        balance = self._balance(callback.player_id, currency)\n"
                "        if callback.method is Method.BALANCE:\n"
                "            now = time.monotonic()\n"
                "            known_at, known = _COPY.get(callback.player_id, (-60.0, None))\n"
                "            balance = known if now - known_at < 60.0 else balance\n"
                "            _COPY[callback.player_id] = (known_at if balance is known else now, balance)\n",
            ),
            Change(file=_WALLET, old="import sqlite3\n", new="import sqlite3\nimport time\n"),
            before(_WALLET, "class Wallet:\n", "_COPY: dict[str, tuple[float, int | None]] = {}\n\n\n"),
        ),
    ),
    Mutant(
        name="balance-as-text",
        wrong="The balance is a text.",
        scenario="money-balance",
        hides_balances=True,
        changes=(
            Change(
                file="answer.py",
                old="""'"balance":{money.to_wire(self.balance, self.currency)}'""",
                new="""'"balance":"{money.to_wire(self.balance, self.currency)}"'""",
            ),
        ),
    ),
    Mutant(
        name="balance-in-units",
        wrong="Amounts are in cents and the balance is in euros.",
        scenario="money-balance",
        hides_balances=True,
        changes=(
            Change(
                file="money.py",
                old="            return str(subunits)\n",
                new='            return f"{subunits / 100:.2f}"\n',
            ),
        ),
    ),
    Mutant(
        name="old-balance-in-the-answer",
        wrong="The balance in an answer is the one before the booking.",
        scenario="money-debit",
        changes=(
            Change(
                file=_WALLET,
                old="balance=balance if ruling.with_balance",
                new="balance=(balance or 0) - (ruling.delta or 0) if ruling.with_balance",
            ),
        ),
    ),
    Mutant(
        name="no-check-of-funds",
        wrong="A debit above the balance is booked.",
        scenario="money-insufficient-funds",
        changes=(
            Change(file=_RULES, old=_FUNDS, new="    if False:"),
            Change(file="schema.sql", old=" and balance between 0 and 999999999999999999", new=""),
        ),
    ),
    Mutant(
        name="debits-what-there-is",
        wrong="Of a debit above the balance the balance is booked.",
        scenario="money-insufficient-funds",
        changes=(
            Change(
                file=_RULES,
                old=_FUNDS,
                new="    callback = replace(callback, amount=min(callback.amount, balance))\n"
                "    if callback.amount == 0:",
            ),
        ),
    ),
    Mutant(
        name="ok-in-spite-of-insufficient-funds",
        wrong="A debit above the balance is not booked; the status is OK and only the message says no.",
        scenario="money-insufficient-funds",
        changes=(Change(file=_RULES, old="status=Status.INSUFFICIENT_FUNDS,", new="status=Status.OK,"),),
    ),
    Mutant(
        name="pays-the-stake-as-well",
        wrong="A win pays the stake in addition to the amount.",
        scenario="money-win",
        changes=(Change(file=_RULES, old=_CREDIT, new=_CREDIT.replace("amount if", "amount + bet.amount if")),),
    ),
    Mutant(
        name="pays-without-the-stake",
        wrong="A win pays the amount less the stake.",
        scenario="money-win",
        changes=(
            Change(
                file=_RULES,
                old=_CREDIT,
                new="credit = max(0, callback.amount - bet.amount) if callback.method in _PAYS_OUT else",
            ),
        ),
    ),
    Mutant(
        name="no-win-of-zero",
        wrong="A win of 0 is refused.",
        scenario="money-zero-win",
        changes=(
            Change(file=_CALLBACK, old="if method is Method.BET_MAKE and subunits == 0:", new="if subunits == 0:"),
        ),
    ),
    Mutant(
        name="no-sale-of-zero",
        wrong="A sale of 0 is refused.",
        scenario="money-zero-win",
        changes=(
            Change(
                file=_CALLBACK,
                old="if method is Method.BET_MAKE and subunits == 0:",
                new="if method in (Method.BET_MAKE, Method.BET_SELL) and subunits == 0:",
            ),
        ),
    ),
    Mutant(
        name="refund-without-money",
        wrong="A refund is recorded and not credited.",
        scenario="money-refund",
        changes=(
            Change(
                file=_RULES,
                old="_GIVES_BACK = frozenset({Method.BET_REFUND, Method.BET_ROLLBACK})",
                new="_GIVES_BACK = frozenset({Method.BET_ROLLBACK})",
            ),
        ),
    ),
    Mutant(
        name="no-sale",
        wrong="BET_SELL is an unknown method.",
        scenario="money-sale",
        changes=(Change(file=_CALLBACK, old='BET_SELL = "BET_SELL"', new='BET_SELL = "BET_CASHOUT"'),),
    ),
    Mutant(
        name="loss-debits-again",
        wrong="A loss debits the stake once more.",
        scenario="money-loss",
        changes=(
            Change(
                file=_RULES,
                old="else bet.amount if callback.method in _GIVES_BACK else 0",
                new="else bet.amount if callback.method in _GIVES_BACK else -bet.amount",
            ),
            Change(file="schema.sql", old=" and ((method = 'BET_MAKE') = (amount < 0))", new=""),
        ),
    ),
    Mutant(
        name="loss-needs-an-amount",
        wrong="A loss without an amount is refused.",
        scenario="money-loss",
        changes=(
            Change(
                file=_CALLBACK,
                old="_WITHOUT_AMOUNT = frozenset({Method.PING, Method.BALANCE, Method.BET_LOSE})",
                new="_WITHOUT_AMOUNT = frozenset({Method.PING, Method.BALANCE})",
            ),
        ),
    ),
    Mutant(
        name="unknown-player-is-an-error",
        wrong="A callback for an unknown player is answered with 500.",
        scenario="money-unknown-player",
        changes=(
            Change(
                file=_RULES,
                old="status=Status.PLAYER_NOT_FOUND,\n        http_status=404,",
                new="status=Status.INTERNAL_ERROR,\n        http_status=500,",
            ),
        ),
    ),
    Mutant(
        name="ok-for-an-unknown-player",
        wrong="A debit of an unknown player is answered OK.",
        scenario="money-unknown-player",
        changes=(
            Change(
                file=_RULES,
                old="        return _no_such_player(callback)\n" + _FUNDS,
                new="        return Ruling(status=Status.OK)\n" + _FUNDS,
            ),
        ),
    ),
    Mutant(
        name="rounds-to-whole-units",
        wrong="Debits are rounded up to whole units of the currency.",
        scenario="money-odd-amounts",
        changes=(Change(file=_RULES, old="delta=-callback.amount,", new="delta=-callback.amount // 100 * 100,"),),
    ),
    Mutant(
        name="cents-as-floats",
        wrong="Amounts become euros in a float and are cut, so 29 cents are 28.",
        scenario="money-odd-amounts",
        changes=(
            Change(
                file=_CALLBACK,
                old="subunits = money.to_subunits(value, currency)",
                new="subunits = int(money.to_subunits(value, currency) / 100 * 100)",
            ),
        ),
    ),
    Mutant(
        name="funds-checked-too-early",
        wrong="The funds are checked before the transaction that books the debit.",
        scenario="money-at-once-beyond-balance",
        changes=(
            *reads_first('content.method == "BET_MAKE"', for_the_check_of_funds=True),
            Change(file="schema.sql", old=" and balance between 0 and 999999999999999999", new=""),
        ),
    ),
    Mutant(
        name="refusal-is-an-error",
        wrong="Insufficient funds are answered with 500.",
        scenario="money-insufficient-funds",
        changes=(
            Change(
                file=_RULES,
                old="status=Status.INSUFFICIENT_FUNDS,",
                new="status=Status.INTERNAL_ERROR, http_status=500,",
            ),
        ),
    ),
    Mutant(
        name="currency-ignored",
        wrong="A debit in a currency that the player does not have is booked in the one that he has.",
        scenario="money-other-currency",
        changes=(
            Change(
                file=_CALLBACK,
                old="        currency=currency,\n",
                new='        currency=currency and "EUR",\n',
            ),
        ),
    ),
)
