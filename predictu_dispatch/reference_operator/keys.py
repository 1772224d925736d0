"""Reads Predictu's public keys from PEM and JWKS files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

Algorithm = Literal["EdDSA", "RS256"]
PublicKey = Ed25519PublicKey | RSAPublicKey

RSA_BITS_MIN = 2048
"""Source: RFC 7518 section 3.3."""


class KeyFileError(Exception):
    """A key file that cannot be used; the message says which, why and what to provide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The accepted algorithm, and the accepted keys by kid."""

    algorithm: Algorithm
    keys: dict[str, PublicKey]


def read_keyring(algorithm: Algorithm, *, pem_files: Iterable[Path], jwks_files: Iterable[Path]) -> Keyring:
    """Returns all keys of all files; a rotation needs several at once. Raises KeyFileError."""
    keys: dict[str, PublicKey] = {}
    for file in pem_files:
        key = _read_pem(file)
        _check_fit(key, algorithm, file)
        keys[thumbprint(key)] = key
    for file in jwks_files:
        keys |= _read_jwks(file, algorithm)
    if not keys:
        raise KeyFileError("no public key: give --public-key FILE.pem or --jwks FILE")
    return Keyring(algorithm=algorithm, keys=keys)


def thumbprint(key: PublicKey) -> str:
    """Returns the key's kid: its canonical JWK's SHA-256 in base64url (RFC 7638, RFC 8037 A.3)."""
    if isinstance(key, Ed25519PublicKey):
        members = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}
    else:
        numbers = key.public_numbers()
        members = {"e": _base64url_number(numbers.e), "kty": "RSA", "n": _base64url_number(numbers.n)}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _read_pem(file: Path) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except OSError as fault:
        raise KeyFileError(f"{file}: {fault.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{file}: not a public key in PEM; it must begin with -----BEGIN PUBLIC KEY-----") from None
    if not isinstance(key, Ed25519PublicKey | RSAPublicKey):
        raise KeyFileError(f"{file}: a {type(key).__name__}; Predictu signs with Ed25519 or RSA")
    return key


def _read_jwks(file: Path, algorithm: Algorithm) -> dict[str, PublicKey]:
    """Returns the set's keys for the algorithm; during a change of algorithm it has others too."""
    kty = "OKP" if algorithm == "EdDSA" else "RSA"
    try:
        members = [member for member in json.loads(file.read_text(encoding="utf-8"))["keys"] if member["kty"] == kty]
        keys = [(member.get("kid"), jwt.PyJWK.from_dict(member).key) for member in members]
    except OSError as fault:
        raise KeyFileError(f"{file}: {fault.strerror}") from None
    except (jwt.PyJWTError, ValueError, KeyError, TypeError) as fault:
        raise KeyFileError(f'{file}: not a JWKS like {{"keys":[…]}}: {type(fault).__name__} {fault}') from None
    found: dict[str, PublicKey] = {}
    for kid, key in keys:
        if not isinstance(key, Ed25519PublicKey | RSAPublicKey):
            raise KeyFileError(f"{file}: key {kid} is a {type(key).__name__}; it must be a public key, Ed25519 or RSA")
        _check_fit(key, algorithm, file)
        found[kid or thumbprint(key)] = key
    return found


def _check_fit(key: PublicKey, algorithm: Algorithm, file: Path) -> None:
    if isinstance(key, Ed25519PublicKey) != (algorithm == "EdDSA"):
        raise KeyFileError(f"{file}: this key cannot verify {algorithm}; check --algorithm")
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise KeyFileError(f"{file}: an RSA key of {key.key_size} bits; at least {RSA_BITS_MIN} are required")


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _base64url_number(number: int) -> str:
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
