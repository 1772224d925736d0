"""Plants faults of known classes into a ledger, each at a bet of its own, and remembers them.

It knows which class each fault must get and what it costs, but not how it is found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from tests.reconciliation.ledger_files import Entry
from tests.reconciliation.naive_audit import Row
from tests.reconciliation.naive_matching import Books, Period
from tests.reconciliation.planted_ledger import Fault, PlacedBet, PlantedLedger, new_fault

CREDITS = ("BET_WIN", "BET_SELL", "BET_REFUND", "BET_LOSE")


_OF_CALLBACK = " where operator_id = $1 and request_id = $2"
_OF_DELIVERY = f"{_OF_CALLBACK} and verdict = 'delivered'"
_CORRUPTIONS = (
    f"delete from predictu_dispatch.attempt_record{_OF_DELIVERY}",  # noqa: S608 - constants
    f"update predictu_dispatch.attempt_record set verdict = 'rejected'{_OF_DELIVERY}",  # noqa: S608 - as above
    (
        "update predictu_dispatch.attempt_record"  # noqa: S608 - as above
        f' set request_body = replace(request_body, \'"player_id":"\', \'"player_id":"x\'){_OF_DELIVERY}'
    ),
    f"update predictu_dispatch.callback set attempts = attempts + 1{_OF_CALLBACK}",  # noqa: S608 - as above
    f'update predictu_dispatch.callback set params = params || \'{{"player_id": "x"}}\'{_OF_CALLBACK}',  # noqa: S608 - as above
    "update predictu_dispatch.bet set state = 'closing' where operator_id = $1 and terminal_request_id = $2",
)


class Planter(PlantedLedger):
    """Plants faults into `entries`."""

    def __init__(
        self, books: Books, entries: Sequence[Entry], period: Period, rng: random.Random, *, is_whole: bool
    ) -> None:
        super().__init__(books, entries, period, rng, is_whole=is_whole)
        self._kinds: dict[str, Callable[[PlacedBet], Fault | None]] = {
            "a line is left out": self._left_out,
            "a line is left out at the period's edge": self._left_out_at_the_edge,
            "booked twice": self._booked_twice,
            "another amount": self._another_amount,
            "another currency": self._another_currency,
            "another player": self._another_player,
            "a rejected request is booked": self._rejected_booked,
            "an unsent request is booked": self._unsent_booked,
            "the rollback's line is left out": self._rollback_left_out,
            "a debit lands after its rollback": self._debit_lands,
            "a rolled-back bet is paid out": self._paid_out,
            "an ended bet is rolled back": self._rolled_back,
            "a second end": self._second_end,
            "booked on another day": self._another_day,
            "a foreign line": self._foreign,
            "an end without a bet": self._end_of_void,
            "an unreadable line": self._unreadable,
            "a repeated line": self._repeated,
            "a line outside the period": self._outside,
            "our rows contradict": self._contradiction,
        }

    def plant(self, count: int) -> list[Fault]:
        """Plant this number of faults of all kinds, one at a bet; fewer if no bet is left."""
        waiting = {kind: self.rng.sample(self.bets, len(self.bets)) for kind in self._kinds}
        used: set[str] = set()
        faults: list[Fault] = []
        while waiting and len(faults) < count:
            # The kind with the fewest bets that may take it goes first in each round.
            for kind in list(waiting):
                fault = None
                while waiting[kind] and fault is None and len(faults) < count:
                    bet = waiting[kind].pop()
                    if bet.row["bet_id"] not in used and (fault := self._kinds[kind](bet)):
                        used.add(bet.row["bet_id"])
                        fault.kind = kind
                        faults.append(fault)
                if not waiting[kind]:
                    del waiting[kind]
        return faults

    # The faults, each of one bet; None if the bet cannot have it.

    def _left_out(self, bet: PlacedBet) -> Fault | None:
        for row, line in self._confirmed(bet):
            if row["method"] != "BET_ROLLBACK":
                self._remove(line)
                return new_fault("missing_there", row, {line.currency: abs(line.amount)})
        return None

    def _left_out_at_the_edge(self, bet: PlacedBet) -> Fault | None:
        """A line that is left out where the ledger ends may stand in the next ledger."""
        if self.is_whole:
            return None
        for row in bet.callbacks:
            line = self._line_of(row)
            if line is None or not line.amount or row["method"] == "BET_ROLLBACK" or row["effect"] != "applied":
                continue
            ends = row["finished_at"] + timedelta(seconds=self.period.settle_s)
            if self.period.has(row["finished_at"]) and ends > self.period.cut_at:
                self._remove(line)
                return new_fault("in_flight", row, {})
        return None

    def _booked_twice(self, bet: PlacedBet) -> Fault | None:
        for row, line in self._confirmed(bet):
            self._add(bet, line.method, request_id=line.request_id, amount=line.amount)
            return new_fault("booked_twice", row, {line.currency: abs(line.amount)})
        return None

    def _another_amount(self, bet: PlacedBet) -> Fault | None:
        for row, line in self._confirmed(bet):
            more = self.rng.choice((1, 100, 99 * abs(line.amount)))
            line.amount += more if line.amount > 0 else -more
            return new_fault("amount_differs", row, {line.currency: more})
        return None

    def _another_currency(self, bet: PlacedBet) -> Fault | None:
        for row, line in self._confirmed(bet):
            money = {line.currency: abs(line.amount), "USD": abs(line.amount)}
            line.currency = "USD"
            return new_fault("currency_differs", row, money)
        return None

    def _another_player(self, bet: PlacedBet) -> Fault | None:
        for row, line in self._confirmed(bet):
            line.player_id = "player-other"
            return new_fault("player_differs", row, {})
        return None

    def _rejected_booked(self, bet: PlacedBet) -> Fault | None:
        for row in bet.callbacks:
            is_rejected = row["state"] == "rejected" and row["effect"] == "none"
            if is_rejected or (row["state"] == "delivered" and row["reason"] == "nothing_to_reverse"):
                line = self._add(bet, row["method"], request_id=str(row["request_id"]))
                return new_fault("booked_though_rejected", row, {line.currency: abs(line.amount)})
        return None

    def _unsent_booked(self, bet: PlacedBet) -> Fault | None:
        for row in bet.callbacks:
            if row["state"] == "cancelled" or (row["state"] == "exhausted" and row["effect"] == "none"):
                amount = row["params"].get("amount", 0) * (-1 if row["method"] == "BET_MAKE" else 1)
                line = self._add(bet, row["method"], request_id=str(row["request_id"]), amount=amount)
                return new_fault("booked_though_never_sent", row, {line.currency: abs(line.amount)})
        return None

    def _rollback_left_out(self, bet: PlacedBet) -> Fault | None:
        row, line = self._rollback(bet)
        has_debit = str(bet.row["placement_request_id"]) in self.by_request
        if row is None or line is None or not has_debit or not self.is_settled(row):
            return None
        self._remove(line)
        return new_fault("debit_standing", row, {line.currency: bet.row["amount"]})

    def _debit_lands(self, bet: PlacedBet) -> Fault | None:
        row, line = self._rollback(bet)
        has_debit = str(bet.row["placement_request_id"]) in self.by_request
        if row is None or line is not None or has_debit or row["reason"] != "nothing_to_reverse":
            return None
        if not self.is_settled(row):
            return None
        self._add(bet, "BET_MAKE", request_id=str(bet.row["placement_request_id"]))
        return new_fault("debit_standing", row, {bet.row["currency"]: bet.row["amount"]})

    def _rollback(self, bet: PlacedBet) -> tuple[Row | None, Entry | None]:
        row = bet.terminal
        if row is None or row["method"] != "BET_ROLLBACK" or row["state"] != "delivered":
            return None, None
        return row, self._line_of(row)

    def _paid_out(self, bet: PlacedBet) -> Fault | None:
        row, _ = self._rollback(bet)
        return self._end(bet, "rolled_back_but_credited", ("BET_WIN", "BET_SELL", "BET_REFUND")) if row else None

    def _rolled_back(self, bet: PlacedBet) -> Fault | None:
        if bet.terminal is None or bet.terminal["method"] == "BET_ROLLBACK" or bet.terminal["state"] != "delivered":
            return None
        return self._end(bet, "rolled_back_but_credited", ("BET_ROLLBACK",))

    def _second_end(self, bet: PlacedBet) -> Fault | None:
        if bet.terminal is None or bet.terminal["method"] == "BET_ROLLBACK" or bet.terminal["state"] != "delivered":
            return None
        return self._end(bet, "two_ends", [one for one in CREDITS if one != bet.terminal["method"]])

    def _end(self, bet: PlacedBet, name: str, methods: Sequence[str]) -> Fault:
        line = self._add(bet, self.rng.choice(methods))
        if self.rng.random() < 0.5:
            line.request_id = ""
        return new_fault(name, None, {line.currency: line.amount}, entry=line)

    def _another_day(self, bet: PlacedBet) -> Fault | None:
        if bet.row["state"] == "open":
            return None
        day_of = self.period.dialect.day_of
        for row, line in self._confirmed(bet):
            for days in self.rng.sample((-1, 1), 2):
                at = line.booked_at + timedelta(days=days)
                days_now = {day_of(line.booked_at), day_of(row["finished_at"])}
                if (self.is_whole or self.period.has(at)) and len(days_now) == 1 and day_of(at) not in days_now:
                    line.booked_at = at
                    return new_fault("day_differs", row, {})
        return None

    def _foreign(self, bet: PlacedBet) -> Fault | None:
        method = self.rng.choice(("BET_MAKE", "BET_WIN", "BET_SELL"))
        line = self._add(bet, method, bet_id=f"foreign-{self.rng.getrandbits(32)}")
        if self.rng.random() < 0.5:
            line.request_id = ""
        return new_fault("missing_here", None, {line.currency: abs(line.amount)}, entry=line)

    def _end_of_void(self, bet: PlacedBet) -> Fault | None:
        if bet.row["state"] != "void" or bet.terminal is not None:
            return None
        line = self._add(bet, "BET_WIN")
        return new_fault("missing_here", None, {line.currency: line.amount}, entry=line)

    def _unreadable(self, bet: PlacedBet) -> Fault | None:
        column, text = self.rng.choice(
            (
                *(("amount", "12,5x"), ("amount", ""), ("booked_at", "yesterday"), ("booked_at", "")),
                *(("request_id", "no-uuid"), ("currency", ""), ("method", "BET_FOO"), ("amount", "1.001")),
            )
        )
        line = self._add(bet, "BET_WIN", texts={column: text}, bet_id=f"foreign-{self.rng.getrandbits(32)}")
        return new_fault("unreadable", None, {}, entry=line)

    def _repeated(self, bet: PlacedBet) -> Fault | None:
        for _, line in self._confirmed(bet):
            copy = replace(line, copy_of=line)
            self.entries.append(copy)
            return new_fault("unreadable", None, {}, entry=copy)
        return None

    def _outside(self, bet: PlacedBet) -> Fault | None:
        if not self.is_whole:
            return None
        days = timedelta(days=self.rng.uniform(0.1, 3))
        at = self.rng.choice((self.period.start - days, self.period.end + days))
        line = self._add(bet, "BET_WIN", booked_at=at, bet_id=f"foreign-{self.rng.getrandbits(32)}")
        return new_fault("out_of_window", None, {}, entry=line)

    def _contradiction(self, bet: PlacedBet) -> Fault | None:
        row = bet.terminal
        if row is None or row["state"] != "delivered" or row["reason"] or not self.is_settled(row):
            return None
        statement = self.rng.choice(_CORRUPTIONS)
        return new_fault("ours", row, {}, statements=[(statement, (row["operator_id"], row["request_id"]))])
