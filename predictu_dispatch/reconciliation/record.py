"""One record of a ledger's part, or why it cannot be read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from predictu_dispatch.core.reconcile_settings import ReconcileColumns
from predictu_dispatch.core.settings import shown

_NO_LETTER: Final = re.compile(r"[\W_]+")


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


def misnamed_column(names: Collection[str], columns: ReconcileColumns) -> str:
    """Return why a column would be taken for a missing one, or "".

    Its name differs only in case, spaces or punctuation. Without it, the lines would be matched and
    compared by less than they have.
    """
    lacking = {_letters(theirs): (ours, theirs) for ours, theirs in columns if theirs and theirs not in names}
    for name in names:
        ours, theirs = lacking.get(_letters(name), ("", ""))
        if ours and name not in columns.model_dump().values():
            return f'has {shown(name)}, but not {shown(theirs)} ([reconcile.columns] {ours}; "" to read it without)'
    return ""


def _letters(name: str) -> str:
    return _NO_LETTER.sub("", name).casefold()
