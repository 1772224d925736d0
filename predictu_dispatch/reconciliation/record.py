"""One record of a ledger's part, or why it cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Record(NamedTuple):
    """A record's texts by our names of the columns; nothing for a column that it has not."""

    line: int
    """Its first line, from 1."""
    fields: Mapping[str, str | None]


class RecordFault(NamedTuple):
    """Why one record cannot be read."""

    line: int
    """Its first line, from 1."""
    column: str
    """The operator's name of the column; empty if the fault concerns the whole record."""
    why: str
