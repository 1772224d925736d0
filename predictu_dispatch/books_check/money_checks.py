"""The money: what each bet came to for Predictu, against what every wallet and ledger says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from predictu_dispatch.books_check.check import Check, amount_text, by_state, money_text
from predictu_dispatch.books_check.ledgers import BetHistory, CallbackRow, LedgerEntry, OperatorLedger, PredictuLedger

_PAYOUTS: Final = frozenset({"BET_WIN", "BET_SELL"})
_RETURNS: Final = frozenset({"BET_REFUND", "BET_ROLLBACK"})


class WalletSums(NamedTuple):
    """All wallets of one operator together, in subunits; `expected` must equal `wallets`."""

    opening: int
    debits: int
    credits: int
    wallets: int

    @property
    def expected(self) -> int:
        return self.opening - self.debits + self.credits


def wallet_sums(predictu: PredictuLedger, operator: OperatorLedger, opening: Mapping[str, int]) -> WalletSums:
    """The sums of one operator: debits and credits as Predictu's bets demand them."""
    debits, credits_ = _debits_and_credits(operator, predictu.histories())
    return WalletSums(
        opening=sum(opening.values()),
        debits=debits.total(),
        credits=credits_.total(),
        wallets=sum(operator.balances.values()),
    )


def money_checks(
    predictu: PredictuLedger, operators: Sequence[OperatorLedger], opening: Mapping[str, Mapping[str, int]]
) -> Iterator[Check]:
    """Check the money; `opening` holds the first balances by operator and player."""
    histories = predictu.histories()
    for operator in operators:
        yield _wallet_check(operator, opening[operator.operator_id], histories)
    yield _bet_check(operators, histories)
    yield _entry_check(predictu, operators, histories)
    yield _terminal_check(predictu, operators)


def debit_and_credit(history: BetHistory) -> tuple[int, int]:
    """The debit and the credit that follow from a bet's state and terminal, in subunits."""
    stake, placement, terminal = history.bet.amount, history.placement, history.terminal
    if history.bet.state == "void":
        return 0, 0
    if terminal is None or terminal.state != "delivered":
        return (stake if placement is None or placement.state == "delivered" else 0), 0
    if terminal.method in _PAYOUTS:
        return stake, terminal.amount or 0
    if terminal.method in _RETURNS:
        return (0, 0) if terminal.reason == "nothing_to_reverse" else (stake, stake)
    return stake, 0


def _debits_and_credits(operator: OperatorLedger, histories: list[BetHistory]) -> tuple[Counter[str], Counter[str]]:
    """By player."""
    debits, credits_ = Counter[str](), Counter[str]()
    for history in histories:
        if history.bet.operator_id == operator.operator_id:
            debit, credit = debit_and_credit(history)
            debits[history.bet.player_id] += debit
            credits_[history.bet.player_id] += credit
    return debits, credits_


def _wallet_check(operator: OperatorLedger, opening: Mapping[str, int], histories: list[BetHistory]) -> Check:
    debits, credits_ = _debits_and_credits(operator, histories)
    faults = []
    for player_id in sorted({*opening, *operator.balances, *(+debits), *(+credits_)}):
        expected = opening.get(player_id, 0) - debits[player_id] + credits_[player_id]
        found = operator.balances.get(player_id, 0)
        if found != expected:
            faults.append(
                f"{operator.operator_id} {player_id}: the wallet holds {money_text(found)},"
                f" expected {money_text(expected)}"
            )
    first, debited, credited = sum(opening.values()), debits.total(), credits_.total()
    return Check(
        name=f"{operator.operator_id}: opening - debits + credits",
        rows=min(len(operator.balances), len(operator.entries)),
        figures=(
            f"{amount_text(first)} - {amount_text(debited)} + {amount_text(credited)}"
            f" = {amount_text(sum(operator.balances.values()))}"
        ),
        faults=tuple(faults),
    )


def _bet_check(operators: Sequence[OperatorLedger], histories: list[BetHistory]) -> Check:
    changes = Counter[tuple[str, str]]()
    for operator in operators:
        for entry in operator.entries:
            changes[operator.operator_id, entry.bet_id] += entry.amount
    faults = []
    for history in histories:
        key = (history.bet.operator_id, history.bet.bet_id)
        debit, credit = debit_and_credit(history)
        if (found := changes.pop(key, 0)) != credit - debit:
            faults.append(
                f"{key[0]} {key[1]} is {history.bet.state}: the ledger moved {money_text(found)},"
                f" Predictu {money_text(credit - debit)}"
            )
        if history.placement is not None and history.placement.amount != history.bet.amount:
            faults.append(f"{key[0]} {key[1]}: the bet's stake and its BET_MAKE's amount differ")
    faults += [f"{operator_id} {bet_id}: in the ledger, unknown to Predictu" for operator_id, bet_id in changes]
    return Check(
        name="ledger matches each bet's state",
        rows=len(histories),
        figures=by_state(history.bet.state for history in histories),
        faults=tuple(faults),
    )


def _entry_check(predictu: PredictuLedger, operators: Sequence[OperatorLedger], histories: list[BetHistory]) -> Check:
    """Each delivered callback has one entry; others are rolled back or adopted debits."""
    entries: dict[tuple[str, str], list[LedgerEntry]] = defaultdict(list)
    for operator in operators:
        for entry in operator.entries:
            entries[operator.operator_id, entry.request_id].append(entry)
    stakes = {(history.bet.operator_id, history.bet.bet_id): history.bet.amount for history in histories}
    delivered = [
        callback
        for callback in predictu.callbacks
        if callback.bet_id is not None and callback.state == "delivered" and callback.reason != "nothing_to_reverse"
    ]
    faults = []
    for callback in delivered:
        found = entries.pop((callback.operator_id, callback.request_id), [])
        sent = _change_of(callback, stakes.get((callback.operator_id, callback.bet_id or ""), 0))
        if [(entry.method, entry.bet_id, entry.amount) for entry in found] != [
            (callback.method, callback.bet_id, sent)
        ]:
            amounts = ", ".join(f"{entry.method} {money_text(entry.amount)}" for entry in found) or "no entry"
            faults.append(f"{callback.label} of {money_text(sent)} is delivered, the ledger has {amounts}")
    # A debit whose answer was lost stands beside the rollback that returned it.
    explained = {
        (history.bet.operator_id, history.bet.placement_request_id): -history.bet.amount
        for history in histories
        if history.placement is None or debit_and_credit(history) == (history.bet.amount, history.bet.amount)
    }
    faults += [
        f"{key[0]} {entry.bet_id}: {entry.method} {key[1]} has a ledger entry of"
        f" {money_text(entry.amount)} and is not delivered"
        for key, found in entries.items()
        if [entry.amount for entry in found] != [explained.get(key)]
        for entry in found
    ]
    return Check(
        name="each delivery is booked once",
        rows=len(delivered),
        figures=f"{len(delivered)} delivered, {len(entries)} returned or adopted",
        faults=tuple(faults),
    )


def _change_of(callback: CallbackRow, stake: int) -> int:
    """The change of the balance by a delivered callback, in subunits."""
    if callback.method == "BET_MAKE":
        return -stake
    return 0 if callback.method == "BET_LOSE" else callback.amount or 0


def _terminal_check(predictu: PredictuLedger, operators: Sequence[OperatorLedger]) -> Check:
    booked = Counter(
        (operator.operator_id, entry.bet_id)
        for operator in operators
        for entry in operator.entries
        if entry.method != "BET_MAKE"
    )
    sent = Counter(
        (callback.operator_id, callback.bet_id)
        for callback in predictu.callbacks
        if callback.bet_id is not None and callback.method != "BET_MAKE" and callback.attempts > 0
    )
    return Check(
        name="no bet was ended twice",
        rows=len(booked),
        figures=f"{booked.total()} booked for {len(booked)} bets, {sent.total()} sent for {len(sent)}",
        faults=tuple(
            f"{key[0]} {key[1]}: {booked[key]} terminals booked, {sent[key]} sent"
            for key in sorted(booked | sent)
            if max(booked[key], sent[key]) > 1
        ),
    )
