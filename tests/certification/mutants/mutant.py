"""The model of a mutant: the reference operator with one realistic bug, made by replacing text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "predictu_dispatch" / "reference_operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Replaces `old`, which occurs exactly once in `file` of the reference operator, by `new`."""

    file: str
    old: str
    new: str

    def applied_to(self, text: str) -> str:
        """Return the changed text. Raises ValueError if `old` does not occur exactly once."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.old!r} occurs {count} times in {self.file}; it must occur once")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """With it the operator serves https://127.0.0.1."""

    host: str = "127.0.0.1"
    days: int = 200
    """How long it is still valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One bug. `scenario` is the id of the scenario that was made to find it."""

    name: str
    wrong: str
    """What is wrong with it, in one sentence."""
    scenario: str
    changes: tuple[Change, ...] = ()
    amount_format: str = "subunits"
    certificate: Certificate | None = None
    """None: http://."""
    played_before: tuple[str, ...] = ()
    """Scenarios that must be played before it, because it judges what they book."""
    timeout_s: float = 5.0
    """How long an answer may take."""
    hides_balances: bool = False
    """BALANCE does not say what is in the books."""


def before(file: str, anchor: str, added: str) -> Change:
    """Return a change that inserts text before the anchor."""
    return Change(file=file, old=anchor, new=added + anchor)


# Changes that several mutants need.

FORGETFUL = "        if row is not None and row[0] != callback.body_sha256:"
"""Where the wallet has just read what it remembers of a request_id, as `row`."""
_SECOND_BOOKING = Change(
    file="schema.sql",
    old="    request_id text not null unique,\n    method",
    new="    request_id text not null,\n    method",
)
BOOKS_DEBITS_AGAIN = (
    _SECOND_BOOKING,
    Change(
        file="schema.sql", old="create unique index if not exists one_debit", new="create index if not exists one_debit"
    ),
    Change(file="rules.py", old="    if bets:\n", new="    if False:\n"),
)
"""Nothing but the remembered answer stops a debit from being booked a second time."""
APPLY = "            return await self.writer.write(functools.partial(self.wallet.apply, content, arrival, to_reply))\n"
"""Where the receiver has the wallet book `content`."""
ENDS_TWICE = (
    _SECOND_BOOKING,
    Change(
        file="schema.sql",
        old="create unique index if not exists one_terminal",
        new="create index if not exists one_terminal",
    ),
)
"""The tables allow a second end of a bet."""


def allows_end(condition: str) -> tuple[Change, ...]:
    """Return the changes that allow an end of an ended bet, if the condition holds."""
    old = "    if bet.state is not BetState.OPEN:"
    return (*ENDS_TWICE, Change(file="rules.py", old=old, new=f"{old[:-1]} and not ({condition}):"))


def reads_first(
    condition: str,
    *,
    answer: bool = False,
    bets: bool = False,
    balance: bool = False,
    for_the_check_of_funds: bool = False,
    pause_s: float = 0.2,
) -> tuple[Change, ...]:
    """Return the changes that read some of the state before the transaction that changes it.

    The condition is on `content`, the callback. The pause stands for a slow database.
    """
    return (
        before(
            "receiver.py",
            APPLY,
            f"            if {condition}:\n"
            "                known = await self.writer.write(functools.partial(self.wallet.read, content))\n"
            f"                await asyncio.sleep({pause_s})\n\n"
            "                def change() -> Decision:\n"
            "                    self.wallet.known = known\n"
            "                    return self.wallet.apply(content, arrival, to_reply)\n\n"
            "                return await self.writer.write(change)\n",
        ),
        before(
            "wallet.py",
            "    def record(self, names",
            "    known = None\n\n"
            "    def read(self, callback):\n"
            "        row = self._sql.execute(\n"
            '            "select body_sha256, final, http_status, status, message, balance, currency, transaction_id"\n'
            '            " from answers where request_id = ?", (callback.request_id,)\n'
            "        ).fetchone()\n"
            "        return row, self._bets(callback), self._balance(callback.player_id, callback.currency)\n\n",
        ),
        before(
            "wallet.py",
            FORGETFUL,
            "        known, self.known = self.known, None\n" + ("        row = known[0] if known else row\n" * answer),
        ),
        before(
            "wallet.py",
            "        ruling = rule(callback,",
            ("        bets = known[1] if known else bets\n" * bets)
            + ("        balance = known[2] if known else balance\n" * balance),
        ),
        *(
            (
                Change(
                    file="wallet.py",
                    old="        ruling = rule(callback, bets=bets, balance=balance)\n",
                    new="        ruling = rule(callback, bets=bets, balance=known[2] if known else balance)\n",
                ),
            )
            * for_the_check_of_funds
        ),
    )
