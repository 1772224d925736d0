"""Reads an operator's file, with the signing keys and certificates that it names.

core/operator_settings.py decides which values are allowed; this module adds what only the disk can
tell.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509
from pydantic import ValidationError

from predictu_dispatch.core.accounting_days import time_zone
from predictu_dispatch.core.operator_settings import (
    OperatorSettings,
    SigningSettings,
    TlsSettings,
    settings_fingerprint,
)
from predictu_dispatch.core.section import Section
from predictu_dispatch.core.settings import shown
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.files import (
    ConfigError,
    Fault,
    faults_of,
    is_credential,
    located,
    read_file,
    read_toml,
    system_message,
)
from predictu_dispatch.edge.config.keys import KeyRole, key_file_of, published_keys
from predictu_dispatch.edge.config.secrecy import exposures
from predictu_dispatch.edge.tls import client_context

_SectionT = TypeVar("_SectionT", bound=Section)

_CERTIFICATES: Final = {"ca_file": "ca", "client_cert_file": "client"}
"""The keys of `[tls]` that name certificates, and the metric's label for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConfig:
    """One operator's settings, with the keys and certificates that they name.

    Two are equal only if the contents of keys and certificates are equal. `fingerprint` stands for
    the settings, so that a change of `[sandbox]` or `[reconcile]`, which no daemon uses, is no
    change.
    """

    settings: OperatorSettings = field(compare=False)
    file: Path
    published_keys: tuple[SigningKey, ...]
    """The active key, then the staged and the previous one if they exist; each key once."""
    fingerprint: str
    tls_digest: str
    """Hex SHA-256 of the files of `[tls]`, or "": a renewed certificate keeps its file name."""
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    """Made from `[tls]`; None without a client certificate or a CA of the operator's own."""
    certificate_ends: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)
    """When the certificates `ca` and `client` expire, in Unix seconds."""
    key_made_at: float | None = field(default=None, repr=False, compare=False)
    """When the active key's file was written, in Unix seconds; None for a systemd credential."""

    @property
    def signing_key(self) -> SigningKey:
        """The active key, which signs tokens."""
        return self.published_keys[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What the files of `[tls]` hold; see the fields of OperatorConfig."""

    context: ssl.SSLContext | None = None
    digest: str = ""
    certificate_ends: Mapping[str, float] = field(default_factory=dict)


def operator_files(dispatcher_file: Path) -> tuple[Path, ...]:
    """Returns every `operators/*.toml` by name. Raises ConfigError without that folder."""
    folder = dispatcher_file.parent / "operators"
    try:
        # Path.glob would return nothing for a missing or unreadable folder.
        return tuple(sorted(f for f in folder.iterdir() if f.suffix == ".toml" and not f.name.startswith(".")))
    except OSError as error:
        needed = f"must be a folder beside {dispatcher_file.name} with one file per operator, or empty"
        allowed = f"{system_message(error)}; {needed}"
        raise ConfigError((Fault(file=str(folder), allowed=allowed),)) from error


def read_operator_settings(file: Path) -> OperatorSettings:
    """Returns an operator's settings, without the files they name; raises ConfigError."""
    settings, faults = _validated(file, read_toml(file))
    if settings is None:
        raise ConfigError(faults)
    return settings


def read_ledger_settings(file: Path) -> OperatorSettings:
    """Returns an operator's settings if this host can use `[reconcile]`; raises ConfigError."""
    settings = read_operator_settings(file)
    if faults := time_zone_faults(file, settings):
        raise ConfigError(faults)
    return settings


def time_zone_faults(file: Path, settings: OperatorSettings) -> tuple[Fault, ...]:
    """Returns a fault if this host does not know `[reconcile] time_zone`, which no daemon uses."""
    name = settings.reconcile.time_zone
    try:
        time_zone(name)
    except ValueError as error:
        return (Fault(file=str(file), key="reconcile.time_zone", value=shown(name), allowed=f"must be {error}"),)
    return ()


def read_operator(file: Path, environ: Mapping[str, str]) -> OperatorConfig:
    """Returns an operator's settings, keys and certificates; raises ConfigError with all faults."""
    given = read_toml(file)
    settings, faults = _validated(file, given)
    # If the file as a whole is refused, each section is still validated: an error elsewhere must
    # not hide a missing key file.
    signing = settings.signing if settings else _section(SigningSettings, given.get("signing", {}))
    tls = settings.tls if settings else _section(TlsSettings, given.get("tls", {}))
    keys: tuple[SigningKey, ...] = ()
    tls_files = TlsFiles()
    if signing:
        keys, key_faults = _read_signing_keys(signing, file, environ)
        faults += key_faults
    if tls:
        tls_files, tls_faults = read_tls(tls, file, environ)
        faults += tls_faults
    if faults or settings is None:
        raise ConfigError(faults)
    return OperatorConfig(
        settings=settings,
        file=file,
        published_keys=keys,
        fingerprint=settings_fingerprint(settings),
        tls_digest=tls_files.digest,
        ssl_context=tls_files.context,
        certificate_ends=tls_files.certificate_ends,
        key_made_at=_written_at(settings.signing.key_file, file, environ),
    )


def _validated(file: Path, given: dict[str, Any]) -> tuple[OperatorSettings | None, tuple[Fault, ...]]:
    settings: OperatorSettings | None = None
    faults: tuple[Fault, ...] = ()
    try:
        settings = OperatorSettings.model_validate(given)
    except ValidationError as error:
        faults = faults_of(error, OperatorSettings, given, file)
    operator_id = given.get("operator_id", file.stem)
    if operator_id != file.stem and not any(fault.key == "operator_id" for fault in faults):
        allowed = f"must be {shown(file.stem)}, the file's name; change the key or rename the file"
        return None, (Fault(file=str(file), key="operator_id", value=shown(operator_id), allowed=allowed), *faults)
    return settings, faults


def _section(section: type[_SectionT], given: object) -> _SectionT | None:
    try:
        return section.model_validate(given)
    except ValidationError:
        return None  # Its faults are already among the file's.


def _read_signing_keys(
    signing: SigningSettings, file: Path, environ: Mapping[str, str]
) -> tuple[tuple[SigningKey, ...], tuple[Fault, ...]]:
    active_file = located(signing.key_file, file, environ)
    keys, wrong = published_keys(active_file, signing.algorithm, operator_id=file.stem)
    exposed = exposures([key_file_of(active_file, role) for role in KeyRole], environ)
    return keys, tuple(
        Fault(file=str(file), key="signing.key_file", value=shown(signing.key_file), allowed=allowed)
        for allowed in (*wrong, *exposed)
    )


def _written_at(key_file: str, file: Path, environ: Mapping[str, str]) -> float | None:
    """Returns when a key's file was written; a rotation renames files and keeps that time."""
    path = located(key_file, file, environ)
    try:
        # systemd writes credentials again at each start.
        return None if is_credential(path, environ) else path.stat().st_mtime
    except OSError:
        return None


def read_tls(tls: TlsSettings, file: Path, environ: Mapping[str, str]) -> tuple[TlsFiles, tuple[Fault, ...]]:
    """Returns what the files of `[tls]` hold, and a fault for each that cannot be used."""
    paths = {key: located(name, file, environ) for key, name in tls.model_dump().items() if name}
    contents: dict[str, bytes] = {}
    faults: list[Fault] = []

    def refuse(key: str, allowed: str) -> None:
        faults.append(Fault(file=str(file), key=f"tls.{key}", value=shown(getattr(tls, key)), allowed=allowed))

    for key, path in paths.items():
        try:
            contents[key] = read_file(path)
        except OSError as error:
            refuse(key, f"{system_message(error)}; must be a PEM file")
    for exposure in exposures([path for key, path in paths.items() if key == "client_key_file"], environ):
        refuse("client_key_file", exposure)
    if not paths or faults:
        return TlsFiles(), tuple(faults)
    # Before OpenSSL reads: a file replaced in between causes one needless reload later; in the
    # other order a renewed certificate would be missed.
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents.values())).hexdigest()
    try:
        context = client_context(paths.get("ca_file"))
    except (OSError, ValueError):
        refuse("ca_file", "does not load; must be PEM certificates")
        context = client_context()
    try:
        if "client_cert_file" in paths:
            # With an empty password, OpenSSL refuses an encrypted key instead of asking on the
            # terminal.
            context.load_cert_chain(paths["client_cert_file"], paths["client_key_file"], password="")
    except (OSError, ValueError):
        refuse(
            "client_cert_file", "does not load; must be a PEM certificate and, in client_key_file, its unencrypted key"
        )
    ends = {label: first_expiry(contents[key]) for key, label in _CERTIFICATES.items() if key in contents}
    known_ends = {label: end_s for label, end_s in ends.items() if end_s is not None}
    return TlsFiles(context=context, digest=digest, certificate_ends=known_ends), tuple(faults)


def first_expiry(pem: bytes) -> float | None:
    """Returns when the first of these certificates expires, in Unix seconds; None if unreadable.

    A chain needs each certificate, and it is unknown which of several authorities signed it.
    """
    try:
        return min(one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(pem))
    except ValueError:
        # OpenSSL, which decides what may be used, is more lenient than this parser.
        return None
