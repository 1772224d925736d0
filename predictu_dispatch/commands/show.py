"""`show`: the history of a callback or a bet."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from predictu_dispatch.commands.invocation import (
    Invocation,
    common_options,
    database,
    fail,
    is_unknown,
    the_one,
    unknown_operator,
)
from predictu_dispatch.commands.output import Row, duration, money, print_json, print_line, print_wrapped, timestamp
from predictu_dispatch.commands.request_ids import REQUEST_ID, the_request
from predictu_dispatch.commands.show_history import COLOURS, print_field, print_history
from predictu_dispatch.commands.texts import (
    BET_STATES,
    EFFECTS,
    class_text,
    state_text,
)
from predictu_dispatch.core.printable import printable
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.core.request_id import Beginning
    from predictu_dispatch.edge.postgres.database import Database

_WAGER: Final = (("market", "market_id"), ("outcome", "outcome"), ("odds", "odds"))
_JSON_COLUMNS: Final = ("params", "request_headers", "response_headers", "before", "after")
_JSON_ROWS: Final = ("audit", "interventions")


class _Life(NamedTuple):
    """A bet, if one was asked for, its callbacks or the one asked for, and the bet's money."""

    bet: Row | None
    callbacks: list[Row]
    money: Row | None
    differences: list[Row]
    """Those that are open, of what was asked for."""


@click.command()
@click.argument("request_id", type=REQUEST_ID, required=False)
@click.option("--bet", nargs=2, metavar="OPERATOR BET_ID", help="Show a bet with all its callbacks instead.")
@click.option("--operator", help="Needed only if several operators have the same REQUEST_ID.")
@common_options
def show(
    invocation: Invocation, request_id: Beginning | None, bet: tuple[str, str] | None, operator: str | None
) -> None:
    """Show the history of the callback REQUEST_ID, attempt by attempt, or of a bet with --bet.

    Any beginning of the id that is not ambiguous is enough.
    """
    from predictu_dispatch.commands.money_line import money_json, money_line  # noqa: PLC0415 - loads pydantic

    if (request_id is None) == (bet is None):
        raise click.UsageError("give a REQUEST_ID, or --bet OPERATOR BET_ID")
    found, callbacks, sums, differences = asyncio.run(_read(invocation, request_id, bet, operator))
    if invocation.json:
        summary = None if sums is None else money_json(sums)
        shown = [unpacked(callback) for callback in callbacks]
        print_json(
            {"money": summary, "bet": found, "callbacks": shown, "differences": [dict(row) for row in differences]}
        )
        return
    if sums is not None:
        print_wrapped(money_line(sums), bold=True)
    for row in differences:
        step = f"predictu-dispatch reconcile show {row['item_id']}"
        print_wrapped(f"An open difference ({class_text(row['class'])}): {step}", colour="red")
    _print_next_step(callbacks, is_bet=found is not None)
    if found is not None and sums is not None:
        _print_bet(found, sums)
    for number, callback in enumerate(callbacks):
        if found is not None or number:
            print_line()
        print_callback(callback, sums if found is None else None)


async def _read(
    invocation: Invocation, beginning: Beginning | None, bet: tuple[str, str] | None, operator: str | None
) -> _Life:
    async with database(invocation) as db:
        if bet is None:
            assert beginning is not None  # noqa: S101 - one of the two was given
            owner, request_id = await the_request(db, beginning, operator)
            rows = await db.fetch(query("show_callbacks"), request_id, owner)
            row = await the_one(db, rows, request_id, owner)
            differences = await db.fetch(query("reconciliation_of_callback"), owner, request_id, None)
            return _Life(None, [await read_life(db, row)], await _money(db, owner, row["bet_id"]), differences)
        bets = await db.fetch(query("show_bet"), *bet)
        if not bets:
            fail(await _why_no_bet(db, *bet))
        callbacks = []
        for request in await db.fetch(query("show_bet_requests"), *bet):
            (row,) = await db.fetch(query("show_callbacks"), request["request_id"], bet[0])
            callbacks.append(await read_life(db, row))
        sums = await _money(db, *bet)
        names = ("market_id", "outcome", "odds")
        differences = await db.fetch(query("reconciliation_of_callback"), bet[0], None, bet[1])
        return _Life({**bets[0], **{name: sums[name] for name in names if sums}}, callbacks, sums, differences)


async def _money(db: Database, operator: str, bet_id: str | None) -> Row | None:
    rows = [] if bet_id is None else await db.fetch(query("show_money"), operator, bet_id)
    return dict(rows[0]) if rows else None


async def _why_no_bet(db: Database, operator: str, bet_id: str) -> str:
    for removed in await db.fetch(query("show_removed_bet"), operator, bet_id):
        ended = f"bet {bet_id} of operator {operator} ended {removed['state']}"
        return f"{ended}; retention removed it at {timestamp(removed['removed_at'])}"
    return unknown_operator(operator) if await is_unknown(db, operator) else f"operator {operator} has no bet {bet_id}"


async def read_life(db: Database, row: Row) -> Row:
    """The callback with its attempts and the interventions on it."""
    key = (row["operator_id"], row["request_id"])
    attempts = await db.fetch(query("show_attempts"), *key)
    interventions = await db.fetch(query("show_interventions"), *key)
    return {**row, "audit": [dict(attempt) for attempt in attempts], "interventions": [dict(i) for i in interventions]}


def unpacked(row: Row) -> dict[str, Any]:
    """The row with its JSON columns as values."""
    parsed = {name: json.loads(row[name]) for name in _JSON_COLUMNS if row.get(name)}
    nested = {name: [unpacked(one) for one in row[name]] for name in _JSON_ROWS if name in row}
    return {**row, **parsed, **nested}


def _print_next_step(callbacks: list[Row], *, is_bet: bool) -> None:
    """Print which command says more: about what a person must look at, or what is not settled."""
    in_review = [one for one in callbacks if one["review_since"] is not None]
    found = in_review + [one for one in callbacks if one["finished_at"] is None]
    bet_id = None if is_bet else callbacks[0]["bet_id"]
    if found:
        print_wrapped(f"What to do: predictu-dispatch why {found[0]['request_id']}")
    elif bet_id is not None and printable(bet_id) == bet_id:
        print_line(f"The whole bet: predictu-dispatch show --bet {callbacks[0]['operator_id']} {shlex.quote(bet_id)}")


def _print_bet(bet: Row, sums: Row) -> None:
    title = f"Bet {bet['bet_id']} of operator {bet['operator_id']} is {bet['state']}: {BET_STATES[bet['state']]}."
    print_wrapped(title, colour=COLOURS.get(bet["state"]), bold=True)
    print_field("stake", f"{money(bet['amount'], bet['currency'], bet['minor_digits'])} by player {bet['player_id']}")
    _print_wager(sums)
    print_field("placed", timestamp(bet["created_at"]))


def _print_wager(sums: Row) -> None:
    named = [f"{name} {sums[key]}" for name, key in _WAGER if sums[key] is not None]
    print_field("wager", ", ".join(named))


def print_callback(callback: Row, sums: Row | None) -> None:
    """Print a callback with its history; `sums` are its bet's, if the bet is not printed itself."""
    title = (
        f"{callback['method']} {callback['request_id']} of operator {callback['operator_id']} is {callback['state']}:"
    )
    print_wrapped(title, colour=COLOURS.get(callback["state"]), bold=True)
    named = (callback[name] for name in ("state", "reason", "operator_status", "operator_id"))
    print_field("state", state_text(*named))
    if callback["reason"] != "nothing_to_reverse":
        print_field("effect", EFFECTS[callback["effect"]])
    params = json.loads(callback["params"])
    if callback["bet_id"]:
        print_field("bet", f"{callback['bet_id']}, {callback['bet_state']}")
    if sums is not None:
        _print_wager(sums)
    if "amount" in params:
        print_field("amount", _money_of(callback, params["amount"]))
    print_field("player", str(params.get("player_id", "")))
    if "unreadable" in params:
        print_field("params", f"cannot be read, SQLSTATE {params['unreadable']}", colour="red")
    print_field("enqueued", timestamp(callback["created_at"]))
    _print_next(callback)
    _print_answer(callback)
    print_field("anomaly", callback["anomaly"])
    print_field("note", callback["note"])
    if callback["review_since"] is not None:
        print_field("review", f"has needed manual review since {timestamp(callback['review_since'])}", colour="red")
    if not callback["audit"]:
        print_line("  no attempt was made" + (" yet" if callback["finished_at"] is None else ""))
    print_history(callback["audit"], callback["interventions"])


def _money_of(callback: Row, subunits: int) -> str:
    currency = json.loads(callback["params"]).get("currency", callback["bet_currency"])
    return money(subunits, currency, callback["minor_digits"])


def _print_next(callback: Row) -> None:
    if callback["finished_at"] is not None:
        took_s = (callback["finished_at"] - callback["created_at"]).total_seconds()
        print_field("finished", f"{timestamp(callback['finished_at'])}, {duration(took_s)} after enqueueing")
        return
    if callback["state"] == "ready":
        wait_s = (callback["due_at"] - callback["shown_at"]).total_seconds()
        print_field("due", f"in {duration(wait_s)}" if wait_s > 0 else f"{duration(-wait_s)} ago")
    elif callback["state"] == "in_flight":
        left_s = (callback["lease_until"] - callback["shown_at"]).total_seconds()
        ends = f"ends in {duration(left_s)}" if left_s > 0 else "has expired"
        print_field("sent by", f"daemon {callback['leased_by']}; its lease {ends}")
    if callback["expires_at"] is not None:
        print_field("deadline", timestamp(callback["expires_at"]))


def _print_answer(callback: Row) -> None:
    if callback["operator_status"]:
        answer = [f"status {callback['operator_status']}"]
        if callback["operator_transaction_id"]:
            answer.append(f"transaction {callback['operator_transaction_id']}")
        if callback["balance"] is not None:
            answer.append(f"balance {_money_of(callback, callback['balance'])}")
        print_field("answer", ", ".join(answer))
