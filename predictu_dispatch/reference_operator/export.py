"""`ledger`: writes the ledger of a period as CSV, the same bytes that `GET {path}/ledger` answers.

The operator may run meanwhile: this process only reads, from one snapshot of the database.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from .database import WalletError
from .ledger import Period, csv_pages, open_to_read, parse_time
from .settings import PROGRAM


def export_ledger(arguments: Sequence[str]) -> None:
    """Writes the ledger to stdout, or to a file, which is then whole or unchanged.

    Raises SystemExit or ValueError if an option is bad, and WalletError or OSError.
    """
    options = _parser().parse_args(arguments)
    period = Period(since=_bound(options.since, "--from"), until=_bound(options.until, "--until"))
    database: Path = options.database
    pages = _pages(database, period)
    if options.output is None:
        for page in pages:
            sys.stdout.buffer.write(page)
        sys.stdout.buffer.flush()
        return
    file: Path = options.output
    if not file.absolute().parent.is_dir():
        raise ValueError(f"--output: there is no folder {file.parent}")
    # Beside the file, so that it can take its place at once.
    with tempfile.NamedTemporaryFile(dir=file.absolute().parent, prefix=f".{file.name}.", delete=False) as new:
        try:
            new.writelines(pages)
            new.flush()
            os.fsync(new.fileno())
            Path(new.name).replace(file)
        except BaseException:
            Path(new.name).unlink()
            raise


def _pages(database: Path, period: Period) -> Iterator[bytes]:
    if not database.is_file():
        raise WalletError(f"--database: there is no file {database}")
    try:
        with closing(open_to_read(database)) as sql:
            yield from csv_pages(sql, period)
    except sqlite3.Error as fault:
        raise WalletError(f"--database: {database} cannot be read: {fault}") from None


def _bound(text: str | None, option: str) -> str | None:
    return None if text is None else parse_time(text, option)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} ledger",
        description="Writes the bookings of a period as CSV, in the order of booking, for Predictu.",
        epilog="Times are RFC 3339 with an offset, such as 2026-03-19T00:00:00Z or 2026-03-19T00:00:00+01:00.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--database", required=True, type=Path, metavar="FILE", help="the operator's SQLite file; only read")
    add("--from", dest="since", metavar="TIME", help="the first moment (default: from the beginning)")
    add("--until", metavar="TIME", help="the first moment after the period (default: to the end)")
    add("--output", type=Path, metavar="FILE", help="write this file instead of stdout")
    return parser
