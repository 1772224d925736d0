"""Makes the token of a request: a good one as production does, or one with a fault."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.steps import TokenFault
from predictu_dispatch.certification.target import Target
from predictu_dispatch.core import ledger_request
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.core.signing import SigningKey, base64url, jti_of, unsigned_token
from predictu_dispatch.edge.config.keys import new_private_pem

SHIFT_S: Final = 600
"""How long an expired token is over, and in how long one from the future begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token and what is in it; all empty for a request without one."""

    header: Mapping[str, object]
    claims: Mapping[str, object]
    compact: str

    @property
    def signature(self) -> str:
        return self.compact.rpartition(".")[2]


def token_of(prepared: Prepared, target: Target, *, run: str, now_s: int) -> Token:
    """Return the token of this sending, made at the Unix time `now_s`."""
    fault = prepared.token
    if fault is TokenFault.MISSING:
        return Token(header={}, claims={}, compact="")
    key, settings = _key_of(fault, target, run), target.settings
    unsigned = unsigned_token(
        key,
        operator_id=f"{settings.operator_id}-other" if fault is TokenFault.OTHER_SUB else settings.operator_id,
        method=_other_method(prepared.method) if fault is TokenFault.OTHER_METHOD else prepared.method,
        jti=_jti(prepared, target),
        body=prepared.token_body if fault is TokenFault.OTHER_BODY else prepared.body,
        issued_at_s=_issued_at_s(fault, now_s, settings.signing.token_ttl_s),
        ttl_s=settings.signing.token_ttl_s,
        audience=settings.signing.audience,
    )
    match fault:
        case TokenFault.ALG_NONE:
            compact = f"{unsigned}."
        case TokenFault.HS256_PUBLIC_KEY:
            mac = hmac.new(target.key.public_pem(), unsigned.encode(), hashlib.sha256).digest()
            compact = f"{unsigned}.{base64url(mac)}"
        case _:
            compact = key.signed(unsigned)
    return _read(compact)


def ledger_token(target: Target, *, jti: str, now_s: int) -> Token:
    """Return the token of a GET of the ledger."""
    return _read(ledger_request.ledger_token(target.key, target.settings, jti=jti, now_s=now_s))


@cache
def stranger_of(_run: str, algorithm: SigningAlgorithm) -> SigningKey:
    """Return a key that the operator does not know: one of each run and process."""
    return SigningKey.from_pem(new_private_pem(algorithm), algorithm)


def _key_of(fault: TokenFault, target: Target, run: str) -> SigningKey:
    """Return the key, whose header is the token's."""
    match fault:
        case TokenFault.NEXT_KEY:
            if target.next_key is None:
                raise ValueError("there is no next key beside the sandbox's key")
            return target.next_key
        case TokenFault.UNKNOWN_KID:
            stranger = stranger_of(run, target.key.algorithm)
            return replace(stranger, header=_header(target.key.algorithm, stranger.kid, jwk=stranger.public_jwk()))
        case TokenFault.WRONG_KEY:
            return replace(stranger_of(run, target.key.algorithm), header=target.key.header)
        case TokenFault.ALG_NONE:
            return replace(target.key, header=_header("none", target.key.kid))
        case TokenFault.HS256_PUBLIC_KEY:
            return replace(target.key, header=_header("HS256", target.key.kid))
        case _:
            return target.key


def _header(algorithm: str, kid: str, **further: object) -> str:
    header = {"alg": algorithm, "kid": kid, "typ": "JWT", **further}
    return base64url(json.dumps(header, separators=(",", ":")).encode())


def _other_method(method: Method) -> Method:
    """Return a method that moves no money."""
    return Method.PING if method is Method.BALANCE else Method.BALANCE


def _jti(prepared: Prepared, target: Target) -> str:
    number, request_id = prepared.number, prepared.request_id
    if prepared.token is TokenFault.USED_JTI:
        number = max(1, number - 1)
    elif prepared.token is TokenFault.OTHER_REQUEST_ID:
        # The first digit is changed: a valid id of the same version.
        request_id = f"{(int(request_id[0], 16) + 1) % 16:x}{request_id[1:]}"
    return jti_of(target.settings.signing.jti, request_id, number)


def _issued_at_s(fault: TokenFault, now_s: int, ttl_s: int) -> int:
    if fault is TokenFault.EXPIRED:
        return now_s - SHIFT_S - ttl_s
    return now_s + SHIFT_S if fault is TokenFault.FROM_THE_FUTURE else now_s


def _read(compact: str) -> Token:
    header, claims = (_part(part) for part in compact.split(".")[:2])
    return Token(header=header, claims=claims, compact=compact)


def _part(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found
