"""A second classification of a reconciliation, with loops and dictionaries, as slow as it likes.

It is written from predictu_dispatch/reconciliation/README.md alone and shares no code with the SQL
or with core/difference_classes.py, so that a fault in one of the two is a disagreement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from tests.reconciliation.naive_audit import Row
from tests.reconciliation.naive_lines import Line
from tests.reconciliation.naive_matching import FINAL, Books, Item, NaiveMatcher, Period, signed

OWED = (
    *("booked_twice", "currency_differs", "player_differs", "amount_differs", "booked_though_rejected"),
    *("booked_though_never_sent", "debit_standing", "rolled_back_but_credited", "two_ends"),
    *("missing_there", "missing_here"),
)


def may_have_been_applied(attempt: Row) -> bool:
    """Return True if the operator may have booked something because of this attempt."""
    match attempt["verdict"]:
        case "delivered":
            return True
        case "rejected":
            return bool(attempt["reason"] == "unknown_status")
        case "retry":
            return bool(attempt["evidence"] != "not_sent" and attempt["reason"] != "nothing_to_reverse")
    return False


class NaiveClassifier(NaiveMatcher):
    """Classifies when it is made; `items` is the result."""

    def __init__(self, books: Books, lines: Sequence[Line], period: Period) -> None:
        super().__init__(books, lines, period)
        self.items = self._classified()

    # The classes.

    def _classified(self) -> list[Item]:
        for item in self.matched.values():
            item.name = self._class_of(item)
        for item in list(self.matched.values()):
            if item.name == "debit_standing":
                assert item.callback is not None
                bet = self.bets[item.callback["bet_id"]]
                for key in (("callback", bet["placement_request_id"]), ("adopted", bet["bet_id"])):
                    # A debit with a difference or contradiction of its own stays apart.
                    debit = self.matched.get(key)
                    if debit is not None and debit.name not in (*OWED, "ours"):
                        item.debit = self.matched.pop(key)
        items = list(self.matched.values())
        for item in items:
            self._count(item)
        return items

    def _is_debit_standing(self, item: Item) -> bool:
        row = item.callback
        if row is not None and row["method"] == "BET_MAKE":
            return self._was_never_reversed(item, row)
        if row is None or row["method"] != "BET_ROLLBACK" or row["state"] != "delivered" or item.lines:
            return False
        bet = self.bets[row["bet_id"]]
        return self._has_debit_line(bet) or (self.confirmed_debit(bet) and self._is_debit_elsewhere(bet))

    def _was_never_reversed(self, item: Item, row: Row) -> bool:
        """Return True for an unknown debit whose rollback of another period reversed nothing."""
        rollback = self.callbacks.get(self.bets[row["bet_id"]]["terminal_request_id"])
        if rollback is None or rollback["state"] != "delivered" or rollback["reason"] != "nothing_to_reverse":
            return False
        is_booked = any(self.period.has(line.booked_at) for line in item.lines)
        reversal = self.matched.get(("callback", rollback["request_id"]))
        is_reversed = reversal is not None and reversal.lines
        return (
            row["effect"] == "unknown"
            and is_booked
            and not is_reversed
            and not self.period.has(rollback["finished_at"])
        )

    def _has_debit_line(self, bet: Row) -> bool:
        keys = (("callback", bet["placement_request_id"]), ("adopted", bet["bet_id"]))
        return any(key in self.matched and self.matched[key].lines for key in keys)

    def _is_debit_elsewhere(self, bet: Row) -> bool:
        row = self.callbacks.get(bet["placement_request_id"])
        if row is None or row["finished_at"] is None or row["created_at"] < self.period.start:
            return True
        settle = timedelta(seconds=self.period.settle_s)
        return bool(row["created_at"] - settle < self.given_from or row["finished_at"] + settle > self.given_until)

    def _reverses_nothing(self, item: Item) -> bool:
        """Return True for a booked rollback whose debit was neither confirmed nor booked."""
        row = item.callback
        if row is None or row["method"] != "BET_ROLLBACK" or not item.lines:
            return False
        bet = self.bets[row["bet_id"]]
        return not (self.confirmed_debit(bet) or self._has_debit_line(bet) or self._is_debit_elsewhere(bet))

    def _class_of(self, item: Item) -> str:  # noqa: PLR0911, PLR0912, C901 - one return for each class, in the order of the table
        row = item.callback
        known = self.knowledge(row) if row else "unknown" if item.adopted else "no_callback"
        contradicts = item.key[1] in self.ours
        if not contradicts and not self._is_in_window(item):
            return "out_of_window"
        if contradicts:
            return "ours"
        if known == "pending" or self._may_be_elsewhere(item, known):
            return "in_flight"
        if len(item.lines) > 1:
            return "booked_twice"
        if any(line.currency != self._expected(item)[0] for line in item.lines if known != "no_callback"):
            return "currency_differs"
        players = {line.player_id for line in item.lines if line.player_id is not None}
        if known != "no_callback" and players - {self._expected(item)[1]}:
            return "player_differs"
        if any(line.amount != self._expected(item)[2] for line in item.lines if known != "no_callback"):
            return "amount_differs"
        if known == "unknown" and self._reverses_nothing(item):
            return "amount_differs"
        if item.lines and known == "rejected":
            return "booked_though_rejected"
        if item.lines and known == "never_sent":
            return "booked_though_never_sent"
        if self._is_debit_standing(item):
            return "debit_standing"
        if known == "no_callback" and (end := self._other_end(item.lines[0])):
            return end
        if row is not None and self._is_without_end(item, row, known):
            return "no_end"
        if row is not None and self._is_on_another_day(item, row):
            return "day_differs"
        if known == "unknown":
            return "agreed_resolves_unknown"
        if known == "confirmed":
            return "agreed" if item.lines else "missing_there"
        return "agreed" if known in ("rejected", "never_sent") else "missing_here"

    def _is_in_window(self, item: Item) -> bool:
        if any(self.period.has(line.booked_at) for line in item.lines):
            return True
        row = item.callback
        if row is None:
            return False
        return self.period.has(row["finished_at"] if row["state"] in FINAL else row["created_at"])

    def _may_be_elsewhere(self, item: Item, known: str) -> bool:
        row = item.callback
        if item.lines or row is None:
            return False
        if row["method"] == "BET_ROLLBACK" and row["state"] == "delivered":
            bet = self.bets[row["bet_id"]]
            debit = self.callbacks.get(bet["placement_request_id"])
            is_unknown = debit is not None and debit["effect"] == "unknown"
            if is_unknown and not self._has_debit_line(bet) and self._is_debit_elsewhere(bet):
                return True
        if known not in ("confirmed", "unknown"):
            return False
        settle = timedelta(seconds=self.period.settle_s)
        applied = [one["started_at"] for one in self.attempts[row["request_id"]] if may_have_been_applied(one)]
        begins = min(applied, default=row["created_at"])
        return bool(begins - settle < self.given_from or row["finished_at"] + settle > self.given_until)

    def _expected(self, item: Item) -> tuple[str, str, int]:
        """Return currency, player and signed amount that the item's lines should have."""
        if item.adopted is not None:
            return item.adopted["currency"], item.adopted["player_id"], -item.adopted["amount"]
        assert item.callback is not None
        row = item.callback
        if row["method"] == "BET_LOSE":
            bet = self.bets[row["bet_id"]]
            return bet["currency"], bet["player_id"], 0
        return row["params"]["currency"], row["params"]["player_id"], signed(row)

    def _other_end(self, line: Line) -> str:
        ends = self.ends.get(line.bet_id or "", [])
        if line.is_debit or not ends or ends[0][1] is line:
            return ""
        methods = [method for method, _ in ends]
        if "BET_ROLLBACK" in methods and set(methods) != {"BET_ROLLBACK"}:
            return "rolled_back_but_credited"
        return "two_ends"

    def _is_without_end(self, item: Item, row: Row, known: str) -> bool:
        bet = self.bets[row["bet_id"]]
        if row["method"] != "BET_MAKE" or known != "confirmed" or not item.lines or bet["state"] != "open":
            return False
        if row["created_at"] >= self.period.run_at - timedelta(days=self.period.no_end_days):
            return False
        return not any(line.bet_id == bet["bet_id"] and not line.is_debit for line in self.lines)

    def _is_on_another_day(self, item: Item, row: Row) -> bool:
        if not self.in_ledger(row) or len(item.lines) != 1:
            return False
        return item.lines[0].day != self.period.dialect.day_of(row["finished_at"])

    # The money.

    def _count(self, item: Item) -> None:
        if item.callback is not None or item.adopted is not None:
            item.currency = self._expected(item)[0]
        elif item.lines:
            item.currency = min((line.place, line.currency) for line in item.lines)[1]
        for row in (item.callback, item.debit.callback if item.debit else None):
            if row is None:
                continue
            item.rows_ours += 1
            if amount := self.our_amount(row):
                day = self.period.dialect.day_of(row["finished_at"])
                item.amounts.setdefault((row["params"]["currency"], day), [0, 0])[0] += amount
        for line in item.all_lines:
            if self.period.has(line.booked_at):
                item.amounts.setdefault((line.currency, line.day), [0, 0])[1] += line.amount
        if item.name in OWED:
            self._dispute(item)

    def _dispute(self, item: Item) -> None:
        if item.name == "debit_standing":
            assert item.callback is not None
            bet = self.bets[item.callback["bet_id"]]
            item.disputed[bet["currency"]] = item.owed[bet["currency"]] = bet["amount"]
            return
        sums: Counter[str] = Counter()
        for (currency, _), (ours, theirs) in item.amounts.items():
            sums[currency] += theirs - ours
        if self._shows_the_outcome(item):
            currency, _, amount = self._expected(item)
            sums[currency] -= amount
        for currency, total in sums.items():
            item.disputed[currency] = abs(total)
            item.owed[currency] = max(-total, 0)

    def _shows_the_outcome(self, item: Item) -> bool:
        """Return True for an unknown outcome that the first line, booked in the period, shows."""
        if item.callback is not None and self.knowledge(item.callback) != "unknown":
            return False
        is_known_here = item.callback is not None or item.adopted is not None
        first = min((line.booked_at for line in item.lines), default=None)
        return is_known_here and self.period.has(first) and not self._reverses_nothing(item)
