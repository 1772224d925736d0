"""`reconcile show`: what each side says about a difference, or the report of a run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from predictu_dispatch.commands.advice import on_difference
from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, database, fail
from predictu_dispatch.commands.output import (
    Row,
    count,
    money,
    print_error,
    print_json,
    print_line,
    print_wrapped,
    table,
    timestamp,
)
from predictu_dispatch.commands.reconcile.difference_lines import as_json, subject
from predictu_dispatch.commands.reconcile.lines import signed
from predictu_dispatch.commands.reconcile.run_show import Run, print_run_again, read_run
from predictu_dispatch.commands.show import print_callback, read_life, unpacked
from predictu_dispatch.commands.show_history import print_field, print_history
from predictu_dispatch.commands.texts import class_text
from predictu_dispatch.core.difference_classes import RULES, DifferenceClass, Kind
from predictu_dispatch.core.request_id import Beginning
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_MATCHES_SHOWN: Final = 20
_RUN: Final = "run"
_NOT_OWED: Final = "counted only; nobody owes anything because of it"
_COUNTED: Final = {
    DifferenceClass.IN_FLIGHT: "not decided: it is not final, or it may be booked outside the ledger that was given;"
    " to decide it, reconcile all days from its first attempt to the day after its end in one run",
}
"""What it means that an item is only counted."""


class _Found(NamedTuple):
    """An item, our callback with its attempts and what contradicts it, and what people said."""

    item: Row
    callback: Row | None
    history: list[Row]
    contradictions: list[Row]


def show(invocation: Invocation, id_: Beginning, operator: str | None) -> None:
    """Print the difference or the run whose id begins so."""
    found = asyncio.run(_read(invocation, id_, operator))
    if isinstance(found, Run):
        print_run_again(found, is_json=invocation.json)
        return
    if invocation.json:
        print_json(
            {
                "difference": _item_json(found.item),
                "callback": None if found.callback is None else unpacked(found.callback),
                "history": [unpacked(row) for row in found.history],
                "contradictions": [dict(row) for row in found.contradictions],
            }
        )
        return
    _print(found)


async def _read(invocation: Invocation, beginning: Beginning, operator: str | None) -> _Found | Run:
    async with database(invocation) as db:
        owner, whole, what = await _the_one(db, beginning, operator)
        if what == _RUN:
            return await read_run(db, owner, whole)
        [item] = await db.fetch(query("reconciliation_item"), owner, whole)
        callback: Row | None = None
        if item["request_id"] is not None:
            for row in await db.fetch(query("show_callbacks"), item["request_id"], owner):
                callback = await read_life(db, row)
        history = await db.fetch(query("reconciliation_history"), owner, whole)
        is_ours = item["class"] == DifferenceClass.OURS and item["request_id"] is not None
        contradictions = (
            await db.fetch(query("reconciliation_contradictions"), owner, item["request_id"]) if is_ours else []
        )
        return _Found(item, callback, history, contradictions)


async def _the_one(db: Database, beginning: Beginning, operator: str | None) -> tuple[str, Any, str]:
    """The operator, the whole id, and `run` or the class; ends the command if there is not one."""
    given = (beginning.first, beginning.last, operator, _MATCHES_SHOWN + 1)
    rows = await db.fetch(query("reconciliation_ids"), *given)
    if len(rows) == 1:
        return rows[0]["operator_id"], rows[0]["id"], rows[0]["what"]
    if not rows:
        of_whom = "" if operator is None else f" of operator {operator}"
        fail(
            f"no difference or run{of_whom} begins with {beginning.text}",
            hint="To list them: predictu-dispatch reconcile list, or predictu-dispatch reconcile list --runs."
            f" If it is a REQUEST_ID: predictu-dispatch show {beginning.text}",
        )
    number = f"more than {_MATCHES_SHOWN}" if len(rows) > _MATCHES_SHOWN else str(len(rows))
    print_error(f"{number} differences and runs begin with {beginning.text}; give more digits, or one of these ids:")
    shown = [(str(row["id"]), row["operator_id"], class_text(row["what"])) for row in rows[:_MATCHES_SHOWN]]
    for line in table(shown, gap=" "):
        print_line(f"  {line.rstrip()}", err=True)
    raise SystemExit(EXIT_FAILED)


def _item_json(item: Row) -> dict[str, Any]:
    parsed = {name: json.loads(item[name]) for name in ("amounts", "lines", "digits") if item[name]}
    lines = [
        {**line, "source": _file(item, line), "booked_at": datetime.fromisoformat(line["booked_at"])}
        for line in parsed["lines"]
    ]
    return {**{name: value for name, value in as_json(item).items() if name != "sources"}, **parsed, "lines": lines}


def _print(found: _Found) -> None:
    item, rule = found.item, RULES[DifferenceClass(found.item["class"])]
    is_difference = rule.kind in (Kind.DIFFERENCE, Kind.CONTRADICTION)
    title = f"{class_text(rule.name)}: {subject(item)} of operator {item['operator_id']}: {rule.meaning}."
    print_wrapped(title, bold=True, colour="yellow" if item["is_open"] else None)
    if is_difference:
        for step in _next_steps(found):
            print_wrapped(step, hanging="  ")
    print_field("id", str(item["item_id"]))
    print_field("state", _state(found) if is_difference else _COUNTED.get(rule.name, _NOT_OWED))
    digits: Mapping[str, int] = json.loads(item["digits"] or "{}")
    if is_difference:
        print_field("disputed", money(int(item["disputed"]), item["currency"], digits.get(item["currency"])))
        if _shows_an_unknown_outcome(item):
            print_field("", "the first booking shows the outcome, which was unknown here; it is not disputed")
    print_field("found", f"{timestamp(item['found_at'])} by {item['found_by']} in run {item['run_id']}")
    if item["first_found_at"] != item["found_at"]:
        print_field("", f"for the first time at {timestamp(item['first_found_at'])}")
    _print_amounts(json.loads(item["amounts"]), digits, item["time_zone"])
    print_line()
    print_line("Our side")
    _print_ours(found)
    print_line()
    print_line("Their ledger")
    _print_theirs(item, digits)
    if found.history:
        print_line()
        print_line("What was said")
        print_history([], found.history)


def _next_steps(found: _Found) -> Iterator[str]:
    item = found.item
    if not item["is_open"]:
        yield "What to do: nothing, it is not open."
        return
    is_missing = item["class"] != DifferenceClass.OURS and not json.loads(item["lines"])
    if item["lines_unreadable"] and is_missing:
        yield (
            f"The run could not read {count(item['lines_unreadable'], 'line')}, and one of them may be this booking:"
            " make them readable and run it again first."
        )
    advice = on_difference(item["class"], is_rollback_without_debit=_is_rollback_without_debit(found))
    yield f"What to do: {advice.format(operator_id=item['operator_id'])}"
    if found.history:
        then, verb = "When it is settled, somebody who has not explained it, with another database login", "accept"
    else:
        then, verb = "When you know why", "explain"
    yield f"{then}: predictu-dispatch reconcile {verb} {item['item_id']} --reason TEXT"


def _is_rollback_without_debit(found: _Found) -> bool:
    """Return True if they booked the amount that we sent, but there was nothing to reverse."""
    item, callback = found.item, found.callback
    if item["class"] != DifferenceClass.AMOUNT_DIFFERS or item["method"] != "BET_ROLLBACK" or callback is None:
        return False
    lines: list[dict[str, Any]] = json.loads(item["lines"])
    sent: int | None = json.loads(callback["params"]).get("amount")
    return sum(int(line["amount"]) for line in lines) == sent


def _state(found: _Found) -> str:
    actions = [row["action"] for row in found.history]
    if found.item["is_open"]:
        return "open, explained" if actions else "open"
    if "accept" in actions:
        return "accepted"
    closed_by = found.item["closed_by_run_id"]
    return "closed" if closed_by is None else f"closed by run {closed_by}"


def _shows_an_unknown_outcome(item: Row) -> bool:
    """Return True if less is disputed than the sides differ by."""
    amounts = [one for one in json.loads(item["amounts"]) if one["currency"] == item["currency"]]
    differs_by = abs(sum(int(one["theirs"]) - int(one["ours"]) for one in amounts))
    return item["class"] != DifferenceClass.DEBIT_STANDING and differs_by != int(item["disputed"])


def _print_amounts(amounts: list[dict[str, Any]], digits: Mapping[str, int], zone: str) -> None:
    """Print the money of each side for each day and currency, as the player's wallet sees it."""
    rows = [(f"day ({zone})", "currency", "ours", "theirs", "difference")]
    for one in sorted(amounts, key=lambda one: (one["day"], one["currency"])):
        ours, theirs = int(one["ours"]), int(one["theirs"])
        figures = (signed(number, digits.get(one["currency"])) for number in (ours, theirs, theirs - ours))
        rows.append((one["day"], one["currency"], *figures))
    for line in table(rows, right=(2, 3, 4)):
        print_line(f"  {line.rstrip()}")


def _print_ours(found: _Found) -> None:
    item, callback = found.item, found.callback
    if callback is not None:
        for one in found.contradictions:
            ours, other = (_value(one["name"], value, callback) for value in (one["ours"], one["other"]))
            text = f"{one['name']}: {ours} in the callback, {other} in the {one['place']}"
            print_wrapped(text, indent="  ", hanging="    ", colour="red")
        deciding = [row for row in callback["audit"] if row["verdict"] != "late"]
        others = [row for row in callback["interventions"] if row["action"] not in ("explain", "accept")]
        print_callback({**callback, "audit": deciding, "interventions": others}, None)
    elif item["is_of_known_bet"]:
        print_wrapped(
            f"no callback: an earlier system sent the debit of bet {item['bet_id']}, which was adopted",
            indent="  ",
            hanging="    ",
        )
    elif item["request_id"] is not None:
        print_line(f"  no callback with the request_id {item['request_id']}")
    else:
        print_line("  no callback was matched to it")


def _value(name: str, value: str | None, callback: Row) -> str:
    """A value that contradicts; an amount of whole subunits is printed as money."""
    if value is None:
        return "nothing"
    if name != "amount":
        return value
    if not value.isdecimal():
        return f"{value} subunits"
    return money(int(value), json.loads(callback["params"]).get("currency"), callback["minor_digits"])


def _print_theirs(item: Row, digits: Mapping[str, int]) -> None:
    lines: list[dict[str, Any]] = json.loads(item["lines"])
    if not lines:
        print_line("  no line is about it")
    for line in lines:
        currency = line["currency"]
        booking = f"{line.get('method') or 'a booking'}, {signed(int(line['amount']), digits.get(currency))} {currency}"
        booked_at = timestamp(datetime.fromisoformat(line["booked_at"]))
        where = f"{_file(item, line)}, line {line['line']}"
        print_wrapped(f"{where}: {booking}, booked {booked_at}", indent="  ", hanging="    ")
        names = (
            ("transaction_id", "transaction"),
            ("request_id", "request"),
            ("bet_id", "bet"),
            ("player_id", "player"),
        )
        print_wrapped(
            ", ".join(f"{name} {line[key]}" for key, name in names if line.get(key) is not None),
            indent="    ",
            hanging="      ",
        )


def _file(item: Row, line: Mapping[str, Any]) -> str:
    """The name of the file or URL that has the line."""
    sources, number = json.loads(item["sources"]), int(line["source"])
    return str(sources[number]["name"]) if number < len(sources) else f"file {number + 1}"
