"""The sender's signature on a request: a JWT (RFC 7519) with the digest of the body."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from .canonical import as_object, parse_json

TOKEN_BYTES_MAX: Final = 16_384
_RSA_BITS_MIN, _RSA_BITS_MAX = 2048, 8192
_TEXTS: Final = ("iss", "sub", "jti", "method", "digest")
_TIME_MAX: Final = 253_402_300_799
"""The last second of the year 9999."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key of the sender, from its JWK (RFC 7517)."""

    algorithm: str
    kid: str
    members: dict[str, str]

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raises ValueError unless this key made the signature."""
        try:
            if self.algorithm == "EdDSA":
                VerifyKey(_base64url(self.members["x"])).verify(message, signature)
            else:
                numbers = RSAPublicNumbers(_integer(self.members["e"]), _integer(self.members["n"]))
                numbers.public_key().verify(signature, message, PKCS1v15(), SHA256())
        except (BadSignatureError, InvalidSignature, ValueError):
            raise ValueError("the token's signature is not of this key") from None


@dataclass(frozen=True, slots=True)
class Token:
    """A token whose signature was verified."""

    kid: str
    claims: dict[str, object]
    iat: int
    exp: int


def parse_jwk(content: bytes) -> PublicKey:
    """Read a JWK and compute its thumbprint (RFC 7638). Raises ValueError."""
    jwk = as_object(parse_json(content), "the JWK")
    algorithm, names = {"OKP": ("EdDSA", ("crv", "kty", "x")), "RSA": ("RS256", ("e", "kty", "n"))}.get(
        str(jwk.get("kty")), ("", ())
    )
    if jwk.get("alg") != algorithm or not all(isinstance(jwk.get(name), str) for name in names):
        raise ValueError("the JWK is neither an Ed25519 key with EdDSA nor an RSA key with RS256")
    members = {name: str(jwk[name]) for name in names}
    if algorithm == "EdDSA" and (members["crv"] != "Ed25519" or len(_base64url(members["x"])) != 32):  # noqa: PLR2004
        raise ValueError("the JWK is no Ed25519 key")
    if algorithm == "RS256" and not _RSA_BITS_MIN <= _integer(members["n"]).bit_length() <= _RSA_BITS_MAX:
        raise ValueError(f"the JWK's RSA key does not have {_RSA_BITS_MIN} to {_RSA_BITS_MAX} bits")
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    thumbprint = base64.urlsafe_b64encode(sha256(canonical.encode()).digest()).decode().rstrip("=")
    if jwk.get("kid") != thumbprint:
        raise ValueError(f"the JWK's kid is not its thumbprint {thumbprint} (RFC 7638)")
    return PublicKey(algorithm, thumbprint, members)


def kid_of(content: bytes) -> str:
    """The kid of a token, which nothing proves yet."""
    return str(_header(content).get("kid"))


def open_token(content: bytes, key: PublicKey) -> Token:
    """Verify a token with this key, and the form of its claims. Raises ValueError."""
    header = _header(content)
    if header != {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}:
        raise ValueError(f"the token's header does not name the key {key.kid} and its algorithm {key.algorithm}")
    signed, _, signature = content.rpartition(b".")
    key.verify(signed, _base64url(signature.decode()))
    claims = as_object(parse_json(_base64url(signed.partition(b".")[2].decode())), "the token's payload")
    if any(not isinstance(claims.get(name), str) for name in _TEXTS):
        raise ValueError(f"the token lacks one of the claims {', '.join(_TEXTS)}")
    return Token(key.kid, claims, _time(claims, "iat"), _time(claims, "exp"))


def _time(claims: dict[str, object], name: str) -> int:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _TIME_MAX:
        raise ValueError(f"the token's {name} is no time")
    return value


def _header(content: bytes) -> dict[str, object]:
    if len(content) > TOKEN_BYTES_MAX or not re.fullmatch(rb"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", content):
        raise ValueError("the token is not three parts of base64url")
    return as_object(parse_json(_base64url(content.partition(b".")[0].decode())), "the token's header")


def _base64url(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("malformed base64url") from None
    if base64.urlsafe_b64encode(raw).decode().rstrip("=") != text:
        raise ValueError("malformed base64url")
    return raw


def _integer(text: str) -> int:
    return int.from_bytes(_base64url(text), "big")
