"""A large accounting day in a database, and the operator's ledger of it with planted differences.

Everything follows from a bet's number, by the formulas of ledger_day.sql: the rows, the ledger and
the expected result. None of them asks the code that is measured.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tests.bench.backlog import Connection

OPERATOR: Final = "op_day"
FAULTS: Final = {
    # What is planted, and the end of the bet where it is.
    "missing_there": "BET_WIN",
    "missing_here": "BET_WIN",
    "booked_twice": "BET_WIN",
    "amount_differs": "BET_WIN",
    "currency_differs": "BET_WIN",
    "player_differs": "BET_WIN",
    "booked_though_rejected": "BET_WIN",
    "booked_though_never_sent": "BET_WIN",
    "debit_standing": "BET_ROLLBACK",
    "rolled_back_but_credited": "BET_ROLLBACK",
    "two_ends": "BET_WIN",
    "day_differs": "BET_WIN",
    "agreed_resolves_unknown": "BET_WIN",
    "in_flight": "BET_WIN",
    "out_of_window": "BET_WIN",
    "ours": "BET_WIN",
}
"""Without `no_end`, which takes days, and `unreadable`, which makes a run incomplete."""

_CURRENCY, _OTHER_CURRENCY = "EUR", "USD"
_SURPLUS: Final = 100
_BETS_AT_ONCE: Final = 25_000
_SQL: Final = Path(__file__).with_suffix(".sql")
_KNOWN_OPERATORS: Final = """
    insert into predictu_dispatch.operator
        (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)
    select distinct operator_id, true, 15, 0, '' from bench.block on conflict do nothing
"""
_ALL_BETS: Final = (
    "select set_config('bench.first', '1', false), set_config('bench.last', max(bets)::text, false) from bench.block"
)

Result = Mapping[tuple[str, str], tuple[int, int]]
"""For each class and currency: the items, and the sum of theirs less ours in subunits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDay:
    """What was written, and what a reconciliation must find."""

    lines: int
    # Each fault with the callback's request_id, or the transaction id of a line without a callback.
    planted: frozenset[tuple[str, str]]
    expected: Result


async def write_day(
    owner: Connection, ledger: Path, *, begins_at: datetime, ends_at: datetime, lines: int, faults: int, seed: int
) -> LedgerDay:
    """Writes an operator's day and its ledger, with `faults` of each kind.

    The database also has rows of the day before, and of another operator.
    """
    bets = lines // 2
    await owner.execute(_SQL.read_text(encoding="utf-8"))
    # Nothing happens near the edges of the day, so a missing line is missing and not in flight.
    spread = (ends_at - begins_at - timedelta(hours=2)) / bets
    await owner.executemany(
        "insert into bench.block values ($1, $2, $3, $4, $5, $6)",
        [
            (OPERATOR, "", begins_at + timedelta(minutes=30), spread, bets, True),
            (OPERATOR, "past-", begins_at - timedelta(days=1), spread * 5, bets // 5, False),
            ("op_other", "other-", begins_at, spread * 5, bets // 5, False),
        ],
    )
    drawn = _draw(bets, faults, random.Random(seed))
    await owner.copy_records_to_table("planted", schema_name="bench", records=drawn)
    await owner.execute("analyze bench.planted")
    await owner.execute(_KNOWN_OPERATORS)
    for first in range(1, bets + 1, _BETS_AT_ONCE):
        await owner.execute("call bench.write_bets($1, $2)", first, min(bets, first + _BETS_AT_ONCE - 1))
    for table in ("bet", "callback", "attempt_record"):
        await owner.execute(f"vacuum analyze predictu_dispatch.{table}")
    await owner.execute(_ALL_BETS)
    with ledger.open("wb") as file:
        copied = await owner.copy_from_query("select * from bench.ledger_line", output=file, format="csv", header=True)
    planted = await owner.fetch("select fault, item from bench.planted_item")
    return LedgerDay(
        lines=int(copied.split()[1]),
        planted=frozenset((row["fault"], row["item"]) for row in planted),
        expected=await _expected(owner, bets),
    )


def _draw(bets: int, faults: int, chance: random.Random) -> list[tuple[int, str]]:
    """Numbers of bets with the right end, and their faults: at most one for each bet."""
    numbers = {
        "BET_WIN": [n for n in range(1, bets + 1) if n % 10 < 5],
        "BET_ROLLBACK": list(range(19, bets + 1, 50)),
    }
    drawn = {
        method: iter(chance.sample(of_method, faults * list(FAULTS.values()).count(method)))
        for method, of_method in numbers.items()
    }
    return [(next(drawn[method]), fault) for fault, method in FAULTS.items() for _ in range(faults)]


async def _expected(owner: Connection, bets: int) -> Result:
    """The result by the table of classes, from what was planted."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    agreed = 2 * bets
    for row in await owner.fetch("select fault, signed, stake, is_extra from bench.planted_item"):
        for currency, items, difference in _differences(row["fault"], row["signed"], row["stake"]):
            before = found.get((row["fault"], currency), (0, 0))
            found[row["fault"], currency] = (before[0] + items, before[1] + difference)
        # Beside a line without a callback the bet's end is agreed; a standing debit is part of the
        # item.
        agreed -= 0 if row["is_extra"] else 2 if row["fault"] == "debit_standing" else 1
    return {**found, ("agreed", _CURRENCY): (agreed, 0)}


def _differences(fault: str, signed: int, stake: int) -> list[tuple[str, int, int]]:
    """Currency, items and difference of one fault; the bet's end has this signed amount."""
    match fault:
        case "missing_there" | "day_differs":
            return [(_CURRENCY, 1, -signed)]
        case "currency_differs":
            return [(_CURRENCY, 1, -signed), (_OTHER_CURRENCY, 0, signed)]
        case "amount_differs":
            return [(_CURRENCY, 1, _SURPLUS)]
        case "debit_standing":
            return [(_CURRENCY, 1, -stake)]
        case "player_differs" | "out_of_window" | "ours":
            return [(_CURRENCY, 1, 0)]
        case _:
            return [(_CURRENCY, 1, signed)]
