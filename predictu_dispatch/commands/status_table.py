"""The table of `status`: as much as 80 columns hold, and in sentences below it whatever is not as it should be."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from predictu_dispatch.commands import output

_COLUMNS: Final = 80
_HEADS: Final = (
    ("", "operator"),
    ("", "lane"),
    ("wait-", "ing"),
    ("", "ready"),
    ("in flight", "of slots"),
    ("oldest", "due"),
    ("un-", "known"),
    ("", "state"),
)
"""In two lines, because numbers are narrower than the words for them."""
_LEFT: Final = frozenset({"operator", "lane", "state"})
_COLOURS: Final = {"healthy": "green", "degraded": "yellow", "unknown": None}
_ILL: Final = frozenset({"degraded", "down"})
_EXACT_BELOW: Final = 10_000
_MILLION: Final = 1_000_000

Lane = Mapping[str, Any]


def operator_lines(lanes: Sequence[Lane], *, runs: bool) -> Iterator[str]:
    """A line for each operator and lane, then a sentence for each operator that needs one; `runs` if a daemon does."""
    rows = [_numbers(lane) for lane in lanes]
    heads = list(zip(*_HEADS, strict=True))
    state_at = len(_HEADS) - 1
    widths = [max(map(len, column)) for column in zip(*(head[:state_at] for head in heads), *rows, strict=True)]
    room = _COLUMNS - sum(widths) - len(widths)
    for head in heads:
        yield click.style(_line(head[:state_at], widths) + " " + head[state_at], bold=True)
    for lane, row in zip(lanes, rows, strict=True):
        states = _states(lane)
        colour = _COLOURS.get(states[0], "red")
        yield f"{_line(row, widths)} {click.style(_fitted(states, room), fg=colour)}"
    said = list(_sentences(lanes, runs=runs))
    if said:
        yield ""
    yield from said


def is_well(lane: Lane) -> bool:
    """True where the operator needs nobody to look at it."""
    return _states(lane)[0] in _COLOURS and not lane["unknown_effect"]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(
        cell.ljust(width) if name in _LEFT else cell.rjust(width)
        for cell, width, (_, name) in zip(cells, widths, _HEADS, strict=False)
    )


def _numbers(lane: Lane) -> tuple[str, ...]:
    # Without a running daemon nobody says how many slots there are.
    slots = "" if lane["slots"] is None else f"/{rounded(lane['slots'])}"
    oldest = "-" if lane["oldest_due_s"] is None else _span(lane["oldest_due_s"])
    return (
        lane["operator_id"],
        lane["lane"],
        rounded(lane["waiting"]),
        rounded(lane["ready"]),
        rounded(lane["in_flight"]) + slots,
        oldest,
        rounded(lane["unknown_effect"]),
    )


def _states(lane: Lane) -> list[str]:
    """What the operator is, what matters most first."""
    states = [] if lane["enabled"] else ["disabled"]
    if lane["paused_at"] is not None:
        states.append("paused")
    if lane["circuit"] == "open":
        states.append("open" if lane["circuit_for_s"] is None else f"open {_span(lane['circuit_for_s'])}")
    elif lane["circuit"] == "half_open":
        states.append("half open")
    if lane["backoff_for_s"]:
        states.append(f"held {_span(lane['backoff_for_s'])}")
    # An open circuit says that it is down; and that it was healthy does not matter where nothing is sent.
    says_more = lane["circuit"] == "closed" and lane["health"] in _ILL
    return [*states, lane["health"]] if says_more or not states else states


def _fitted(states: Sequence[str], room: int) -> str:
    """As many of the states as there is room for, the first in any case; … stands for those that are only below."""
    for count in range(len(states), 1, -1):
        text = ", ".join(states[:count]) + ("…" if count < len(states) else "")
        if len(text) <= room:
            return text
    return states[0] + ("…" if len(states) > 1 else "")


def _sentences(lanes: Sequence[Lane], *, runs: bool) -> Iterator[str]:
    """What the table has no room for: who paused an operator and why, since when its circuit is open, and the like."""
    for operator_id in dict.fromkeys(lane["operator_id"] for lane in lanes):
        own = [lane for lane in lanes if lane["operator_id"] == operator_id]
        if said := list(_of_operator(own, runs=runs)):
            yield from wrapped(f"{operator_id}: {'; '.join(said)}", subsequent_indent="  ")


def wrapped(text: str, *, indent: str = "", subsequent_indent: str | None = None) -> list[str]:
    """Lines for 80 columns that never break a word: an id is there to be copied."""
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent if subsequent_indent is None else subsequent_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _of_operator(lanes: Sequence[Lane], *, runs: bool) -> Iterator[str]:
    lane = lanes[0]
    if lane["paused_at"] is not None:
        yield f"paused for {output.duration(lane['paused_for_s'])} by {lane['paused_by']}: {lane['pause_reason']}"
    if lane["circuit"] != "closed":
        name, failures = lane["circuit"].replace("_", " "), lane["consecutive_failures"]
        age = "" if lane["circuit_for_s"] is None else f" for {output.duration(lane['circuit_for_s'])}"
        yield f"circuit {name}{age}, {failures:,} failures in a row"
        if lane["circuit"] == "open" and lane["ping_in_s"] is not None:
            is_pinged = lane["enabled"] and lane["paused_at"] is None
            yield (
                f"next PING in {output.duration(max(0.0, lane['ping_in_s']))}" if is_pinged else "not pinged meanwhile"
            )
        yield f"health {lane['health']}"
    elif lane["health"] in _ILL:
        yield f"health {lane['health']}, {lane['consecutive_failures']:,} failures in a row"
    for held in lanes:
        if held["backoff_for_s"]:
            yield f"asked to be left alone ({held['lane']}) for {output.duration(held['backoff_for_s'])} more"
    if runs and not lane["daemons"]:
        yield "no running daemon has its file"


def rounded(number: int) -> str:
    """A number in four characters: exact below 10,000, from there in thousands or millions."""
    if number < _EXACT_BELOW:
        return str(number)
    if round(number / 1_000) < _MILLION / 1_000:
        return f"{number / 1_000:.0f}k"
    text = f"{number / _MILLION:.1f}M"
    return text if len(text) <= len("9.9M") else f"{number / _MILLION:.0f}M"


def _span(seconds: float) -> str:
    """As output.duration, without a space and a fraction, so that it is narrow."""
    text = output.duration(round(seconds) if seconds >= 1 else seconds)
    return text.replace(".0 s", " s").replace(" ", "")
