"""`status`: operators, backlog and daemons at a glance, and what needs review."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from predictu_dispatch.commands.invocation import Invocation, common_options, database
from predictu_dispatch.commands.output import (
    Row,
    duration,
    joined,
    print_json,
    print_line,
    styled,
    table,
    timestamp,
    wrapped,
)
from predictu_dispatch.commands.texts import clock_text, failure_text, first_line
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

REVIEW_SHOWN_MAX: Final = 20
NO_OPERATOR: Final = "no operators yet: a daemon registers them when it starts"
_COLUMNS: Final = 80
_LANES: Final = ("interactive", "settlement")
_HEADS: Final = (
    ("", "", "wait-", "", "in flight", "oldest", "un-"),
    ("operator", "lane", "ing", "ready", "of slots", "due", "known"),
)
_RIGHT: Final = range(2, 7)
_COLOURS: Final = {"healthy": "green", "degraded": "yellow", "unknown": None}
_ILL: Final = frozenset({"degraded", "down"})
_EXACT_BELOW: Final = 10_000
_MILLION: Final = 1_000_000


@click.command()
@common_options
def status(invocation: Invocation) -> None:
    """Show each operator and lane, the daemons, and the callbacks that need manual review.

    Numbers of 10,000 or more are rounded; --json prints them exactly.
    """
    lanes, daemons, review = asyncio.run(_read(invocation))
    if invocation.json:
        print_json({"lanes": lanes, "daemons": daemons, "needs_review": review})
        return
    if silent := list(silent_daemon_lines(daemons)):
        for line in [*silent, ""]:
            print_line(line)
    is_served = any(daemon["is_live"] for daemon in daemons)
    for line in operator_lines(lanes, is_served=is_served) if lanes else [NO_OPERATOR]:
        print_line(line)
    print_line()
    for line in [*daemon_lines(daemons), ""] if is_served else []:
        print_line(line)
    for line in _review_lines(review):
        print_line(line)


def _review_lines(review: Sequence[Row]) -> Iterator[str]:
    if not review:
        yield "nothing needs review"
        return
    yield f"needs review{f' (the {REVIEW_SHOWN_MAX} oldest)' if len(review) == REVIEW_SHOWN_MAX else ''}:"
    for row in review:
        yield f"  {row['request_id']}  {row['operator_id']}  {row['method']}"
        yield f"      bet {row['bet_id']}, since {timestamp(row['since'])}"
        yield from wrapped(row["reason"], indent="      ", columns=_COLUMNS)
    yield "to see what to do: predictu-dispatch why REQUEST_ID"


async def _read(invocation: Invocation) -> tuple[list[dict[str, Any]], list[Row], list[Row]]:
    async with database(invocation) as db:
        return await read_overview(db)


async def read_overview(db: Database) -> tuple[list[dict[str, Any]], list[Row], list[Row]]:
    """Rows for each operator and lane, the daemons of a day, and the oldest reviews."""
    operators = [
        {**row, "last_failure_answer": first_line(row["last_failure_answer"])}
        for row in await db.fetch(query("operators"))
    ]
    known = {operator["operator_id"] for operator in operators}
    # An operator that was registered between the two queries appears the next time.
    backlog = [row for row in await db.fetch(query("backlog")) if row["operator_id"] in known]
    daemons = await db.fetch(query("status_daemons"))
    review = await db.fetch(query("needs_review"), REVIEW_SHOWN_MAX)
    lanes = {(operator["operator_id"], lane): _empty_lane(operator, lane) for operator in operators for lane in _LANES}
    for row in backlog:
        lane = lanes[row["operator_id"], row["lane"]]
        lane[row["state"]] = row["callbacks"]
        lane["unknown_effect"] += row["unknown_effect"]
        # Negative if even the first callback is due later.
        if row["oldest_due_s"] is not None and row["oldest_due_s"] >= 0:
            lane["oldest_due_s"] = row["oldest_due_s"]
    return list(lanes.values()), [dict(row) for row in daemons], [dict(row) for row in review]


def _empty_lane(operator: Row, lane: str) -> dict[str, Any]:
    return {
        "operator_id": operator["operator_id"],
        "lane": lane,
        "waiting": 0,
        "ready": 0,
        "in_flight": 0,
        **{name: operator[f"{lane}_{name}"] for name in ("slots", "backoff_until", "backoff_for_s")},
        "oldest_due_s": None,
        "unknown_effect": 0,
        **{name: value for name, value in operator.items() if not name.startswith(_LANES)},
    }


# ── The table, which `top` shows as well ───────────────────────────────────────────────


def operator_lines(lanes: Sequence[Row], *, is_served: bool) -> Iterator[str]:
    """A line for each operator and lane, then a sentence for each operator with a problem."""
    first_head, second_head, *lines = table([*_HEADS, *map(_cells, lanes)], gap=" ", right=_RIGHT)
    room = _COLUMNS - len(first_head) - 1
    yield styled(first_head.rstrip(), bold=True)
    yield styled(f"{second_head} state", bold=True)
    for lane, line in zip(lanes, lines, strict=True):
        states = _states(lane)
        yield joined(line, " ", styled(_fitted(states, room), colour=_COLOURS.get(states[0], "red")))
    sentences = list(_sentences(lanes, is_served=is_served))
    if sentences:
        yield ""
    yield from sentences


def is_well(lane: Row) -> bool:
    """True if the operator needs no attention."""
    return _states(lane)[0] in _COLOURS and not lane["unknown_effect"]


def silent_daemon_lines(daemons: Sequence[Row]) -> Iterator[str]:
    """What comes first: that no daemon sends heartbeats, and which ones stopped in the last day."""
    if not any(daemon["is_live"] for daemon in daemons):
        yield styled(
            "no daemon sends heartbeats, so nothing is sent: start one, or read its log", colour="red", bold=True
        )
    for daemon in daemons:
        if not daemon["is_live"]:
            ago = f"{duration(daemon['seen_s_ago'])} ago ({timestamp(daemon['seen_at'], timespec='seconds')})"
            text = f"daemon {daemon['instance']} on {daemon['host']}: last heartbeat {ago}"
            for line in wrapped(text, hanging="  ", columns=_COLUMNS):
                yield styled(line, colour="red")


def daemon_lines(daemons: Sequence[Row]) -> Iterator[str]:
    """A line for each running daemon."""
    live = [daemon for daemon in daemons if daemon["is_live"]]
    if live:
        yield styled("daemons", bold=True)
    for daemon in live:
        seen = f"seen {duration(daemon['seen_s_ago'])} ago, version {daemon['version']}"
        yield f"  {daemon['instance']} on {daemon['host']}, {seen}"
        if text := clock_text(daemon["clock_ahead_s"]):
            yield styled(f"    {text}", colour="red")


def rounded(number: int) -> str:
    """A number in four characters: exact below 10,000, above that in thousands or millions."""
    if number < _EXACT_BELOW:
        return str(number)
    if round(number / 1_000) < _MILLION / 1_000:
        return f"{number / 1_000:.0f}k"
    text = f"{number / _MILLION:.1f}M"
    return text if len(text) <= len("9.9M") else f"{number / _MILLION:.0f}M"


def _cells(lane: Row) -> tuple[str, ...]:
    # The number of slots is known only while a daemon runs.
    slots = "" if lane["slots"] is None else f"/{rounded(lane['slots'])}"
    return (
        lane["operator_id"],
        lane["lane"],
        rounded(lane["waiting"]),
        rounded(lane["ready"]),
        rounded(lane["in_flight"]) + slots,
        "-" if lane["oldest_due_s"] is None else _short(lane["oldest_due_s"]),
        rounded(lane["unknown_effect"]),
    )


def _states(lane: Row) -> list[str]:
    states = [] if lane["enabled"] else ["disabled"]
    if lane["paused_at"] is not None:
        states.append("paused")
    if lane["circuit"] == "open":
        states.append("open" if lane["circuit_for_s"] is None else f"open {_short(lane['circuit_for_s'])}")
    elif lane["circuit"] == "half_open":
        states.append("half open")
    if lane["backoff_for_s"]:
        states.append(f"backoff {_short(lane['backoff_for_s'])}")
    # An open circuit means down; a healthy operator to which nothing is sent is not worth saying.
    adds_health = lane["circuit"] == "closed" and lane["health"] in _ILL
    return [*states, lane["health"]] if adds_health or not states else states


def _fitted(states: Sequence[str], room: int) -> str:
    """As many states as fit, at least the first; … stands for those in the sentences only."""
    for number in range(len(states), 1, -1):
        text = ", ".join(states[:number]) + ("…" if number < len(states) else "")
        if len(text) <= room:
            return text
    return states[0] + ("…" if len(states) > 1 else "")


def _sentences(lanes: Sequence[Row], *, is_served: bool) -> Iterator[str]:
    """What the table has no room for, such as who paused an operator and why."""
    for operator_id in dict.fromkeys(lane["operator_id"] for lane in lanes):
        own = [lane for lane in lanes if lane["operator_id"] == operator_id]
        if facts := list(_problems(own, is_served=is_served)):
            yield from wrapped(f"{operator_id}: {'; '.join(facts)}", hanging="  ", columns=_COLUMNS)


def _problems(lanes: Sequence[Row], *, is_served: bool) -> Iterator[str]:
    lane = lanes[0]
    failures = f"{lane['consecutive_failures']:,} failures in a row"
    if lane["paused_at"] is not None:
        yield f"paused for {duration(lane['paused_for_s'])} by {lane['paused_by']}: {lane['pause_reason']}"
    if lane["circuit"] != "closed":
        age = "" if lane["circuit_for_s"] is None else f" for {duration(lane['circuit_for_s'])}"
        yield f"circuit {lane['circuit'].replace('_', ' ')}{age}, {failures}"
        if lane["circuit"] == "open" and lane["ping_in_s"] is not None:
            is_pinged = lane["enabled"] and lane["paused_at"] is None
            yield f"next PING in {duration(max(0.0, lane['ping_in_s']))}" if is_pinged else "no PING meanwhile"
        yield f"health {lane['health']}"
    elif lane["health"] in _ILL:
        yield f"health {lane['health']}, {failures}"
    if lane["consecutive_failures"] and lane["last_failure_at"] is not None:
        yield f"last failure at {timestamp(lane['last_failure_at'])}: {_last_failure_text(lane)}"
    if lane["unreachable_from"]:
        yield f"cannot be reached by daemon {', '.join(lane['unreachable_from'])}"
    for limited in lanes:
        if limited["backoff_for_s"]:
            yield f"Retry-After: {limited['lane']} waits for {duration(limited['backoff_for_s'])}"
    if is_served and not lane["daemons"]:
        yield "no running daemon has its file"


def _last_failure_text(operator: Row) -> str:
    columns = ("reason", "status", "location", "answer")
    return failure_text(*(operator[f"last_failure_{column}"] for column in columns))


def _short(seconds: float) -> str:
    """A duration without a space or a fraction, for the table."""
    text = duration(round(seconds) if seconds >= 1 else seconds)
    return text.replace(".0 s", " s").replace(" ", "")
