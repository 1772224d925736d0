"""New private keys, and the files they are kept in.

Randomness lives here and not in `core/signing.py`. A key file is never overwritten: an operator that still verifies
with the old public key would refuse every callback from that moment on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, assert_never

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.core.signing import RSA_BITS_MIN, SigningKey

_RSA_EXPONENT: Final = 65_537
"""The only exponent in general use. Source: FIPS 186-5, A.1.1."""


def new_private_pem(algorithm: SigningAlgorithm) -> bytes:
    """A fresh private key as unencrypted PKCS#8 PEM."""
    if algorithm == "EdDSA":
        private_key: Ed25519PrivateKey | rsa.RSAPrivateKey = Ed25519PrivateKey.generate()
    elif algorithm == "RS256":
        private_key = rsa.generate_private_key(public_exponent=_RSA_EXPONENT, key_size=RSA_BITS_MIN)
    else:
        assert_never(algorithm)
    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def create_key_file(path: Path, algorithm: SigningAlgorithm) -> SigningKey:
    """A fresh key, safely on disk at `path`, readable by its owner only.

    Raises FileExistsError if anything is there already, and then changes nothing; another OSError if it cannot be
    written, and then leaves no half a key behind. A missing folder is made for its owner only.
    """
    pem = new_private_pem(algorithm)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # O_EXCL follows no symbolic link either, so nobody can choose another place for the key.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise
    _sync_folder(path.parent)
    return SigningKey.from_pem(pem, algorithm)


def _sync_folder(folder: Path) -> None:
    """The folder's entries survive a loss of power, as the file's bytes already do."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
