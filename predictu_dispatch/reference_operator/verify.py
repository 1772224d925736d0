"""Verifies the JWT of a callback, and that it belongs to the body's exact bytes.

A repeated `jti` is not refused: a retry may carry the same one, and the first attempt may have been
applied although its answer was lost. Idempotency by request_id makes replayed messages harmless.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

import jwt

from .answer import Answer, Status, shown
from .callback import Callback, Names, is_text, read_callback
from .keys import Algorithm, Keyring, PublicKey
from .money import Money

ISSUER = "predictu"

TOKEN_TTL_MAX_S = 300
"""The longest accepted lifetime of a token; Predictu's own are valid for 30 s by default."""
LEEWAY_S = 5
"""The allowed difference of the two clocks; with NTP it is less than a second."""
VERIFIED = "verified"
"""What the record says of a good signature; of any other it says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The verified callback or a refusing answer, and the result of the signature check.

    `names` are those of a verified token; nothing that is not verified has a name.
    """

    signature: str
    content: Callback | Answer
    names: Names = field(default_factory=Names)

    @property
    def is_verified(self) -> bool:
        return self.signature == VERIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims of a verified token that are compared with the body."""

    method: object
    jti: str

    @property
    def names(self) -> Names:
        """The callback's names as far as the token has them."""
        request_id = self.jti.partition(":")[0]
        return Names(
            request_id=request_id if is_text(request_id) else None, method=self.method if is_text(self.method) else None
        )


class _UnauthorizedError(Exception):
    """Carries the message of an UNAUTHORIZED answer inside this module."""


def verified_callback(
    authorization: list[str],
    body: bytes,
    *,
    keyring: Keyring,
    operator_id: str,
    money: Money,
    audience: str = "",
    token_ttl_max_s: int = TOKEN_TTL_MAX_S,
) -> Verification:
    """Verifies the token first and parses the body only then; `authorization` has all headers."""
    claims = verify_token(
        authorization,
        body,
        keyring=keyring,
        operator_id=operator_id,
        audience=audience,
        token_ttl_max_s=token_ttl_max_s,
    )
    if isinstance(claims, Answer):
        return Verification(signature=claims.message, content=claims)
    callback = read_callback(body, operator_id=operator_id, money=money)
    if isinstance(callback, Answer):
        return Verification(signature=VERIFIED, content=callback, names=claims.names)
    fault = check_binding(claims, callback)
    if fault is not None:
        return Verification(signature=fault.message, content=fault)
    return Verification(signature=VERIFIED, content=callback, names=callback.names)


def verify_token(
    authorization: list[str],
    body: bytes,
    *,
    keyring: Keyring,
    operator_id: str,
    audience: str = "",
    token_ttl_max_s: int = TOKEN_TTL_MAX_S,
) -> Claims | Answer:
    """Returns the claims of a token for this operator and body, else a 401 (RFC 8725).

    With an audience the token must name it; without one it must not name any.
    """
    try:
        token = _bearer(authorization)
        claims = _verified_claims(token, _signing_key(token, keyring), keyring.algorithm, operator_id, audience)
        _check_lifetime(claims, token_ttl_max_s)
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
    """Returns the key that the token's header names; its `alg` is compared, never used."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError) as fault:
        # ValueError: a header may hold bytes that are not text.
        raise _UnauthorizedError(f"token header: {fault}") from None
    if header.get("alg") != keyring.algorithm:
        raise _UnauthorizedError(f"token header: alg {shown(header.get('alg'))}, expected {keyring.algorithm}")
    if header.get("typ") != "JWT":
        raise _UnauthorizedError(f"token header: typ {shown(header.get('typ'))}, expected JWT")
    kid = header.get("kid")
    if not isinstance(kid, str) or kid not in keyring.keys:
        raise _UnauthorizedError(f"token header: kid {shown(kid)} is unknown; known are {', '.join(keyring.keys)}")
    return keyring.keys[kid]


def _verified_claims(
    token: str, key: PublicKey, algorithm: Algorithm, operator_id: str, audience: str
) -> dict[str, object]:
    required = ["iss", "sub", "iat", "exp", "jti", "method", "digest", *(["aud"] if audience else [])]
    try:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=ISSUER,
            subject=operator_id,
            audience=audience or None,
            leeway=LEEWAY_S,
            options={"require": required},
        )
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError) as fault:
        raise _UnauthorizedError(f"token claims: {fault}; this host's clock says {int(time.time())}") from None
    except jwt.InvalidTokenError as fault:
        raise _UnauthorizedError(f"token: {fault}") from None


def _check_lifetime(claims: dict[str, object], ttl_max_s: int) -> None:
    """Refuses a token that would be valid for a long time after it was copied from a log."""
    iat, exp = claims["iat"], claims["exp"]
    if not (isinstance(iat, int) and isinstance(exp, int) and exp - iat <= ttl_max_s):
        raise _UnauthorizedError(
            f"token claims: iat {shown(iat)}, exp {shown(exp)}: a token may be valid for {ttl_max_s} s at most"
        )


def check_binding(claims: Claims, callback: Callback) -> Answer | None:
    """Returns a 401 if token and body name different callbacks, else None."""
    if claims.method != callback.method:
        return _unauthorized(f"token claims: method {shown(claims.method)}, the body has {callback.method}")
    if claims.jti != callback.request_id and not claims.jti.startswith(f"{callback.request_id}:"):
        return _unauthorized(f"token claims: jti {shown(claims.jti)} does not name request_id {callback.request_id}")
    return None


def _unauthorized(message: str) -> Answer:
    return Answer(http_status=401, status=Status.UNAUTHORIZED, message=message)
