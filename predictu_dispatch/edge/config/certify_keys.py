"""Reads the keys that only `certify` uses: those of a sandbox, and the one that signs certificates.

No daemon opens these files. A sandbox has an active key and, beside it, the staged one of a
rotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.core.settings import CertifySettings, shown
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.files import ConfigError, Fault, located, system_message
from predictu_dispatch.edge.config.keys import KeyRole, key_file_of, read_keys
from predictu_dispatch.edge.config.operator_file import OperatorConfig
from predictu_dispatch.edge.config.secrecy import exposures

_CERTIFY_KEY: Final = "certify.key_file"
_SANDBOX_KEY: Final = "sandbox.key_file"
_NEW_CERTIFY: Final = "predictu-dispatch keys new --certify"
_ALGORITHMS: Final[tuple[SigningAlgorithm, ...]] = ("EdDSA", "RS256")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxKeys:
    """The keys with which a sandbox is tested."""

    active: SigningKey
    staged: SigningKey | None = None
    file: Path = field(compare=False)

    @property
    def all(self) -> tuple[SigningKey, ...]:
        return (self.active,) if self.staged is None else (self.active, self.staged)


def read_sandbox_keys(operator: OperatorConfig, environ: Mapping[str, str]) -> SandboxKeys:
    """Return the keys of `[sandbox] key_file`; raises ConfigError with all faults."""
    settings = operator.settings
    name, operator_id = settings.sandbox.key_file, settings.operator_id
    file = located(name, operator.file, environ)
    keys, wrong = read_keys(file, settings.signing.algorithm)
    new = f"predictu-dispatch keys new {operator_id} --sandbox"
    messages = [_message(role, wrong[role], file, new) for role in _used(wrong)]
    messages += exposures([key_file_of(file, role) for role in (KeyRole.ACTIVE, KeyRole.STAGED)], environ)
    if messages:
        raise ConfigError(_faults(operator.file, _SANDBOX_KEY, name, messages))
    return SandboxKeys(active=keys[KeyRole.ACTIVE], staged=keys.get(KeyRole.STAGED), file=file)


def read_given_keys(file: Path, algorithm: SigningAlgorithm | None) -> SandboxKeys:
    """Return the keys of `--key FILE`; without `algorithm`, it is that of the file's key.

    Raises ConfigError. Whether others can read the file does not count: it may be part of a checked
    out repository.
    """
    messages: list[str] = []
    for one in _ALGORITHMS if algorithm is None else (algorithm,):
        keys, wrong = read_keys(file, one)
        messages = [_message(role, wrong[role], file, "openssl genpkey -algorithm ed25519") for role in _used(wrong)]
        if not messages:
            return SandboxKeys(active=keys[KeyRole.ACTIVE], staged=keys.get(KeyRole.STAGED), file=file)
    raise ConfigError(tuple(Fault(file=str(file), key="--key", allowed=message) for message in messages))


def read_certify_key(settings: CertifySettings, path: Path, environ: Mapping[str, str]) -> SigningKey | None:
    """Return the key that signs certificates, or None if none is set; raises ConfigError.

    `path` is dispatcher.toml.
    """
    if not settings.key_file:
        return None
    file = located(settings.key_file, path, environ)
    keys, wrong = read_keys(file, "EdDSA")
    messages = [_message(role, wrong[role], file, _NEW_CERTIFY) for role in wrong if role is KeyRole.ACTIVE]
    messages += exposures([file], environ)
    if messages:
        raise ConfigError(_faults(path, _CERTIFY_KEY, settings.key_file, messages))
    return keys[KeyRole.ACTIVE]


def shared_certify_key(
    key: SigningKey, settings: CertifySettings, users: Mapping[str, tuple[SigningKey, ...]], path: Path
) -> tuple[Fault, ...]:
    """Return a fault for each of `users` that has this key; they are named as the message does."""
    messages = [
        f"is also the key of {user}; certificates need a key of their own: set another file, then {_NEW_CERTIFY}"
        for user, keys in users.items()
        if any(key.kid == one.kid for one in keys)
    ]
    return _faults(path, _CERTIFY_KEY, settings.key_file, messages)


def _used(wrong: Mapping[KeyRole, OSError | ValueError]) -> list[KeyRole]:
    """The roles that count here, without the staged one if the active one cannot be read."""
    if KeyRole.ACTIVE in wrong:
        return [KeyRole.ACTIVE]
    return [role for role in wrong if role is KeyRole.STAGED]


def _faults(file: Path, key: str, name: str, messages: list[str]) -> tuple[Fault, ...]:
    return tuple(Fault(file=str(file), key=key, value=shown(name), allowed=message) for message in messages)


def _message(role: KeyRole, error: OSError | ValueError, file: Path, new: str) -> str:
    beside = "" if role is KeyRole.ACTIVE else f"the {role} key beside it, {key_file_of(file, role).name}: "
    match error:
        case FileNotFoundError():
            return f"{system_message(error)}; to create one: {new}"
        case OSError():
            return f"{beside}{system_message(error)}; must be a PKCS#8 PEM file"
        case _:
            return f"{beside}{error}"
