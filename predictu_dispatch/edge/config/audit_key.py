"""Reads the key that signs the checkpoints of the audit's logs.

Beside it are the staged key, `.next`, and the previous one, `.previous`, as for an operator's key.
While there is a previous one both sign, so that a verifier that knows either accepts each
checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from predictu_dispatch.core.audit_settings import AuditSettings
from predictu_dispatch.core.settings import shown
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.files import ConfigError, Fault, located, system_message
from predictu_dispatch.edge.config.keys import KeyRole, key_file_of, read_keys
from predictu_dispatch.edge.config.secrecy import exposures

_KEY: Final = "audit.key_file"
_NEW: Final = "predictu-dispatch keys new --audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditKeys:
    """The keys of the audit's logs, the one that signs first."""

    active: SigningKey
    staged: SigningKey | None = None
    previous: SigningKey | None = None
    file: Path = field(compare=False)

    @property
    def seeds(self) -> tuple[bytes, ...]:
        """The private keys that sign now (RFC 8032), the new one first."""
        return tuple(key.ed25519_seed for key in (self.active, self.previous) if key is not None)

    @property
    def all(self) -> tuple[SigningKey, ...]:
        return tuple(key for key in (self.active, self.staged, self.previous) if key is not None)


def read_audit_keys(settings: AuditSettings, path: Path, environ: Mapping[str, str]) -> AuditKeys | None:
    """Returns the keys, or None without an origin; raises ConfigError with all faults.

    `path` is dispatcher.toml.
    """
    if not settings.origin:
        return None
    file = located(settings.key_file, path, environ)
    keys, wrong = read_keys(file, "EdDSA")
    messages = [_message(role, error, file) for role, error in wrong.items()]
    messages += exposures([key_file_of(file, role) for role in KeyRole], environ)
    if messages:
        raise ConfigError(
            tuple(Fault(file=str(path), key=_KEY, value=shown(settings.key_file), allowed=each) for each in messages)
        )
    return AuditKeys(
        active=keys[KeyRole.ACTIVE], staged=keys.get(KeyRole.STAGED), previous=keys.get(KeyRole.PREVIOUS), file=file
    )


def shared_audit_key(keys: AuditKeys, operators: Mapping[str, tuple[SigningKey, ...]], path: Path) -> list[Fault]:
    """Returns a fault for each operator whose tokens are signed with a key of the audit."""
    kids = {key.kid for key in keys.all}
    return [
        Fault(
            file=str(path),
            key=_KEY,
            value=shown(keys.file.name),
            allowed=f"is also a signing key of {operator_id}; the audit needs a key of its own: {_NEW}",
        )
        for operator_id, published in operators.items()
        if any(key.kid in kids for key in published)
    ]


def _message(role: KeyRole, error: OSError | ValueError, file: Path) -> str:
    beside = "" if role is KeyRole.ACTIVE else f"the {role} key beside it, {key_file_of(file, role).name}: "
    match error:
        case FileNotFoundError():
            return f"{system_message(error)}; to create one: {_NEW}"
        case OSError():
            return f"{beside}{system_message(error)}; must be a PKCS#8 PEM file"
        case _:
            return f"{beside}must be an unencrypted Ed25519 key (PKCS#8 PEM)"
