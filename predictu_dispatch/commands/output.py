"""All that commands print: lines, wrapped prose, tables, JSON, questions and a live screen.

Theory of operation. What is shown may be text from outside: an operator's status, a producer's
id, a reason. Everything is escaped when it is printed, except `Styled` text, which `styled` and
`joined` have escaped. An f-string of styled text is plain text again, so a forgotten call shows an
escape sequence as text. Commands print with these functions only.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO, TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click

from predictu_dispatch.core.printable import printable

if TYPE_CHECKING:
    from rich.live import Live

Row: TypeAlias = Mapping[str, Any]

_PROSE_COLUMNS_MAX: Final = 100
"""Longer lines of prose are hard to read, however wide the terminal."""
_EXACT_BELOW: Final = 10_000
_MILLION: Final = 1_000_000
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"
_UNBROKEN: Final = re.compile(
    r"predictu-dispatch (?:ping|resume|(?:keys|operator) [a-z]+) [\w-]+(?: --[a-z]+)?|"
    r"predictu-dispatch check && systemctl reload '\S+'|openssl s_client \S+ \S+ \S+ </dev/null|"
    r"predictu-dispatch [a-z-]+(?: (?:[0-9a-f-]{36}|--[a-z]+(?: [A-Z]+)?))*|[\d.]+ (?:ms|s|min|h|d)\b"
)


class Styled(str):
    """Text that is escaped already, with the terminal's styles."""

    __slots__ = ()


def styled(text: str, *, colour: str | None = None, bold: bool = False) -> Styled:
    """The text, escaped, in a style."""
    return Styled(click.style(printable(text), fg=colour, bold=bold) if colour or bold else printable(text))


def joined(*parts: str) -> Styled:
    """A line of several parts; those that are not styled are escaped."""
    return Styled("".join(part if isinstance(part, Styled) else printable(part) for part in parts))


def prepare_streams() -> None:
    """Escape characters that a stream's encoding lacks, and what tracebacks quote."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _print_exception


@contextmanager
def usage_errors_escaped() -> Iterator[None]:
    """Escape the arguments that click's own messages quote: they may be pasted."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        # Its message is the whole help.
        raise
    except click.ClickException as error:
        # For an ASCII stream, click chooses UTF-8.
        encoded = printable(error.message).encode(sys.stderr.encoding, "backslashreplace")
        error.message = encoded.decode(sys.stderr.encoding)  # type: ignore[misc] # only its text is read
        raise


def _print_exception(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    for part in traceback.format_exception(kind, error, at):
        # Only a frame has several lines of ours; a message may have those of others.
        for line in part.splitlines() if part.startswith("  ") else [part.strip("\n")]:
            print_line(line, err=True)


def print_line(line: str = "", *, err: bool = False) -> None:
    """Print one line; escaped unless it is styled."""
    # With the stream given, click does not choose another encoding for it.
    click.echo(joined(line), file=sys.stderr if err else sys.stdout)


def print_lines(text: str) -> None:
    """Print text of ours that has several lines."""
    for line in text.splitlines():
        print_line(line)


def print_json(value: object) -> None:
    """Print one JSON value, indented, in ASCII. Timestamps, UUIDs and bytes in it become text."""
    print_lines(json.dumps(_json_value(value), indent=2).replace("\x7f", "\\u007f"))


def print_csv(rows: Iterable[Sequence[str]]) -> None:
    """Print rows as CSV (RFC 4180, UTF-8), every value as it is: a program reads it.

    A person reads what a terminal shows, so there they are escaped. If the reader has closed the
    pipe, the command ends without a message, with exit code 1. Raises OSError if the rows cannot be
    written for another reason.
    """
    text = StringIO(newline="")
    # With \r\n as line ends, values with either character are quoted.
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    if sys.stdout.isatty():
        for line in text.getvalue().removesuffix("\r\n").split("\r\n"):
            print_line(line)
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.getvalue().encode())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # What is still buffered goes nowhere; otherwise Python would report the pipe at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


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
    """Print an error and its hint on stderr, on one line each; on a terminal they are wrapped."""
    for text, indent in ((message, ""), (hint, "    ")):
        lines = wrapped(text, indent=indent) if sys.stderr.isatty() else [f"{indent}{text}"]
        for line in lines if text else ():
            print_line(line, err=True)


def ask(question: str) -> None:
    """Ask on stderr, escaped; ends the command with exit code 1 without a yes."""
    click.confirm(printable(question), abort=True, err=True)


def print_wrapped(
    text: str, *, indent: str = "", hanging: str | None = None, colour: str | None = None, bold: bool = False
) -> None:
    """Print text on lines that fit the terminal, escaped; the style holds for all of them."""
    for line in wrapped(text, indent=indent, hanging=hanging):
        print_line(styled(line, colour=colour, bold=bold))


def wrapped(text: str, *, indent: str = "", hanging: str | None = None, columns: int | None = None) -> list[str]:
    """Break text, escaped, between words only; ids and, if they fit a line, commands stay whole.

    `hanging` is the indent of all lines but the first; by default as wide as `indent`. Without
    `columns`, the lines fit the terminal.
    """
    columns = columns or min(_PROSE_COLUMNS_MAX, terminal_columns())
    hanging = " " * len(indent) if hanging is None else hanging
    room = columns - len(hanging)
    joined = _UNBROKEN.sub(lambda m: m[0].replace(" ", _NO_BREAK) if len(m[0]) <= room else m[0], printable(text))
    lines = textwrap.wrap(
        joined,
        columns,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def terminal_columns() -> int:
    """The width of the terminal; 80 if there is none."""
    return shutil.get_terminal_size().columns


def table(rows: Sequence[Sequence[str]], *, gap: str = "  ", right: Collection[int] = ()) -> list[str]:
    """Align cells, escaped, those in `right` to the right; all lines have the same length."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        gap.join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def shortened(text: str, columns: int) -> str:
    """The text, or its beginning and end with … between them, in at most this many columns."""
    if len(text) <= columns:
        return text
    tail = max(0, columns - 1) // 3
    return f"{text[: max(0, columns - 1 - tail)]}…{text[len(text) - tail :]}"


class Screen:
    """A terminal's whole screen, which shows other lines at each call of `show`."""

    def __init__(self, live: Live) -> None:
        self._live = live

    @property
    def height(self) -> int:
        return self._live.console.height

    @property
    def width(self) -> int:
        return self._live.console.width

    def show(self, lines: Sequence[str]) -> None:
        from rich.text import Text  # noqa: PLC0415 - loaded only where used

        shown = Text.from_ansi("\n".join(map(joined, lines)), no_wrap=True, overflow="crop")
        self._live.update(shown, refresh=True)


@contextmanager
def live_screen() -> Iterator[Screen]:
    """Use the terminal's whole screen, and restore it at the end."""
    from rich.console import Console  # noqa: PLC0415 - loaded only where used
    from rich.live import Live  # noqa: PLC0415

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        yield Screen(live)


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


def rounded(number: int) -> str:
    """A number in four characters: exact below 10,000, above that in thousands or millions."""
    if number < _EXACT_BELOW:
        return str(number)
    if round(number / 1_000) < _MILLION / 1_000:
        return f"{number / 1_000:.0f}k"
    text = f"{number / _MILLION:.1f}M"
    return text if len(text) <= len("9.9M") else f"{number / _MILLION:.0f}M"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 callback, 2 callbacks."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
