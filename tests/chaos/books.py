"""The checker. It reads Predictu's tables and the operators' own SQLite files and shares no code with the daemon.

The checks themselves are those of the demo's proof, which hold for any play; here are only what chaos adds: whether
everything exists that was acknowledged to a producer, and the history of a bet that a fault names.
"""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from predictu_dispatch.demo.books import OperatorBook, PredictuBooks, read_operator
from predictu_dispatch.demo.check import Check
from predictu_dispatch.demo.proof_delivery import delivery_checks
from predictu_dispatch.demo.proof_money import money_checks

_NOT_HERE = "BALANCE tells what the wallets hold"
"""The demo asks for every balance at its end; here they are asked at any time."""
_BET_ID = re.compile(r"bet-\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the books say."""

    checks: tuple[Check, ...]
    callbacks: int
    attempts: int
    bets: int
    duplicates: int
    late: int
    interrupted: int
    recovery_s: tuple[float, ...]

    @property
    def faults(self) -> list[str]:
        """Each with the check that it breaks; a check of nothing proves nothing and is a fault as well."""
        return [
            f"{check.name}: {fault}"
            for check in self.checks
            if not check.holds
            for fault in (check.faults or (f"it compared {check.rows} rows",))
        ]

    @property
    def sentence(self) -> str:
        """The result in one line."""
        rows = f"{self.bets} bets, {self.callbacks} callbacks, {self.attempts} attempts"
        return f"{rows}: {f'{len(self.faults)} FAULTS' if self.faults else 'every invariant held'}"


def judge(
    predictu: PredictuBooks,
    operators: Sequence[OperatorBook],
    *,
    opening: Mapping[str, int],
    acknowledged: Mapping[str, str],
) -> Verdict:
    """Every invariant of DESIGN.md 4 to 6 that can be read in the books at the end."""
    openings = {operator.operator_id: opening for operator in operators}
    checks = [
        *money_checks(predictu, operators, openings),
        *(check for check in delivery_checks(predictu, operators) if check.name != _NOT_HERE),
        _acknowledged_check(predictu, acknowledged),
    ]
    arrivals = [bodies for operator in operators for bodies in operator.arrivals.values()]
    return Verdict(
        # That a review list is empty is no fault.
        checks=tuple(check for check in checks if check.rows or check.faults),
        callbacks=len(predictu.callbacks),
        attempts=len(predictu.attempts),
        bets=len(predictu.bets),
        duplicates=sum(len(bodies) - 1 for bodies in arrivals),
        late=sum(attempt.verdict == "late" for attempt in predictu.attempts),
        interrupted=sum(attempt.reason == "interrupted" for attempt in predictu.attempts),
        recovery_s=_recovery_s(predictu),
    )


def _acknowledged_check(predictu: PredictuBooks, acknowledged: Mapping[str, str]) -> Check:
    found = {callback.request_id: callback.method for callback in predictu.callbacks}
    return Check(
        name="what was acknowledged to a producer exists",
        rows=len(acknowledged),
        figures=f"{len(acknowledged)} acknowledged",
        faults=tuple(
            f"{method} {request_id} was acknowledged and is {found.get(request_id, 'nowhere')}"
            for request_id, method in acknowledged.items()
            if found.get(request_id) != method
        ),
    )


def _recovery_s(predictu: PredictuBooks) -> tuple[float, ...]:
    """Of each callback whose daemon was lost: from the lost attempt's beginning to the beginning of the next."""
    by_callback = defaultdict(list)
    for attempt in predictu.attempts:
        by_callback[attempt.operator_id, attempt.request_id].append(attempt)
    found = []
    for attempts in by_callback.values():
        begun_at = {attempt.attempt: attempt.started_at for attempt in attempts}
        found += [
            (begun_at[attempt.attempt + 1] - attempt.started_at).total_seconds()
            for attempt in attempts
            if attempt.reason == "interrupted" and attempt.attempt + 1 in begun_at
        ]
    return tuple(sorted(found))


def operator_book(operator_id: str, wallet: Path) -> OperatorBook:
    """An operator's side, with what came with a token that it refused: a daemon with a wrong clock sends such."""
    book = read_operator(operator_id, wallet)
    arrivals: dict[str, list[bytes]] = defaultdict(list)
    with closing(sqlite3.connect(f"{wallet.absolute().as_uri()}?mode=ro", uri=True)) as sql:
        for request_id, body in sql.execute(
            "select request_id, body from callback_record where request_id is not null"
        ):
            arrivals[request_id].append(body)
    return replace(book, arrivals=dict(arrivals), unverified=0)


def history(predictu: PredictuBooks, fault: str) -> list[str]:
    """Every callback and attempt of the bets that a fault names."""
    lines = []
    for bet_id in dict.fromkeys(_BET_ID.findall(fault)):
        for bet in predictu.bets:
            if bet.bet_id != bet_id:
                continue
            lines.append(f"  {bet.operator_id} {bet_id} is {bet.state}, stake {bet.amount}, player {bet.player_id}")
            for callback in predictu.callbacks_of(bet):
                lines.append(
                    f"    {callback.method} {callback.request_id} {callback.state} {callback.reason} {callback.effect}"
                    f" enqueued {callback.created_at:%H:%M:%S.%f} ended {callback.finished_at}"
                )
                lines += [
                    f"      {attempt.attempt}: {attempt.evidence} {attempt.verdict} {attempt.reason}"
                    f" {attempt.started_at:%H:%M:%S.%f} to {attempt.finished_at:%H:%M:%S.%f}"
                    for attempt in predictu.attempts_of(callback)
                ]
    return lines
