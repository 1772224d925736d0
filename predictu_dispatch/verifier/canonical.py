"""Canonical JSON: RFC 8785, restricted to objects, arrays, strings, integers, booleans and null."""

from __future__ import annotations

import json
from typing import Final, NoReturn

_DIGITS_MAX: Final = 20
"""Of an integer; every one of ours fits 64 bits."""
CONTAINERS_MAX: Final = 100_000
VALUES_MAX: Final = 400_000
"""Parsed, JSON can take fifty times its size; the largest bundle has half of these."""


def canonical(value: object) -> bytes:
    """Return the only encoding of a value: keys in order, no space, UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def parse_object(content: bytes) -> dict[str, object]:
    """Read one object from its canonical encoding. Raises ValueError for any other bytes."""
    value = as_object(parse_json(content), "it")
    if canonical(value) != content:
        raise ValueError("it is not in the canonical encoding (RFC 8785)")
    return value


def as_object(value: object, what: str) -> dict[str, object]:
    """Return an object that parse_json() read. Raises ValueError for any other value."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not a JSON object")  # noqa: TRY004 - of a file, not of an argument
    return value


def parse_json(content: bytes, *, floats: bool = False) -> object:
    """Read JSON in any encoding of it, but without duplicate keys. Raises ValueError."""
    if content.count(b"[") + content.count(b"{") > CONTAINERS_MAX or content.count(b",") > VALUES_MAX:
        raise ValueError("its JSON has too many values")
    try:
        return json.loads(
            content.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=str if floats else _refuse,
            parse_constant=_refuse,
        )
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has the same key twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        raise ValueError("it has a number of too many digits")
    return int(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"it has a number that is no integer: {text[:40]}")
