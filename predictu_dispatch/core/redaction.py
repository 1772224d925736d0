"""Removes the signature of our token from what an operator answers.

With its signature a token is a credential until it expires, and an operator may quote what it was
sent: in a page about an error, in a header, as a transaction_id.
"""

from __future__ import annotations

from typing import Final

from predictu_dispatch.core.callback import Exchange

PART_CHARS_MIN: Final = 16
"""A shorter beginning reveals too little, and other text may be equal to it."""


def without_signature(exchange: Exchange, signature: str) -> Exchange:
    """Return the exchange with the signature's characters replaced by as many asterisks.

    `signature` is in base64url, as in the token. Whoever quotes it may have cut it, at a length of
    its own or because we stopped reading: without its last character it is worth four guesses. So
    each beginning of it is replaced.
    """
    octets, beginning = signature.encode(), signature[:PART_CHARS_MIN]
    is_in_error = exchange.error is not None and beginning in exchange.error
    if not is_in_error and octets[:PART_CHARS_MIN] not in exchange.body and not _is_in(exchange.headers, beginning):
        return exchange
    return exchange._replace(
        # Each octet is a character in Latin-1.
        body=_without(exchange.body.decode("latin-1"), signature).encode("latin-1"),
        error=None if exchange.error is None else _without(exchange.error, signature),
        headers=tuple((_without(name, signature), _without(value, signature)) for name, value in exchange.headers),
    )


def _is_in(headers: tuple[tuple[str, str], ...], text: str) -> bool:
    # Without any(), which takes twice as long, and this is done for every attempt.
    for name, value in headers:  # noqa: SIM110
        if text in value or text in name:
            return True
    return False


def _without(text: str, signature: str) -> str:
    parts, end = [], 0
    while (begin := text.find(signature[:PART_CHARS_MIN], end)) >= 0:
        length = PART_CHARS_MIN
        while length < len(signature) and text.startswith(signature[length], begin + length):
            length += 1
        parts += [text[end:begin], "*" * length]
        end = begin + length
    return "".join(parts) + text[end:]
