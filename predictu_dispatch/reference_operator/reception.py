"""What arrived, understood or refused: first who sent it, then what it says, then whether the two belong together."""

from __future__ import annotations

from dataclasses import dataclass

from .answer import Answer
from .callback import Callback, read_callback
from .keys import Keyring
from .money import AmountFormat
from .verify import check_binding, verify_token

VERIFIED = "verified"
"""What the record says of a good signature; of any other it says why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """The callback, or the answer that refuses it; and what the record says of its signature."""

    signature: str
    content: Callback | Answer


def understand(
    authorization: list[str], body: bytes, *, keyring: Keyring, operator_id: str, amount_format: AmountFormat
) -> Reception:
    """The body is not read before the signature holds: until then it is only bytes from anywhere."""
    claims = verify_token(authorization, body, keyring=keyring, operator_id=operator_id)
    if isinstance(claims, Answer):
        return Reception(signature=claims.message, content=claims)
    callback = read_callback(body, operator_id=operator_id, amount_format=amount_format)
    if isinstance(callback, Answer):
        return Reception(signature=VERIFIED, content=callback)
    fault = check_binding(claims, callback)
    return Reception(signature=fault.message if fault else VERIFIED, content=fault or callback)
