"""Signs a callback: a JWT with a digest of the body (PROTOCOL.md, "Signature").

PyNaCl signs Ed25519, cryptography signs RS256. The token is built here because a JWT library takes
as long again as the signature; the tests verify it with two of them.
"""

from __future__ import annotations

import hashlib
import json
from binascii import b2a_base64
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
"""RFC 7518 section 3.3."""
RSA_EXPONENT_MIN: Final = 65_537
"""FIPS 186-5, A.1.1: odd and above 2^16."""
PUBLISHED_KEYS_AGE_MAX_S: Final = 60
"""How long caches may keep /keys/<operator_id>.json; a staged key waits this long to sign."""
_ED25519_BYTES: Final = 32
_PKCS8_BEGIN: Final = b"-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key and its algorithm. Keys are equal if their public halves are."""

    algorithm: SigningAlgorithm
    kid: str
    private_key: nacl.signing.SigningKey | RSAPrivateKey = field(repr=False, compare=False)
    header: str = field(repr=False, compare=False)
    """The first part of every token of this key."""
    secret: bytes = field(repr=False, compare=False, default=b"")
    """Ed25519: the seed followed by the public half. RSA: empty."""

    @property
    def ed25519_seed(self) -> bytes:
        """The private key as RFC 8032 defines it; empty for RSA."""
        return self.secret[:_ED25519_BYTES]

    @property
    def ed25519_public_key(self) -> bytes:
        return self.secret[_ED25519_BYTES:]

    @classmethod
    def from_pem(cls, pem: bytes, algorithm: SigningAlgorithm) -> SigningKey:
        """Read an unencrypted PKCS#8 PEM. Raises ValueError with a message that says what to do."""
        private_key = _loaded(pem)
        if algorithm == "EdDSA" and isinstance(private_key, Ed25519PrivateKey):
            key: nacl.signing.SigningKey | RSAPrivateKey = nacl.signing.SigningKey(private_key.private_bytes_raw())
        elif algorithm == "RS256" and isinstance(private_key, RSAPrivateKey) and private_key.key_size >= RSA_BITS_MIN:
            exponent = private_key.public_key().public_numbers().e
            if exponent < RSA_EXPONENT_MIN or exponent % 2 == 0:
                raise ValueError(
                    f"the RSA key's public exponent is {exponent}; it must be odd and {RSA_EXPONENT_MIN} or more;"
                    " make a new key"
                )
            key = private_key
        else:
            needed = {"EdDSA": "an Ed25519 key", "RS256": f"an RSA key of {RSA_BITS_MIN} bits or more"}[algorithm]
            raise ValueError(f'signing.algorithm = "{algorithm}" needs {needed}, and this is {_kind_of(private_key)}')
        kid = _thumbprint(_required_members(key))
        header = json.dumps({"alg": algorithm, "kid": kid, "typ": "JWT"}, separators=(",", ":"))
        secret = b"" if isinstance(key, RSAPrivateKey) else bytes(key) + bytes(key.verify_key)
        return cls(algorithm=algorithm, kid=kid, private_key=key, header=base64url(header.encode()), secret=secret)

    def signed(self, unsigned_token: str) -> str:
        """Return the token with its signature (RFC 7515 section 5.1)."""
        return f"{unsigned_token}.{base64url(self.signature(unsigned_token.encode()))}"

    def signature(self, message: bytes) -> bytes:
        """Sign these bytes (RFC 8032; RFC 7518 section 3.3)."""
        if self.secret:
            # What PyNaCl's key does, with fewer objects.
            return crypto_sign(message, self.secret)[:crypto_sign_BYTES]
        assert isinstance(self.private_key, RSAPrivateKey)  # noqa: S101 - an Ed25519 key has its secret
        return self.private_key.sign(message, padding.PKCS1v15(), SHA256())

    def public_pem(self) -> bytes:
        if isinstance(self.private_key, RSAPrivateKey):
            public_key: Any = self.private_key.public_key()
        else:
            public_key = Ed25519PublicKey.from_public_bytes(bytes(self.private_key.verify_key))
        pem: bytes = public_key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    def public_jwk(self) -> dict[str, str]:
        return {**_required_members(self.private_key), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


def unsigned_token(
    key: SigningKey,
    *,
    operator_id: str,
    method: str,
    jti: str,
    body: bytes,
    issued_at_s: int,
    ttl_s: int,
    audience: str = "",
) -> str:
    """Return an attempt's header and claims, valid from `issued_at_s` (Unix time) for `ttl_s`.

    An audience of "" is no claim. No value has a character that JSON escapes: see the settings.
    """
    aud = f',"aud":"{audience}"' if audience else ""
    claims = (
        f'{{"iss":"{ISSUER}","sub":"{operator_id}","iat":{issued_at_s},"exp":{issued_at_s + ttl_s},"jti":"{jti}",'
        f'"method":"{method}","digest":"{hashlib.sha256(body).hexdigest()}"{aud}}}'
    )
    return f"{key.header}.{base64url(claims.encode())}"


def jti_of(setting: JtiSource, request_id: str, attempt: int) -> str:
    """Return the token's id: the request's, or one per attempt if the operator wants that."""
    return request_id if setting == "request_id" else f"{request_id}:{attempt}"


def _loaded(pem: bytes) -> object:
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem:
        raise ValueError("the key is encrypted and the daemon has no password; store it unencrypted, mode 0600")
    if b"-----BEGIN PUBLIC KEY-----" in pem:
        raise ValueError("this is a public key; signing needs the private key")
    if _PKCS8_BEGIN not in pem:
        raise ValueError(
            "not a PKCS#8 PEM (BEGIN PRIVATE KEY); to convert another: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW"
        )
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's message names ASN.1 tags and might quote the key.
        raise ValueError("a damaged PKCS#8 PEM, or a kind of key that is not supported") from None


def _kind_of(private_key: object) -> str:
    if isinstance(private_key, RSAPrivateKey):
        return f"an RSA key of {private_key.key_size} bits"
    if isinstance(private_key, Ed25519PrivateKey):
        return "an Ed25519 key"
    return "neither an RSA nor an Ed25519 key"


def _required_members(private_key: nacl.signing.SigningKey | RSAPrivateKey) -> dict[str, str]:
    """Return the JWK's members of a thumbprint (RFC 7638 section 3.2, RFC 8037 section 2)."""
    if isinstance(private_key, RSAPrivateKey):
        jwk = RSAAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
        return {"kty": "RSA", "n": jwk["n"], "e": jwk["e"]}
    return {"kty": "OKP", "crv": "Ed25519", "x": base64url(bytes(private_key.verify_key))}


def _thumbprint(members: dict[str, str]) -> str:
    """Return the key's id, the same wherever it is computed (RFC 7638)."""
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return base64url(hashlib.sha256(canonical.encode()).digest())


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def base64url(octets: bytes) -> str:
    """Encode without padding (RFC 7515 section 2)."""
    return b2a_base64(octets, newline=False).translate(_URL_SAFE, b"=").decode("ascii")
