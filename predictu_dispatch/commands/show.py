"""`show`: the whole life of a callback or a bet, for someone who does not know the code."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from predictu_dispatch.commands import output, texts
from predictu_dispatch.commands.connection import database
from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, print_json
from predictu_dispatch.commands.lookup import is_unknown, the_one, unknown

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_BODY_CHARS_MAX = 600
_COLOURS = {"delivered": "green", "rejected": "red", "exhausted": "red", "cancelled": "yellow", "closed": "green"}

Row = Mapping[str, Any]


@click.command()
@click.argument("request_id", type=click.UUID, required=False)
@click.option("--bet", nargs=2, metavar="OPERATOR BET_ID", help="Show a bet with all its callbacks instead.")
@click.option("--operator", help="Needed only where several operators have the same REQUEST_ID.")
@common_options
def show(invocation: Invocation, request_id: UUID | None, bet: tuple[str, str] | None, operator: str | None) -> None:
    """Show the whole life of the callback REQUEST_ID, attempt by attempt, or of a bet with --bet."""
    if (request_id is None) == (bet is None):
        message = "give a REQUEST_ID, or --bet OPERATOR BET_ID"
        raise click.UsageError(message)
    found, callbacks = asyncio.run(_read(invocation, request_id, bet, operator))
    if invocation.json:
        print_json({"bet": _plain(found) if found else None, "callbacks": [_plain(callback) for callback in callbacks]})
        return
    if found is not None:
        _print_bet(found)
    for callback in callbacks:
        _print_callback(callback)


async def _read(
    invocation: Invocation, request_id: UUID | None, bet: tuple[str, str] | None, operator: str | None
) -> tuple[Row | None, list[dict[str, Any]]]:
    from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

    async with database(invocation) as db:
        if bet is None:
            assert request_id is not None  # noqa: S101 - one of the two was given
            rows = await db.fetch(query("show_callbacks"), request_id, operator)
            return None, [await _with_life(db, await the_one(db, rows, request_id, operator))]
        bets = await db.fetch(query("show_bet"), *bet)
        if not bets:
            for one in await db.fetch(query("show_removed_bet"), *bet):
                what = f"bet {bet[1]} of operator {bet[0]} ended {one['state']}"
                _fail(f"{what}; retention removed it at {output.timestamp(one['removed_at'])}")
            is_known = not await is_unknown(db, bet[0])
            _fail(f"operator {bet[0]} has no bet {bet[1]}" if is_known else unknown(bet[0]))
        callbacks = []
        for request in await db.fetch(query("show_bet_requests"), *bet):
            (row,) = await db.fetch(query("show_callbacks"), request["request_id"], bet[0])
            callbacks.append(await _with_life(db, row))
        return dict(bets[0]), callbacks


async def _with_life(db: Database, row: Row) -> dict[str, Any]:
    from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

    named = (row["operator_id"], row["request_id"])
    attempts = await db.fetch(query("show_attempts"), *named)
    interventions = await db.fetch(query("show_interventions"), *named)
    return {
        **row,
        "audit": [dict(attempt) for attempt in attempts],
        "interventions": [dict(intervention) for intervention in interventions],
    }


def _fail(message: str) -> None:
    click.echo(message, err=True)
    sys.exit(EXIT_FAILED)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a row holds
    """A row as JSON can hold it; the JSON text in it is unpacked."""
    if isinstance(value, Mapping):
        return {
            key: json.loads(item) if key in ("params", "request_headers", "response_headers") and item else _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _field(name: str, text: str) -> None:
    if text:
        _say(f"  {name:<9} ", text)


def _say(indent: str, text: str) -> None:
    """One line; on a terminal that is narrower, several, whose words stay whole to be copied."""
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        click.echo(
            textwrap.fill(
                text,
                columns,
                initial_indent=indent,
                subsequent_indent=" " * len(indent),
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    else:
        click.echo(f"{indent}{text}")


def _print_bet(bet: Row) -> None:
    state = click.style(bet["state"], fg=_COLOURS.get(bet["state"]), bold=True)
    _say("", f"Bet {bet['bet_id']} of operator {bet['operator_id']} is {state}: {texts.BET_STATES[bet['state']]}.")
    _field("stake", f"{output.money(bet['amount'], bet['currency'], bet['minor_digits'])} by player {bet['player_id']}")
    _field("placed", output.timestamp(bet["created_at"]))
    click.echo()


def _print_callback(callback: Row) -> None:
    state = click.style(callback["state"], fg=_COLOURS.get(callback["state"]), bold=True)
    _say("", f"{callback['method']} {callback['request_id']} of operator {callback['operator_id']} is {state}:")
    why = texts.reason_text(callback["reason"], callback["operator_status"])
    _field("state", f"it {texts.STATES[callback['state']]}" + (f" ({why})" if why else ""))
    _field("effect", texts.EFFECTS[callback["effect"]])
    params = json.loads(callback["params"])
    currency = params.get("currency", callback["bet_currency"])
    if callback["bet_id"]:
        _field("bet", f"{callback['bet_id']}, {callback['bet_state']}")
    if "amount" in params:
        _field("amount", output.money(params["amount"], currency, callback["minor_digits"]))
    _field("player", str(params.get("player_id", "")))
    _field("enqueued", output.timestamp(callback["created_at"]))
    _print_next(callback)
    if callback["operator_status"]:
        answer = [f"status {callback['operator_status']}"]
        if callback["operator_transaction_id"]:
            answer.append(f"transaction {callback['operator_transaction_id']}")
        if callback["balance"] is not None:
            answer.append(f"balance {output.money(callback['balance'], currency, callback['minor_digits'])}")
        _field("answer", ", ".join(answer))
    _field("anomaly", callback["anomaly"] or "")
    _field("note", callback["note"] or "")
    if callback["review_since"] is not None:
        _field(
            "review",
            click.style(f"a person must look at it, since {output.timestamp(callback['review_since'])}", fg="red"),
        )
    if not callback["audit"]:
        click.echo("  no attempt was made" + (" yet" if callback["finished_at"] is None else ""))
    _print_life(callback["audit"], callback["interventions"])
    click.echo()


def _print_life(audit: list[Row], interventions: list[Row]) -> None:
    """Attempts and what people did, in the order in which they happened; each list comes in its own order."""
    told: list[tuple[datetime, Callable[[Row], None], Row]] = [
        *((attempt["started_at"], _print_attempt, attempt) for attempt in audit),
        *((intervention["done_at"], _print_intervention, intervention) for intervention in interventions),
    ]
    for _, tell, row in sorted(told, key=lambda one: one[0]):
        tell(row)


def _print_intervention(intervention: Row) -> None:
    done = click.style(texts.INTERVENTIONS[intervention["action"]], fg="cyan")
    by = f"{intervention['done_by']} (database role {intervention['database_role']})"
    click.echo(f"  {done} by {by} at {output.timestamp(intervention['done_at'])}")
    _field("", f"because: {intervention['reason']}" if intervention["reason"] else "")


def _print_next(callback: Row) -> None:
    if callback["finished_at"] is not None:
        took_s = (callback["finished_at"] - callback["created_at"]).total_seconds()
        _field("finished", f"{output.timestamp(callback['finished_at'])}, {output.duration(took_s)} after enqueueing")
    elif callback["state"] == "ready":
        wait_s = (callback["due_at"] - callback["shown_at"]).total_seconds()
        _field("due", f"in {output.duration(wait_s)}" if wait_s > 0 else f"now, for {output.duration(-wait_s)}")
    elif callback["state"] == "in_flight":
        left_s = (callback["lease_until"] - callback["shown_at"]).total_seconds()
        _field(
            "sent by",
            f"{callback['leased_by']}, whose lease "
            + (f"ends in {output.duration(left_s)}" if left_s > 0 else "ran out"),
        )
    if callback["expires_at"] is not None and callback["finished_at"] is None:
        _field("deadline", output.timestamp(callback["expires_at"]))


def _print_attempt(attempt: Row) -> None:
    verdict = texts.VERDICTS[attempt["verdict"]]
    why = texts.reason_text(attempt["reason"], None)
    click.echo(
        f"  attempt {attempt['attempt']} by {attempt['instance']} at {output.timestamp(attempt['started_at'])}: "
        + click.style(verdict, fg=_COLOURS.get(attempt["verdict"], "yellow"))
    )
    _field("", why)
    _field("", _timing(attempt))
    if attempt["url"]:
        _field("", f"to {attempt['url']}, signed with key {attempt['key_id']}")
    if attempt["response_status"] is not None:
        # On one line, and nothing that a terminal would obey.
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode()
            for c in (attempt["response_body"] or b"").decode("utf-8", "backslashreplace").strip()
        )
        shown = (
            text
            if len(text) <= _BODY_CHARS_MAX
            else f"{text[:_BODY_CHARS_MAX]}… ({len(text)} characters, all with --json)"
        )
        _field("", f"HTTP {attempt['response_status']} {'(cut) ' if attempt['response_truncated'] else ''}{shown}")
    _field("", attempt["error"] or "")


def _timing(attempt: Row) -> str:
    phases = [
        f"{name} after {attempt[key]:.1f} ms"
        for name, key in (("connected", "connect_ms"), ("first byte", "first_byte_ms"), ("ended", "total_ms"))
        if attempt[key] is not None
    ]
    return ", ".join(phases)
