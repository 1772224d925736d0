"""A lenient HTTP parser for the oracle. It shares no code with the transport.

It accepts more than the transport, so every answer that the transport accepts must be complete
here.
"""

import json
import re
from typing import NamedTuple

_HEAD_ENDS = re.compile(rb"\n\r?\n")
_LINE_ENDS = re.compile(rb"\r?\n")
_STATUS_LINE = re.compile(rb"[A-Za-z]+/\d\.\d[ \t]+(\d{3})(?:[ \t].*)?", re.DOTALL)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;.*)?", re.DOTALL)
_INTERIM = range(100, 200)
_SWITCHING = 101


class UnsureError(Exception):
    """The RFCs allow both readings."""


class Found(NamedTuple):
    code: int
    body: bytes


def answer_in(wire: bytes, *, closed: bool) -> Found | None:
    """The complete final answer in `wire`; None if there is none. Raises UnsureError."""
    rest = wire.lstrip(b"\r\n")
    while True:
        end = _HEAD_ENDS.search(rest)
        if end is None:
            return None
        lines, rest = _LINE_ENDS.split(rest[: end.start()]), rest[end.end() :]
        status = _STATUS_LINE.fullmatch(lines[0].rstrip(b"\r"))
        if status is None:
            return None
        code = int(status[1])
        if code not in _INTERIM or code == _SWITCHING:
            break
        rest = rest.lstrip(b"\r\n")
    body = b"" if code in (_SWITCHING, 204, 304) else _body(lines[1:], rest, closed=closed)
    return None if body is None else Found(code, body)


def _body(lines: list[bytes], rest: bytes, *, closed: bool) -> bytes | None:
    if any(line[:1] in (b" ", b"\t") or b"\r" in line for line in lines):
        raise UnsureError
    headers = [
        (name.strip().lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)
    ]
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings == [b"chunked"] and not lengths:
        return _joined(rest)
    if codings or len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
        raise UnsureError
    if lengths:
        return rest[: int(lengths[0])] if len(rest) >= int(lengths[0]) else None
    return rest if closed else None


def _joined(rest: bytes) -> bytes | None:
    """The content of the chunks; None if the last chunk or the trailers are incomplete."""
    content = b""
    while True:
        line = _LINE_ENDS.search(rest)
        size = _CHUNK_SIZE.fullmatch(rest[: line.start()]) if line else None
        if line is None or size is None:
            return None
        rest = rest[line.end() :]
        length = int(size[1], 16)
        if length == 0:
            return content if re.match(rb"\r?\n", rest) or _HEAD_ENDS.search(rest) else None
        content, rest = content + rest[:length], rest[length:]
        end = re.match(rb"\r?\n", rest)
        if end is None:
            return None
        rest = rest[end.end() :]


def status_in(body: bytes) -> str | None:
    """The status of a body that is one JSON object without duplicate keys. Raises UnsureError."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        # Numbers stay text, because their range does not matter here.
        answer = json.loads(
            body.decode(), object_pairs_hook=once, parse_constant=refuse, parse_int=lambda _: 0, parse_float=lambda _: 0
        )
    except ValueError:
        return None
    except RecursionError as too_deep:
        raise UnsureError from too_deep
    status = answer.get("status") if isinstance(answer, dict) else None
    return status if isinstance(status, str) else None
