"""An operator's private keys, and the files they are kept in.

The active key is `signing.key_file`; the one that will follow lies beside it as `op.next.pem`, the one that went before
as `op.previous.pem`. All three are published, so that an operator knows a key before it signs, and as long as a token
of it may be under way; how one takes another's place is `edge/config/rotation.py`. Randomness lives here and not in
`core/signing.py`. A key file is never overwritten: an operator that still verifies with the old public key would refuse
every callback from that moment on.
"""

from __future__ import annotations

import os
import stat
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Final, assert_never

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.core.signing import RSA_BITS_MIN, SigningKey
from predictu_dispatch.edge.config.files import read_file, why

_RSA_EXPONENT: Final = 65_537
"""The only exponent in general use. Source: FIPS 186-5, A.1.1."""
_MODE_MAX: Final = 0o640
"""A private key is never made readable for everyone, whatever the key is like beside which it is put."""


class KeyRole(StrEnum):
    """What a key is for at the moment, in the order of publication."""

    ACTIVE = "active"
    STAGED = "staged"
    PREVIOUS = "previous"


_INFIX: Final = {KeyRole.STAGED: ".next", KeyRole.PREVIOUS: ".previous"}
_INFIXES: Final = tuple(_INFIX.values())


def key_file_of(active_file: Path, role: KeyRole) -> Path:
    """Where the key of this role lies, or would lie, beside the active one's file."""
    # Not Path.with_name, which raises where there is no name; what is no key file shows when it is read.
    return active_file.parent / f"{active_file.stem}{_INFIX.get(role, '')}{active_file.suffix}"


def read_keys(
    active_file: Path, algorithm: SigningAlgorithm
) -> tuple[dict[KeyRole, SigningKey], dict[KeyRole, OSError | ValueError]]:
    """The keys that are there, in the order of publication, and what is wrong with the others.

    A missing active key is wrong, a missing staged or previous one is not.
    """
    found: dict[KeyRole, SigningKey] = {}
    wrong: dict[KeyRole, OSError | ValueError] = {}
    # In this order a reader misses no key of an `activate` at the same moment: each goes only to a place that is
    # looked at later.
    for role in (KeyRole.STAGED, KeyRole.ACTIVE, KeyRole.PREVIOUS):
        try:
            found[role] = SigningKey.from_pem(read_file(key_file_of(active_file, role)), algorithm)
        except FileNotFoundError as error:
            if role is KeyRole.ACTIVE:
                wrong[role] = error
        except (OSError, ValueError) as error:
            wrong[role] = error
    return {role: found[role] for role in KeyRole if role in found}, wrong


def published_keys(
    active_file: Path, algorithm: SigningAlgorithm, *, operator_id: str
) -> tuple[tuple[SigningKey, ...], tuple[str, ...]]:
    """Every key an operator has to know, the active one first and each once; and all that is wrong, in words."""
    # Without this, one operator's active key would be another one's staged key, and an `activate` would take it away.
    if active_file.stem.endswith(_INFIXES) or active_file.suffix in _INFIXES:
        return (), ("must be called otherwise; so are the staged and the previous key beside an active one",)
    keys, wrong = read_keys(active_file, algorithm)
    match wrong.get(KeyRole.ACTIVE):
        # What keeps the active key from being read, as a closed folder, is one thing to put right and not three.
        case FileNotFoundError() as error:
            return (), (f"{why(error)}; to make one: predictu-dispatch keys new {operator_id}",)
        case OSError() as error:
            return (), (f"{why(error)}; must be a PKCS#8 PEM file",)
    words = []
    for role, fault in wrong.items():
        beside = "" if role is KeyRole.ACTIVE else f"the {role} key beside it, {key_file_of(active_file, role).name}: "
        words.append(f"{beside}{why(fault) if isinstance(fault, OSError) else fault}")
    return tuple({key.kid: key for key in keys.values()}.values()), tuple(words)


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


def create_key_file(path: Path, algorithm: SigningAlgorithm, *, readable_as: Path | None = None) -> SigningKey:
    """A fresh key, whole and safely on disk at `path`, readable by its owner only, or by who may read `readable_as`.

    Raises FileExistsError if anything is there already, and then changes nothing; another OSError if it cannot be
    written, and then leaves no half a key behind. A missing folder is made for its owner only.
    """
    pem = new_private_pem(algorithm)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written under a name that nobody reads, because a daemon may load the folder's keys at any moment. Killed here, we
    # leave a hidden file that nothing uses.
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if readable_as is not None:
                like = readable_as.stat()
                os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(like.st_mode) & _MODE_MAX)
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
        # A link, and no renaming: it takes nobody's place, not even a dangling symbolic link's.
        os.link(unfinished, path)
    finally:
        Path(unfinished).unlink()
    sync_folder(path.parent)
    return SigningKey.from_pem(pem, algorithm)


def sync_folder(folder: Path) -> None:
    """The folder's entries survive a loss of power, as the files' bytes already do."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
