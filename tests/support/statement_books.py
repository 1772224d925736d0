"""Compares statements with the operators' own books, entry by entry and in sum."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from predictu_dispatch.books_check.check import CURRENCY, Check, amount_text
from predictu_dispatch.books_check.ledgers import LedgerEntry, OperatorLedger, PredictuLedger
from predictu_dispatch.edge.postgres.statement_reader import StatementReader, open_statement_reader
from predictu_dispatch.reconciliation.statement import Scope, Statement, read_statement
from predictu_dispatch.reconciliation.statement_csv import csv_batches

_AROUND = timedelta(days=3)
"""Chaos steps the database's clock; so every row is in the period."""


class _Printed(NamedTuple):
    """What `statement` prints about one operator: its sums, and the rows of its CSV by kind."""

    sums: Statement
    rows: dict[str, list[dict[str, str]]]


async def statement_check(dsn: str, predictu: PredictuLedger, operators: Sequence[OperatorLedger]) -> Check:
    """Checks that the statement of each operator has exactly the money of the operator's books.

    All bets have ended. Beside the movements, the books may have a debit whose answer was lost with
    the rollback that returned it, and the debits of adopted bets, which are older than our records.
    """
    faults: list[str] = []
    rows = net = 0
    async with open_statement_reader(dsn, application_name="books") as reader:
        for operator in operators:
            printed = await _printed(reader, operator.operator_id)
            adopted = {
                history.bet.placement_request_id
                for history in predictu.histories()
                if history.placement is None and history.bet.operator_id == operator.operator_id
            }
            faults += [f"{operator.operator_id}: {fault}" for fault in _faults(printed, operator, adopted)]
            rows += printed.sums.total.rows
            net += printed.sums.total.net
    return Check(
        name="statements have the money of the operators' books",
        rows=rows,
        figures=f"{rows} movements, net {amount_text(net)}",
        faults=tuple(faults),
    )


async def _printed(reader: StatementReader, operator_id: str) -> _Printed:
    [facts] = await reader.fetch("statement_scope", operator_id, CURRENCY)
    now = facts["read_at"]
    edges = [now - _AROUND, now, now + _AROUND]
    scope = Scope(
        operator_id=operator_id,
        currency=CURRENCY,
        minor_digits=2,
        first=edges[0].date(),
        last=edges[0].date() + timedelta(days=1),
        edges=edges,
        read_at=edges[-1],
    )
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    names: Sequence[str] = ()
    async for batch in csv_batches(reader, scope):
        if not names:
            names = batch[0]
            continue
        for values in batch:
            row = dict(zip(names, values, strict=True))
            rows[row["kind"]].append(row)
    return _Printed(await read_statement(reader, scope, shown_max=0), rows)


def _faults(printed: _Printed, operator: OperatorLedger, adopted: set[str]) -> list[str]:
    """What differs between the statement and the operator's books."""
    entries: dict[str, list[LedgerEntry]] = defaultdict(list)
    for entry in operator.entries:
        entries[entry.request_id].append(entry)
    faults = [
        f"{row['bet_id']}: {row['method']} {row['request_id']} of {row['amount']} is {found}"
        for row in printed.rows["movement"]
        if (found := entries.pop(row["request_id"], [])) != [_entry(row)]
    ]
    # What is left there is a loss, an older debit, or comes to 0 with an unconfirmed rollback.
    returned = {row["request_id"]: row["bet_id"] for row in printed.rows["unconfirmed_rollback"]}
    left: dict[str, int] = defaultdict(int)
    for request_id, found in entries.items():
        for entry in found:
            if entry.method == "BET_LOSE" or request_id in adopted:
                continue
            if request_id in returned or (entry.method == "BET_MAKE" and entry.bet_id in returned.values()):
                left[entry.bet_id] += entry.amount
            else:
                faults.append(f"{entry.bet_id}: {entry} is in no statement")
    faults += [f"{bet_id}: {amount} is left of its rollback" for bet_id, amount in left.items() if amount]
    faults += [f"{bet_id}: its rollback was not booked" for bet_id in returned.values() if bet_id not in left]
    older = sum(entry.amount for entry in operator.entries if entry.request_id in adopted)
    booked = sum(entry.amount for entry in operator.entries) - older
    total = printed.sums.total
    summed = sum(_entry(row).amount for row in printed.rows["movement"])
    if not total.net == summed == booked or total.rows != len(printed.rows["movement"]):
        faults.append(f"the totals say {total.net}, the rows {summed}, the books {booked}")
    unknown = printed.rows["opening"] + printed.rows["closing"]
    faults += [f"{row['bet_id']}: {row['method']} is {row['kind']}" for row in unknown]
    return faults


def _entry(row: dict[str, str]) -> LedgerEntry:
    """The entry that a movement must have in the operator's books."""
    sign = 1 if row["direction"] == "credit" else -1
    return LedgerEntry(
        request_id=row["request_id"],
        method=row["method"],
        bet_id=row["bet_id"],
        player_id=row["player_id"],
        amount=sign * int(row["amount_subunits"]),
    )
