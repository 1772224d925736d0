"""Reads and creates the private keys of an operator.

The active key is in `signing.key_file`. Beside it are the staged key, `op.next.pem`, and the
previous one, `op.previous.pem`. All three are published: an operator must know a key before it
signs, and until its last tokens have expired. `edge/config/rotation.py` replaces them. A key file
is never overwritten: an operator with the old public key would refuse every callback.
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
from predictu_dispatch.core.signing import RSA_BITS_MIN, RSA_EXPONENT_MIN, SigningKey
from predictu_dispatch.edge.config.files import read_file, system_message

_MODE_MAX: Final = 0o640
"""A private key is never readable for everyone, even if the key beside it is."""
_READINGS_MAX: Final = 10
"""A rotation changes the files twice, so the fourth reading equals the third."""


class KeyRole(StrEnum):
    """The role of a key, in the order of publication."""

    ACTIVE = "active"
    STAGED = "staged"
    PREVIOUS = "previous"


_INFIX: Final = {KeyRole.STAGED: ".next", KeyRole.PREVIOUS: ".previous"}
_INFIXES: Final = tuple(_INFIX.values())


def key_file_of(active_file: Path, role: KeyRole) -> Path:
    """Returns the path of the key with this role, whether the file exists or not."""
    # Path.with_name raises for an empty name; reading the file reports that better.
    return active_file.parent / f"{active_file.stem}{_INFIX.get(role, '')}{active_file.suffix}"


def read_keys(
    active_file: Path, algorithm: SigningAlgorithm
) -> tuple[dict[KeyRole, SigningKey], dict[KeyRole, OSError | ValueError]]:
    """Returns the keys as published, and the errors; a missing key is one only if it is active."""
    found: dict[KeyRole, SigningKey] = {}
    wrong: dict[KeyRole, OSError | ValueError] = {}
    for role, content in _read_files(active_file).items():
        if isinstance(content, FileNotFoundError) and role is not KeyRole.ACTIVE:
            continue
        try:
            if not isinstance(content, bytes):
                raise content
            found[role] = SigningKey.from_pem(content, algorithm)
        except (OSError, ValueError) as error:
            wrong[role] = error
    return found, wrong


def _read_files(active_file: Path) -> dict[KeyRole, bytes | OSError]:
    """Returns the content of the key files, as they were at one moment.

    A rotation moves keys between files, so one reading could miss one: it reads until two readings
    are equal.
    """
    contents: dict[KeyRole, bytes | OSError] = {}
    for _ in range(_READINGS_MAX):
        before, contents = contents, {role: _content(key_file_of(active_file, role)) for role in KeyRole}
        if _comparable(contents) == _comparable(before):
            break
    return contents


def _content(path: Path) -> bytes | OSError:
    try:
        return read_file(path)
    except OSError as error:
        return error


def _comparable(contents: dict[KeyRole, bytes | OSError]) -> dict[KeyRole, object]:
    return {role: content if isinstance(content, bytes) else repr(content) for role, content in contents.items()}


def published_keys(
    active_file: Path, algorithm: SigningAlgorithm, *, operator_id: str
) -> tuple[tuple[SigningKey, ...], tuple[str, ...]]:
    """Returns the keys to publish, the active one first and each once, and the error messages."""
    # Otherwise one operator's active key could be another's staged key, which `activate` moves.
    if active_file.stem.endswith(_INFIXES) or active_file.suffix in _INFIXES:
        return (), ("must not end in .next or .previous: these name the staged and the previous key",)
    keys, wrong = read_keys(active_file, algorithm)
    match wrong.get(KeyRole.ACTIVE):
        # An unreadable folder is reported once, not for all three keys.
        case FileNotFoundError() as error:
            return (), (f"{system_message(error)}; to create one: predictu-dispatch keys new {operator_id}",)
        case OSError() as error:
            return (), (f"{system_message(error)}; must be a PKCS#8 PEM file",)
    messages = []
    for role, fault in wrong.items():
        beside = "" if role is KeyRole.ACTIVE else f"the {role} key beside it, {key_file_of(active_file, role).name}: "
        messages.append(f"{beside}{system_message(fault) if isinstance(fault, OSError) else fault}")
    return tuple({key.kid: key for key in keys.values()}.values()), tuple(messages)


def new_private_pem(algorithm: SigningAlgorithm) -> bytes:
    """Returns a new private key as unencrypted PKCS#8 PEM."""
    if algorithm == "EdDSA":
        private_key: Ed25519PrivateKey | rsa.RSAPrivateKey = Ed25519PrivateKey.generate()
    elif algorithm == "RS256":
        private_key = rsa.generate_private_key(public_exponent=RSA_EXPONENT_MIN, key_size=RSA_BITS_MIN)
    else:
        assert_never(algorithm)
    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def create_key_file(path: Path, algorithm: SigningAlgorithm, *, readable_as: Path | None = None) -> SigningKey:
    """Creates a key, synced to disk at `path`, readable by its owner only, or as `readable_as` is.

    Raises FileExistsError if the path exists, another OSError if the key cannot be written; neither
    leaves a partial file. A missing folder is created for its owner only.
    """
    pem = new_private_pem(algorithm)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A daemon may load the folder's keys at any time; nothing reads a hidden file.
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
        # Unlike a rename, a link replaces nothing, not even a dangling symbolic link.
        os.link(unfinished, path)
    finally:
        Path(unfinished).unlink()
    sync(path.parent)
    return SigningKey.from_pem(pem, algorithm)


def sync(path: Path) -> None:
    """Makes a file's bytes or a folder's entries survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
