"""Removes the signature of our token from what an operator answers.

With its signature a token is a credential until it expires, and an operator may quote what it was
sent: in a page about an error, in a header, as a transaction_id.
"""

from __future__ import annotations

from typing import Final

from predictu_dispatch.core.callback import Exchange

PART_CHARS_MIN: Final = 16
"""A shorter beginning of a signature says too little of it, and other text may equal it."""


def without_signature(exchange: Exchange, signature: str) -> Exchange:
    """Return the exchange with the signature's characters replaced by as many asterisks.

    `signature` is in base64url, as in the token. At the end of a body or error that was cut, its
    beginning is replaced too.
    """
    octets = signature.encode()
    is_cut = exchange.truncated or exchange.error is not None
    if not is_cut and octets not in exchange.body and not _is_in(exchange.headers, signature):
        return exchange
    body = exchange.body.replace(octets, b"*" * len(octets))
    if exchange.truncated:
        part = _cut_part(body, octets)
        body = body[: len(body) - part] + b"*" * part
    error = exchange.error
    if error is not None:
        error = error.replace(signature, "*" * len(signature))
        part = _cut_part(error.encode(), octets)
        error = error[: len(error) - part] + "*" * part
    return exchange._replace(
        body=body,
        error=error,
        headers=tuple(
            (name.replace(signature, "*" * len(signature)), value.replace(signature, "*" * len(signature)))
            for name, value in exchange.headers
        ),
    )


def _is_in(headers: tuple[tuple[str, str], ...], signature: str) -> bool:
    # Without any(), which takes twice as long, and this is done for every attempt.
    for name, value in headers:  # noqa: SIM110
        if signature in value or signature in name:
            return True
    return False


def _cut_part(octets: bytes, signature: bytes) -> int:
    """Return how many bytes at the end are a beginning of the signature; 0 if they are too few."""
    for length in range(min(len(signature), len(octets)), PART_CHARS_MIN - 1, -1):
        if octets.endswith(signature[:length]):
            return length
    return 0
