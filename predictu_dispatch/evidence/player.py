"""Finds a player's id in bytes, in every form in which it is likely to be written."""

from __future__ import annotations

import base64
import json
from typing import Final
from urllib.parse import quote, quote_plus, unquote_to_bytes

SEARCHED_CHARS_MIN: Final = 8
"""A shorter id occurs by chance in hashes, so only text from outside is searched for it."""
_ENCODED_CHARS_MIN: Final = 6


class Player:
    """A player's id, to be kept out of a bundle."""

    def __init__(self, player_id: str) -> None:
        raw = player_id.encode()
        quoted = [quote(player_id, safe=""), quote_plus(player_id, safe="")]
        escaped = [json.dumps(player_id)[1:-1], json.dumps(player_id, ensure_ascii=False)[1:-1]]
        forms = {raw, *(each.encode() for each in (*quoted, *escaped, escaped[0].replace("/", "\\/")))}
        self._forms = tuple({each.lower() for each in forms})
        self._encoded = tuple({*_base64_forms(raw), raw.hex().encode()} if len(raw) >= _ENCODED_CHARS_MIN else ())
        self.is_searched_everywhere = len(player_id) >= SEARCHED_CHARS_MIN

    def is_named_in(self, content: bytes) -> bool:
        """True if the bytes name the player; also if they are JSON or a URL that does."""
        return any(self._is_in(each) for each in (content, unquote_to_bytes(content), _unescaped(content)))

    def _is_in(self, content: bytes) -> bool:
        lowered = content.lower()
        return any(form in lowered for form in self._forms) or any(form in content for form in self._encoded)


def _base64_forms(raw: bytes) -> set[bytes]:
    """What is constant of the id in base64, for each place at which it may begin."""
    forms = set()
    for before in range(3):
        first, bits = -(-before * 8 // 6), (before + len(raw)) * 8
        text = base64.b64encode(bytes(before) + raw)[first : bits // 6]
        forms |= {text, text.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


def _unescaped(content: bytes) -> bytes:
    """JSON without its escapes; nothing if the bytes are not JSON."""
    if b"\\" not in content:
        return b""
    try:
        return json.dumps(json.loads(content), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return b""
