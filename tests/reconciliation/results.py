"""What a classification found, in the same form from the SQL and from the naive classifier."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from tests.reconciliation.naive_classifier import NaiveClassifier
from tests.reconciliation.naive_lines import Line
from tests.reconciliation.naive_matching import Item

Subject = tuple[str, object]
"""("callback", request_id), or ("line", label) of the first line of an item without a callback."""
Label = Callable[[int, int], object]
"""Names a line by its source and number, so that files written twice can be compared."""


class Found(NamedTuple):
    """One item that is not simply agreed."""

    name: str
    disputed: int
    """In the item's currency."""
    amounts: frozenset[tuple[str, date, int, int]]
    """(currency, day, ours, theirs), without days on which both are 0."""


@dataclass(kw_only=True)
class Result:
    """Items by subject, rows and money of each class, and the sums of each side."""

    items: dict[Subject, Found] = field(default_factory=dict)
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(class, "items" | "rows_ours" | "rows_theirs")."""
    money: dict[tuple[str, str, date], tuple[int, int]] = field(default_factory=dict)
    """(ours, theirs) by class, currency and day, without those where both are 0."""
    disputed: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(disputed, owed) by class and currency, without those where nothing is disputed."""
    sums: dict[tuple[str, date], tuple[int, int]] = field(default_factory=dict)
    is_complete: bool = True
    refused: list[str] = field(default_factory=list)
    """Lines that only this side could not read, and why."""

    def subjects(self, name: str) -> set[Subject]:
        return {subject for subject, found in self.items.items() if found.name == name}


def naive_result(classifier: NaiveClassifier, unreadable: Iterable[tuple[int, int]], label: Label) -> Result:
    """Return what the naive classifier found; its sums are taken from our rows and the lines."""
    result = Result(is_complete=not list(unreadable))
    money: dict[tuple[str, str, date], list[int]] = defaultdict(lambda: [0, 0])
    disputed: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for item in classifier.items:
        result.rows[item.name, "items"] += 1
        result.rows[item.name, "rows_ours"] += item.rows_ours
        result.rows[item.name, "rows_theirs"] += len(item.all_lines)
        for (currency, day), amounts in item.amounts.items():
            for side in (0, 1):
                money[item.name, currency, day][side] += amounts[side]
        for currency, amount in item.disputed.items():
            disputed[item.name, currency][0] += amount
            disputed[item.name, currency][1] += item.owed[currency]
        if item.name != "agreed":
            result.items[_subject(item, label)] = Found(
                name=item.name,
                disputed=item.disputed[item.currency] or max(item.disputed.values(), default=0),
                amounts=frozenset((*key, value[0], value[1]) for key, value in item.amounts.items() if any(value)),
            )
    result.rows += Counter()
    result.money = {key: (ours, theirs) for key, (ours, theirs) in money.items() if ours or theirs}
    result.disputed = {key: (both, owed) for key, (both, owed) in disputed.items() if both}
    result.sums = _sums(classifier, classifier.lines)
    return result


def _sums(classifier: NaiveClassifier, lines: Sequence[Line]) -> dict[tuple[str, date], tuple[int, int]]:
    sums: dict[tuple[str, date], list[int]] = defaultdict(lambda: [0, 0])
    for row in classifier.callbacks.values():
        if amount := classifier.our_amount(row):
            sums[row["params"]["currency"], classifier.period.dialect.day_of(row["finished_at"])][0] += amount
    for line in lines:
        if classifier.period.has(line.booked_at):
            sums[line.currency, line.day][1] += line.amount
    return {key: (ours, theirs) for key, (ours, theirs) in sums.items() if ours or theirs}


def _subject(item: Item, label: Label) -> Subject:
    if item.callback is not None:
        return "callback", item.callback["request_id"]
    if not item.lines:
        return "callback", item.key[1]
    return "line", label(*min(line.place for line in item.lines))


async def sql_result(
    connection: asyncpg.Connection[asyncpg.Record], run_id: UUID, known: Collection[UUID], label: Label
) -> Result:
    """Return what a finished run found; `known` has the request ids of our callbacks."""
    run = await connection.fetchrow("select * from predictu_dispatch.reconciliation_run where run_id = $1", run_id)
    assert run is not None
    assert run["finished_at"] is not None
    result = Result(is_complete=run["is_complete"])
    for row in await connection.fetch("select * from predictu_dispatch.reconciliation_total where run_id = $1", run_id):
        for column in ("items", "rows_ours", "rows_theirs"):
            result.rows[row["class"], column] += row[column]
        if row["ours"] or row["theirs"]:
            result.money[row["class"], row["currency"], row["day"]] = int(row["ours"]), int(row["theirs"])
        if row["disputed"]:
            both, owed = result.disputed.get((row["class"], row["currency"]), (0, 0))
            result.disputed[row["class"], row["currency"]] = both + int(row["disputed"]), owed + int(row["owed"])
    result.rows += Counter()
    for row in await connection.fetch("select * from predictu_dispatch.reconciliation_item where run_id = $1", run_id):
        lines = json.loads(row["lines"])
        if row["request_id"] in known or not lines:
            subject: Subject = "callback", row["request_id"]
        else:
            subject = "line", label(*min((line["source"], line["line"]) for line in lines))
        assert subject not in result.items, f"{subject} is in two items"
        result.items[subject] = Found(
            name=row["class"],
            disputed=int(row["disputed"]),
            amounts=frozenset(
                (one["currency"], date.fromisoformat(one["day"]), int(one["ours"]), int(one["theirs"]))
                for one in json.loads(row["amounts"])
                if one["ours"] or one["theirs"]
            ),
        )
    result.sums = {
        (one["currency"], date.fromisoformat(one["day"])): (int(one["ours"]), int(one["theirs"]))
        for one in json.loads(run["sums"])
        if one["ours"] or one["theirs"]
    }
    return result


def identity_faults(result: Result) -> list[str]:
    """Where our sum and all differences of a currency and day do not add up to their sum."""
    faults = []
    items: dict[tuple[str, date], list[int]] = defaultdict(lambda: [0, 0])
    for (_, currency, day), (ours, theirs) in result.money.items():
        items[currency, day][0] += ours
        items[currency, day][1] += theirs
    for key in items.keys() | result.sums.keys():
        ours, theirs = result.sums.get(key, (0, 0))
        if items[key] != [ours, theirs] or ours + (items[key][1] - items[key][0]) != theirs:
            faults.append(f"{key}: the items have {items[key]}, the sides {ours} and {theirs}")
    return faults


def disagreements(sql: Result, naive: Result, describe: Mapping[Subject, Any]) -> list[str]:
    """Everything in which the two differ."""
    faults = [
        f"{subject}: SQL {sql.items.get(subject)}, naive {naive.items.get(subject)} {describe.get(subject, '')}"
        for subject in sql.items.keys() | naive.items.keys()
        if sql.items.get(subject) != naive.items.get(subject)
    ]
    for what in ("rows", "money", "disputed", "sums"):
        one, other = dict(getattr(sql, what)), dict(getattr(naive, what))
        faults += [
            f"{what} of {key}: SQL {one.get(key)}, naive {other.get(key)}"
            for key in one.keys() | other.keys()
            if one.get(key) != other.get(key)
        ]
    return faults
