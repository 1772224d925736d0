"""Who sent a callback: the JWT in the Authorization header, and its binding to the very bytes of the body.

A jti that was seen before is *not* refused here: a retry of a callback may carry the same one, and its first attempt
may have been applied although its answer was lost. Idempotency by request_id makes a replayed message harmless.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import jwt

from .answer import Answer, Status, shown
from .callback import Callback
from .keys import Algorithm, Keyring, PublicKey

ISSUER = "predictu"

LEEWAY_S = 5
"""How far the two clocks may differ. Tokens live 30 s; hosts kept by NTP differ by much less than a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a verified token says beyond what was checked already."""

    method: object
    jti: str


class _UnauthorizedError(Exception):
    """Carries the message of an UNAUTHORIZED out of the checking functions; never leaves this module."""


def verify_token(authorization: list[str], body: bytes, *, keyring: Keyring, operator_id: str) -> Claims | Answer:
    """The claims of a token that Predictu signed for this operator and these bytes, or the 401 that says why not.

    `authorization` are the values of all Authorization headers. Source: PROTOCOL.md, Signature; RFC 8725.
    """
    try:
        token = _bearer(authorization)
        claims = _verified_claims(token, _signing_key(token, keyring), keyring.algorithm, operator_id)
    except _UnauthorizedError as fault:
        return _unauthorized(str(fault))
    if claims["digest"] != hashlib.sha256(body).hexdigest():
        return _unauthorized("token claims: digest is not the SHA-256 of the body that arrived")
    return Claims(method=claims["method"], jti=str(claims["jti"]))


def _bearer(authorization: list[str]) -> str:
    if len(authorization) != 1:
        raise _UnauthorizedError(f"Authorization: {len(authorization)} headers, expected one: Bearer <JWT>")
    scheme, _, token = authorization[0].partition(" ")
    if scheme.lower() != "bearer":
        raise _UnauthorizedError("Authorization: not of the form Bearer <JWT>")
    return token


def _signing_key(token: str, keyring: Keyring) -> PublicKey:
    """The key that the token's header names. Its `alg` chooses nothing: it is compared with what was agreed on."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError) as fault:
        # ValueError: a header may hold bytes that are no text at all.
        raise _UnauthorizedError(f"token header: {fault}") from None
    if header.get("alg") != keyring.algorithm:
        raise _UnauthorizedError(f"token header: alg {shown(header.get('alg'))}, agreed on is {keyring.algorithm}")
    if header.get("typ") != "JWT":
        raise _UnauthorizedError(f"token header: typ {shown(header.get('typ'))}, expected JWT")
    kid = header.get("kid")
    if not isinstance(kid, str) or kid not in keyring.keys:
        raise _UnauthorizedError(f"token header: kid {shown(kid)} is not known; known are {', '.join(keyring.keys)}")
    return keyring.keys[kid]


def _verified_claims(token: str, key: PublicKey, algorithm: Algorithm, operator_id: str) -> dict[str, object]:
    try:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=ISSUER,
            subject=operator_id,
            leeway=LEEWAY_S,
            options={"require": ["iss", "sub", "iat", "exp", "jti", "method", "digest"]},
        )
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError) as fault:
        raise _UnauthorizedError(f"token claims: {fault}; the clock here says {int(time.time())}") from None
    except jwt.InvalidTokenError as fault:
        raise _UnauthorizedError(f"token: {fault}") from None


def check_binding(claims: Claims, callback: Callback) -> Answer | None:
    """A 401 where token and body name different callbacks, otherwise None."""
    if claims.method != callback.method:
        return _unauthorized(f"token claims: method {shown(claims.method)}, the body says {callback.method}")
    if claims.jti != callback.request_id and not claims.jti.startswith(f"{callback.request_id}:"):
        return _unauthorized(f"token claims: jti {shown(claims.jti)} does not name request_id {callback.request_id}")
    return None


def _unauthorized(message: str) -> Answer:
    return Answer(http_status=401, status=Status.UNAUTHORIZED, message=message)
