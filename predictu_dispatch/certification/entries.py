"""The entries of a run's journal: one JSON object a line. Pure.

An entry has no token and no key. A request's body names a test player.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, get_type_hints

from predictu_dispatch.certification.observation import Outcome
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.scenario import ScenarioVerdict

JOURNAL_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """The first line: what is played, against which sandbox."""

    version: int
    run: str
    operator_id: str
    url: str
    kid: str
    players: tuple[str, ...]
    currency: str
    digits: int
    amount_format: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEntry:
    """A player's balance before the run's first debit."""

    player_id: str
    balance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEntry:
    """A request that is about to be sent; it may have been, whatever happens to this process.

    `n` numbers the sendings of the run. A repetition has the same request_id and body.
    """

    n: int
    prepared: Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeEntry:
    """What came of the sending `n`."""

    n: int
    outcome: Outcome
    reason: str
    """The reason of production's judge, or ""."""
    status: str
    """The operator's status, or ""."""
    http_status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictEntry:
    """The verdict on a scenario that was played to its end."""

    scenario: str
    verdict: ScenarioVerdict


Entry = RunEntry | StartEntry | RequestEntry | OutcomeEntry | VerdictEntry
_KINDS: Final[dict[str, type[Entry]]] = {
    "run": RunEntry,
    "start": StartEntry,
    "request": RequestEntry,
    "outcome": OutcomeEntry,
    "verdict": VerdictEntry,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}
_TYPES: Final = {kind: get_type_hints(kind) for kind in _NAMES}


class EntryError(ValueError):
    """A line that is no entry; the message says why."""


def lines_of(entries: Iterable[Entry]) -> bytes:
    """Return the entries as lines, each with its line feed."""
    return b"".join(_line_of(entry) for entry in entries)


def _line_of(entry: Entry) -> bytes:
    members = {"n": entry.n, **entry.prepared.as_json()} if isinstance(entry, RequestEntry) else asdict(entry)
    named = {"entry": _NAMES[type(entry)], **members}
    return json.dumps(named, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def read_entry(line: bytes) -> Entry:
    """Return the entry in a line. Raises EntryError."""
    try:
        members: dict[str, Any] = json.loads(line)
        kind = _KINDS[members.pop("entry")]
        if kind is RequestEntry:
            return RequestEntry(n=_of_type(members.pop("n"), int), prepared=Prepared.from_json(members))
        return _made(kind, members)
    except EntryError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EntryError(f"not an entry of a journal ({type(error).__name__})") from None


def _made(kind: type[Entry], members: Mapping[str, object]) -> Entry:
    if kind is RunEntry and members.get("version") != JOURNAL_VERSION:
        raise EntryError(f"its version is {members.get('version')}; this program reads {JOURNAL_VERSION}")
    types = _TYPES[kind]
    if members.keys() != types.keys():
        raise EntryError(f"its keys are not those of this version: {', '.join(sorted(members))}")
    values: dict[str, Any] = {name: _of_type(value, types[name]) for name, value in members.items()}
    return kind(**values)


def _of_type(value: object, wanted: Any) -> Any:  # noqa: ANN401 - as the field's annotation says
    """Return a JSON value as a field's type. Raises EntryError if it is not of that type."""
    if wanted == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif wanted == int | None:
        return None if value is None else _of_type(value, int)
    elif wanted not in (int, str):
        return wanted(value)
    elif type(value) is wanted:
        # A bool is an int in Python and no number here.
        return value
    raise EntryError(f"{value!r} is not of the type {wanted}")
