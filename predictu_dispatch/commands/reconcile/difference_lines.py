"""The lines of `reconcile list`: differences and runs, and the words for both."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from predictu_dispatch.commands.output import Row, count, money, print_wrapped, timestamp
from predictu_dispatch.commands.texts import INTERVENTIONS, class_text


def as_json(row: Row) -> dict[str, Any]:
    """The row with whole numbers, and without what serves the list only."""
    return {name: int(value) if isinstance(value, Decimal) else value for name, value in row.items() if name != "found"}


def amount(row: Row) -> str:
    """What is disputed: 12.50 EUR."""
    return money(int(row["disputed"]), row["currency"], row["minor_digits"])


def subject(row: Row) -> str:
    """What the difference is about."""
    what = row["method"] or "a booking"
    if row["request_id"] is not None:
        named = f"{what} {row['request_id']}"
    elif row["bet_id"] is None:
        return f"{what} with the key {row['key']}"
    else:
        named = what
    return named if row["bet_id"] is None else f"{named} of bet {row['bet_id']}"


def heading(operator: str, sums: Sequence[Row], of_class: str) -> str:
    """How many differences of an operator are open, and how much money."""
    if not sums:
        return f"{operator}: no open differences{of_class}"
    number = count(sum(row["differences"] for row in sums), "open difference")
    return f"{operator}: {number}{of_class}, {', '.join(amount(row) for row in sums)}"


def newest_run_text(operator: str, newest: Sequence[Row]) -> str:
    """Says that no run of the operator has finished, or that the newest one is not complete."""
    if not newest:
        step = f"predictu-dispatch reconcile {operator} --last 1 FILE"
        return f"{operator} has not been reconciled: no run has finished. To begin: {step}"
    run = newest[0]
    return "" if run["is_complete"] else f"The newest run, {run['run_id']} of {_days(run)}, is {_incomplete(run)}."


def unlisted_text(row: Row) -> str:
    """Says how many items of a class the run counted but did not list."""
    return (
        f"and {row['unlisted']:,} more of {class_text(row['class'])}, which are not in this list and its sums: the"
        " report of their run counts all; to list them, reconcile fewer days at once"
    )


def print_listed(row: Row) -> None:
    """Print a difference, with what was said about it last."""
    colour = "green" if row["is_accepted"] else "red" if row["class"] == "ours" else "yellow"
    print_wrapped(f"{row['item_id']}  {row['day']}  {amount(row)}", indent="  ", hanging="    ", colour=colour)
    player = f", player {row['player_id']}" if row["player_id"] is not None else ""
    print_wrapped(f"{class_text(row['class'])}: {subject(row)}{player}", indent="    ", hanging="      ")
    if row["said_action"] is not None:
        said = f"{INTERVENTIONS[row['said_action']]} by {row['said_by']} at {timestamp(row['said_at'])}: {row['said']}"
        print_wrapped(said, indent="    ", hanging="      ")


def print_run(row: Row) -> None:
    """Print a run in two lines."""
    named = f"{row['run_id']}  {row['operator_id']}, {_days(row)} {row['time_zone']}"
    print_wrapped(named, hanging="  ", colour="cyan")
    by = f"by {row['done_by']} (database role {row['database_role']})"
    if row["finished_at"] is None:
        text = f"started {timestamp(row['started_at'])} {by}: {unfinished_text(row)}"
    else:
        changes = f"opened {row['opened'] or 0:,} and closed {count(row['closed'] or 0, 'difference')}"
        text = (
            f"finished {timestamp(row['finished_at'])} {by}: {count(row['lines_read'], 'line')} read, {changes};"
            f" {row['open_differences']:,} of its differences are open"
        )
        if not row["is_complete"]:
            text += f"; {_incomplete(row)}"
    print_wrapped(text, indent="  ", hanging="    ")


def unfinished_text(run: Row) -> str:
    """The state of a run that has not finished."""
    return "under way" if run["is_under_way"] else "ended without a result, so it counts for nothing"


def _days(run: Row) -> str:
    return f"{run['first_day']}" + (f" to {run['last_day']}" if run["last_day"] != run["first_day"] else "")


def _incomplete(run: Row) -> str:
    return f"not complete: {count(run['lines_unreadable'], 'unreadable line')}"
