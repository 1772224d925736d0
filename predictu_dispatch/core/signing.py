"""A callback's token: a JWT over the very bytes that are sent.

Header and claims are PROTOCOL.md's, "Signature". Nothing here knows the time or draws a random
number: the caller says when a token is issued, `edge/config/keys.py` makes key pairs. Ed25519 is
signed by PyNaCl, RS256 by cryptography. The token itself, three base64url texts with a dot between
them, is written here, because every attempt needs one and a general writer of JWTs takes as long as
the signature; the tests hold it to what two JWT libraries read.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any, Final

import nacl.signing
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import RSAAlgorithm
from nacl.bindings import crypto_sign, crypto_sign_BYTES

from predictu_dispatch.core.operator_settings import JtiSource, SigningAlgorithm

ISSUER: Final = "predictu"
RSA_BITS_MIN: Final = 2048
"""Source: PROTOCOL.md, Signature; RFC 7518 section 3.3."""
PUBLISHED_KEYS_AGE_MAX_S: Final = 60
"""For so long may an operator's caches keep /keys/<operator_id>.json; so long a staged key waits
before it signs."""

_PKCS8_BEGIN: Final = b"-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One private key and the algorithm it signs with. Equal where the public keys are.

    Hides the private one.
    """

    algorithm: SigningAlgorithm
    kid: str
    private_key: nacl.signing.SigningKey | RSAPrivateKey = field(repr=False, compare=False)
    head: str = field(repr=False, compare=False)
    """The token's first part, the same in all of this key's tokens."""
    secret: bytes = field(repr=False, compare=False, default=b"")
    """Of Ed25519: the seed, and the public half behind it; of RSA nothing."""

    @classmethod
    def from_pem(cls, pem: bytes, algorithm: SigningAlgorithm) -> SigningKey:
        """The key of an unencrypted PKCS#8 PEM.

        Raises ValueError, in words to act on, if it doesn't fit.
        """
        private_key = _loaded(pem)
        if algorithm == "EdDSA" and isinstance(private_key, Ed25519PrivateKey):
            ours: nacl.signing.SigningKey | RSAPrivateKey = nacl.signing.SigningKey(private_key.private_bytes_raw())
        elif algorithm == "RS256" and isinstance(private_key, RSAPrivateKey) and private_key.key_size >= RSA_BITS_MIN:
            ours = private_key
        else:
            needed = {"EdDSA": "an Ed25519 key", "RS256": f"an RSA key of {RSA_BITS_MIN} bits or more"}[algorithm]
            raise ValueError(f'signing.algorithm = "{algorithm}" needs {needed}, and this is {_kind_of(private_key)}')
        kid = _thumbprint(_required_members(ours))
        head = json.dumps({"alg": algorithm, "kid": kid, "typ": "JWT"}, separators=(",", ":"))
        secret = b"" if isinstance(ours, RSAPrivateKey) else bytes(ours) + bytes(ours.verify_key)
        return cls(algorithm=algorithm, kid=kid, private_key=ours, head=_base64url(head.encode()), secret=secret)

    def signature(self, message: bytes) -> bytes:
        """Over exactly these bytes. Sources: RFC 8032; RFC 7518 section 3.3."""
        if self.secret:
            # As PyNaCl's own key does, with fewer objects made on the way.
            return crypto_sign(message, self.secret)[:crypto_sign_BYTES]
        assert isinstance(self.private_key, RSAPrivateKey)  # noqa: S101 - an Ed25519 key has its secret
        return self.private_key.sign(message, padding.PKCS1v15(), SHA256())

    def public_pem(self) -> bytes:
        """The public half as SubjectPublicKeyInfo PEM."""
        if isinstance(self.private_key, RSAPrivateKey):
            public_key: Any = self.private_key.public_key()
        else:
            public_key = Ed25519PublicKey.from_public_bytes(bytes(self.private_key.verify_key))
        pem: bytes = public_key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    def public_jwk(self) -> dict[str, str]:
        """The public half as an operator's JWKS holds it."""
        return {**_required_members(self.private_key), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


def sign(key: SigningKey, *, operator_id: str, method: str, jti: str, body: bytes, issued_at_s: int, ttl_s: int) -> str:
    """The token of one attempt over these very body bytes, valid from `issued_at_s` (Unix seconds) for `ttl_s`.

    None of the texts has a character that JSON escapes: operator_id is made of letters, digits, `_` and `-`.
    """
    claims = (
        f'{{"iss":"{ISSUER}","sub":"{operator_id}","iat":{issued_at_s},"exp":{issued_at_s + ttl_s},"jti":"{jti}",'
        f'"method":"{method}","digest":"{hashlib.sha256(body).hexdigest()}"}}'
    )
    signed = f"{key.head}.{_base64url(claims.encode())}"
    return f"{signed}.{_base64url(key.signature(signed.encode()))}"


def jti_of(setting: JtiSource, request_id: str, attempt: int) -> str:
    """The token's id: the request's own, or one for each attempt where the operator refuses a jti it has seen."""
    return request_id if setting == "request_id" else f"{request_id}:{attempt}"


def _loaded(pem: bytes) -> object:
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem:
        raise ValueError(
            "the key is encrypted, and nobody is there to type a password; store it unencrypted, mode 0600"
        )
    if b"-----BEGIN PUBLIC KEY-----" in pem:
        raise ValueError("this is a public key; signing needs the private one")
    if _PKCS8_BEGIN not in pem:
        raise ValueError(
            "not a PKCS#8 PEM (BEGIN PRIVATE KEY); to convert another: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW"
        )
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's own words name ASN.1 tags, which help nobody, and might quote the key.
        raise ValueError("a damaged PKCS#8 PEM, or a kind of key that is not supported") from None


def _kind_of(private_key: object) -> str:
    if isinstance(private_key, RSAPrivateKey):
        return f"an RSA key of {private_key.key_size} bits"
    if isinstance(private_key, Ed25519PrivateKey):
        return "an Ed25519 key"
    return "neither an RSA nor an Ed25519 key"


def _required_members(private_key: nacl.signing.SigningKey | RSAPrivateKey) -> dict[str, str]:
    """The members of the public JWK that a thumbprint covers.

    Source: RFC 7638 section 3.2, RFC 8037 section 2.
    """
    if isinstance(private_key, RSAPrivateKey):
        jwk = RSAAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
        return {"kty": "RSA", "n": jwk["n"], "e": jwk["e"]}
    return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(bytes(private_key.verify_key))}


def _thumbprint(members: dict[str, str]) -> str:
    """The key's name, the same wherever it is computed. Source: RFC 7638."""
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _base64url(octets: bytes) -> str:
    """Without padding. Source: RFC 7515 section 2."""
    return urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
