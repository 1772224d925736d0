"""Printing for all commands: JSON, wrapped lines, tables, times, durations and amounts."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

import click

Row: TypeAlias = Mapping[str, Any]

_PROSE_COLUMNS_MAX: Final = 100
"""Longer lines of prose are hard to read, however wide the terminal."""
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"
_UNBROKEN: Final = re.compile(
    r"predictu-dispatch [a-z-]+(?: (?:[0-9a-f-]{36}|--[a-z]+(?: [A-Z]+)?))*|[\d.]+ (?:ms|s|min|h|d)\b"
)


def print_json(value: object) -> None:
    """Print one JSON value, indented. Timestamps, UUIDs and bytes in it become text."""
    click.echo(json.dumps(_json_value(value), indent=2, ensure_ascii=False))


def _json_value(value: Any) -> Any:  # noqa: ANN401 - a row holds any type
    if isinstance(value, Mapping):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def print_error(message: str, hint: str = "") -> None:
    """Print an error on one line of stderr, and its hint on the next; both escaped."""
    click.echo(printable(message), err=True)
    if hint:
        click.echo(f"    {printable(hint)}", err=True)


def confirm(question: str) -> None:
    """Ask on stderr, escaped; ends the command with exit code 1 without a yes."""
    click.confirm(printable(question), abort=True, err=True)


def print_wrapped(
    text: str, *, indent: str = "", hanging: str | None = None, colour: str | None = None, bold: bool = False
) -> None:
    """Print text on lines that fit the terminal, escaped; the style holds for all of them."""
    for line in wrapped(printable(text), indent=indent, hanging=hanging):
        click.echo(click.style(line, fg=colour, bold=bold) if colour or bold else line)


def wrapped(text: str, *, indent: str = "", hanging: str | None = None, columns: int | None = None) -> list[str]:
    """Break text into lines between words only; ids and, if they fit a line, commands stay whole.

    `hanging` is the indent of all lines but the first; by default as wide as `indent`. Without
    `columns`, the lines fit the terminal.
    """
    columns = columns or min(_PROSE_COLUMNS_MAX, shutil.get_terminal_size().columns)
    hanging = " " * len(indent) if hanging is None else hanging
    room = columns - len(hanging)
    joined = _UNBROKEN.sub(lambda m: m[0].replace(" ", _NO_BREAK) if len(m[0]) <= room else m[0], text)
    lines = textwrap.wrap(
        joined,
        columns,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def table(rows: Sequence[Sequence[str]], *, gap: str = "  ", right: Collection[int] = ()) -> list[str]:
    """Align cells, those in `right` to the right; all lines have the same length."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        gap.join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def printable(text: str) -> str:
    """Escape control characters, so that foreign text cannot control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def timestamp(at: datetime | None, *, timespec: str = "milliseconds") -> str:
    """A time as RFC 3339 in UTC: 2026-11-28T10:00:05.123Z."""
    return "unknown" if at is None else f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=timespec)}Z"


def duration(seconds: float) -> str:
    """A duration in its largest sensible unit: 300 ms, 4.0 s, 90 s, 5 min, 3 h, 2 d."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.1f} s"


def money(subunits: int | None, currency: str | None, digits: int | None) -> str:
    """An amount as people write it: 12.50 EUR; in subunits if the currency's digits are unknown."""
    if subunits is None:
        return "unknown"
    if digits is None or currency is None:
        return f"{subunits} subunits{f' of {currency}' if currency else ''}"
    return f"{Decimal(subunits).scaleb(-digits):,.{digits}f} {currency}"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 callback, 2 callbacks."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
