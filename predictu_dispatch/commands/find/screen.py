"""A page of hits as text, JSON and CSV, and what to do next."""

from __future__ import annotations

import csv
import io
import shlex
import shutil
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from predictu_dispatch.commands.find.search import Page, Past, Search
from predictu_dispatch.commands.output import Row, count, money, print_line, print_wrapped, styled, table, timestamp
from predictu_dispatch.core.printable import printable

_COLOURS: Final = {"delivered": "green", "rejected": "red", "exhausted": "red", "cancelled": "yellow"}
_EXPLAINED: Final = ("rejected", "exhausted", "cancelled")
_REASON_CHARS_MAX: Final = 24
_CSV_COLUMNS: Final = (
    "created_at",
    "operator_id",
    "method",
    "state",
    "reason",
    "effect",
    "amount",
    "currency",
    "player_id",
    "bet_id",
    "request_id",
    "operator_transaction_id",
    "finished_at",
    "review_since",
)
_FORMULA_STARTS: Final = ("=", "+", "-", "@")
_CAPTIONS: Final = ("time", "operator", "method", "state", "money", "player", "bet", "request id")
_FIRST_LINE: Final = 5
"""The cells of a hit's first line, if a hit takes two."""


def hit_lines(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each hit if the terminal is wide enough, else two."""
    cells = [_cells(row) for row in rows]
    columns = shutil.get_terminal_size().columns
    whole = table([_CAPTIONS, *cells], right={4})
    if max(map(len, whole)) <= columns:
        yield styled(whole[0].rstrip(), bold=True)
        for row, line in zip(rows, whole[1:], strict=True):
            yield styled(line.rstrip(), colour=_COLOURS.get(row["state"]))
        return
    first = table([cell[:_FIRST_LINE] for cell in cells], gap=" ", right={4})
    if max(map(len, first)) > columns:
        first = [" ".join(cell[:_FIRST_LINE]) for cell in cells]
    for row, cell, line in zip(rows, cells, first, strict=True):
        yield styled(line.rstrip(), colour=_COLOURS.get(row["state"]))
        named = [f"player {cell[5]}" if cell[5] else "", f"bet {cell[6]}" if cell[6] else ""]
        owner = "  ".join(part for part in named if part)
        if len(owner) + len(cell[7]) + 6 <= columns or not owner:
            yield f"    {owner}  {cell[7]}" if owner else f"    {cell[7]}"
        else:
            yield f"    {owner}"
            yield f"    {cell[7]}"


def _cells(row: Row) -> list[str]:
    amount = "" if row["amount"] is None else money(row["amount"], row["currency"], row["minor_digits"])
    return [
        timestamp(row["created_at"]),
        row["operator_id"],
        row["method"],
        _state(row),
        amount,
        row["player_id"] or "",
        row["bet_id"] or "",
        str(row["request_id"]),
    ]


def _state(row: Row) -> str:
    """The state, and what support asks next: the operator's word or our reason, and the review."""
    if row["review_since"] is not None:
        return f"{row['state']}, needs review"
    if row["reason"] == "nothing_to_reverse":
        # The rollback is confirmed, but returned no money.
        return "delivered (no debit)"
    if row["state"] == "ready":
        return f"ready, retried ({row['reason']})" if row["reason"] and row["effect"] == "unknown" else "ready"
    why = row["operator_status"] if row["state"] == "rejected" else row["reason"]
    is_short = why and len(why) <= _REASON_CHARS_MAX
    return f"{row['state']} ({why})" if row["state"] in _EXPLAINED and is_short else str(row["state"])


def as_json(page: Page, next_command: str | None) -> dict[str, Any]:
    """The page for --json; `next` is the command line of the next page, or null."""
    rows = [{name: value for name, value in row.items() if name != "number"} for row in page.rows]
    return {"rows": rows, "searched_back_to": page.back_to, "next": next_command, "operators": page.operators}


def csv_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as CSV, with a header; amounts are decimal numbers of their currency.

    A text that a spreadsheet would read as a formula gets an apostrophe before it.
    """
    for values in (_CSV_COLUMNS, *([_csv_value(row, name) for name in _CSV_COLUMNS] for row in rows)):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(values)
        yield line.getvalue()


def _csv_value(row: Row, name: str) -> str:
    value = row[name]
    if value is None:
        return ""
    if name == "amount" and row["minor_digits"] is not None:
        return f"{Decimal(value).scaleb(-row['minor_digits']):f}"
    if name.endswith(("_at", "_since")):
        return timestamp(value)
    text = str(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA_STARTS) else text


def print_next(page: Page, next_command: str | None) -> None:
    """Print the commands that continue from here."""
    first = page.rows[0]
    if first["bet_id"] is None or printable(first["bet_id"]) != first["bet_id"]:
        # An id that is shown escaped cannot be copied.
        shown = f"predictu-dispatch show {first['request_id']}"
    else:
        shown = f"predictu-dispatch show --bet {first['operator_id']} {shlex.quote(first['bet_id'])}"
    print_line()
    print_line(f"The first in detail: {shown}")
    if next_command is not None:
        print_line("More, the next older:")
        print_line(f"  {next_command}")


def print_none(search: Search, page: Page, next_command: str | None, past: Past) -> None:
    """Print what was searched without a hit, and what else could be tried."""
    print_wrapped(f"No hit: {_searched(search, page)}.", bold=True)
    if next_command is not None:
        print_line(f"Searched back to {timestamp(page.back_to)}. Further back:")
        print_line(f"  {next_command}")
        return
    # A bet that was removed needs no other search.
    for advice in past.removed or _advice(search, page, past):
        print_wrapped(advice, indent="- ")


def _searched(search: Search, page: Page) -> str:
    of = f"operator {search.operator}" if search.operator else count(len(page.operators), "operator")
    parts = [f"{search.kind} {_key(search)}" if search.kind != "time" else "all bets", f"of {of}"]
    if page.currencies:
        parts.append(f"in {', '.join(page.currencies)}")
    if search.since is not None:
        parts.append(f"since {timestamp(search.since)}")
    if search.until is not None:
        parts.append(f"until {timestamp(search.until)}")
    parts += [f"with {name} {value}" for name, value in (("state", search.state), ("method", search.method)) if value]
    return " ".join(parts)


def _key(search: Search) -> str:
    if search.request is not None:
        return search.request.text
    if search.amount is not None:
        readings = " or ".join(str(reading) for reading in search.amount.readings)
        unit = "subunits" if search.amount.is_subunits else search.amount.currency
        return f"{readings} {unit}" if unit else readings
    return str(getattr(search, search.kind))


def _advice(search: Search, page: Page, past: Past) -> Iterator[str]:
    if page.unknown_operator is not None:
        yield f"No daemon has registered operator {page.unknown_operator}; predictu-dispatch status lists them."
    elif search.operator is not None:
        yield "Leave out --operator to search all operators."
    if search.since is not None or search.until is not None:
        yield "Leave out --since and --until: they select by the time of the bet's placement."
    if search.state is not None or search.method is not None:
        yield "Leave out --state and --method."
    if search.kind == "player":
        yield "A player id must be written exactly as the producer sent it: capitals and leading zeros count."
        yield "BALANCE has no bet and is not found by player; search it by --request or --transaction."
    elif search.kind in ("bet", "transaction"):
        yield "The id must be written exactly, with its capitals and leading zeros."
    elif search.kind == "amount":
        if not page.currencies:
            yield "No operator that was searched has bets in a currency that can have this amount."
        yield (
            "Stakes and confirmed payouts are searched. A payout that is not confirmed is found by its player or bet;"
            " predictu-dispatch status --all lists those that need review, with their amounts."
        )
    if past.oldest_at is None:
        yield "There is no bet here."
    else:
        yield f"The oldest bet here was placed at {timestamp(past.oldest_at)}; retention removes older ones."
