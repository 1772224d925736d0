"""The configuration as it lies on disk: files, environment, keys and certificates.

`load_config` takes everything or refuses with every fault of every file. A reload (`reload.py`) takes the good
files and keeps what runs for the bad ones, so its three steps are public as well: `read_dispatcher`, `operator_files`,
`read_operator`. What is allowed is decided in `core/settings.py` and `core/operator_settings.py`; this module adds what
only the disk can tell.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from typing_extensions import override

from predictu_dispatch.core.operator_settings import (
    OperatorSettings,
    SigningSettings,
    TlsSettings,
    settings_fingerprint,
)
from predictu_dispatch.core.settings import DispatcherSettings, Section, refusals, shown
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.dsn_files import read_dsn_files
from predictu_dispatch.edge.config.expiry import certificate_ends, key_made_at
from predictu_dispatch.edge.config.files import bytes_of, located, why
from predictu_dispatch.edge.config.keys import published_keys

DSN_VARIABLE: Final = "PREDICTU_DISPATCH_DSN"
VARIABLES: Final = {
    "database.dsn": DSN_VARIABLE,
    "daemon.instance": "PREDICTU_DISPATCH_INSTANCE",
    "http.listen": "PREDICTU_DISPATCH_LISTEN",
}
"""What the environment says about a key wins: several daemons of a host share one `dispatcher.toml`."""

_SectionT = TypeVar("_SectionT", bound=Section)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing to put right. `key` and `value` are "" where the file as a whole is meant; never holds a secret."""

    file: str
    key: str = ""
    value: str = ""
    allowed: str

    @override
    def __str__(self) -> str:
        """One line: file, dotted key, value, what is allowed or what to do."""
        where = f"{self.key} = {self.value}" if self.value else self.key
        line = ": ".join(part for part in (self.file, where, self.allowed) if part)
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


class ConfigError(Exception):
    """The configuration cannot be used; `faults` has every reason, and `str` one line for each."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConfig:
    """One operator's settings with everything they name on disk, already read.

    Equal only where keys and certificates are as well, however their files are called.
    """

    settings: OperatorSettings
    file: Path
    published_keys: tuple[SigningKey, ...]
    """The active key, then the staged and the previous one, where they are there; each key once."""
    fingerprint: str
    tls_digest: str
    """Lower-case hex SHA-256 of what the files of `[tls]` hold, or "": a certificate is renewed under its old name."""
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    """Made from `[tls]`, with a client certificate or a private CA; None where the client's own default will do."""
    certificate_ends: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)
    key_made_at: float | None = field(default=None, repr=False, compare=False)
    """These two as `edge/config/expiry.py` has found them, in Unix seconds."""

    @property
    def signing_key(self) -> SigningKey:
        """The active key, with which tokens are signed."""
        return self.published_keys[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a daemon runs by. `operators` is read-only, by operator_id, in the order of their names."""

    path: Path
    dispatcher: DispatcherSettings
    operators: Mapping[str, OperatorConfig]


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """The whole configuration, usable as it is; raises ConfigError with all faults of all files."""
    faults: list[Fault] = []
    dispatcher: DispatcherSettings | None = None
    operators: dict[str, OperatorConfig] = {}
    files: tuple[Path, ...] = ()
    try:
        dispatcher = read_dispatcher(path, environ)
    except ConfigError as error:
        faults += error.faults
    try:
        files = operator_files(path)
    except ConfigError as error:
        faults += error.faults
    for file in files:
        try:
            operators[file.stem] = read_operator(file, environ)
        except ConfigError as error:
            faults += error.faults
    if faults or dispatcher is None:
        raise ConfigError(tuple(faults))
    return Config(path=path, dispatcher=dispatcher, operators=MappingProxyType(operators))


def read_dispatcher(path: Path, environ: Mapping[str, str]) -> DispatcherSettings:
    """`dispatcher.toml` with what the environment says, DSNs read from their files, and the host's name by default."""
    given = _toml(path, if_missing="; --config or PREDICTU_DISPATCH_CONFIG says where it is")
    told = {key: variable for key, variable in VARIABLES.items() if environ.get(variable)}
    for key, variable in told.items():
        section, _, name = key.partition(".")
        given[section] = _with(given.get(section, {}), **{name: environ[variable]})
    kept_in, unread = read_dsn_files(given.get("database"), path, environ)
    daemon = given.get("daemon", {})
    if isinstance(daemon, dict) and daemon.get("instance", "") == "":
        given["daemon"] = _with(daemon, instance=socket.gethostname())
    try:
        return DispatcherSettings.model_validate(given)
    except ValidationError as error:
        faults = _faults(error, DispatcherSettings, given, path)
    faults = tuple(
        replace(f, value=shown(kept_in[f.key]), allowed=unread.get(f.key, f.allowed)) if f.key in kept_in else f
        for f in faults
    )
    raise ConfigError(tuple(replace(f, file="environment", key=told[f.key]) if f.key in told else f for f in faults))


def operator_files(path: Path) -> tuple[Path, ...]:
    """Every `operators/*.toml` beside `dispatcher.toml`, by name. None is fine, a missing folder is a fault."""
    folder = path.parent / "operators"
    try:
        # iterdir and not glob, which answers a missing or closed folder with silence.
        return tuple(sorted(f for f in folder.iterdir() if f.suffix == ".toml" and not f.name.startswith(".")))
    except OSError as error:
        allowed = f"{why(error)}; must be a folder beside {path.name} with one file per operator, or with none"
        raise ConfigError((Fault(file=str(folder), allowed=allowed),)) from error


def read_operator_settings(file: Path) -> OperatorSettings:
    """An operator's file alone, without reading what it names; raises ConfigError with all its faults."""
    settings, faults = _operator_settings(file, _toml(file))
    if settings is None:
        raise ConfigError(faults)
    return settings


def read_operator(file: Path, environ: Mapping[str, str]) -> OperatorConfig:
    """An operator's file with its key and certificates; raises ConfigError with all faults of all of them."""
    given = _toml(file)
    settings, faults = _operator_settings(file, given)
    # Each section is looked at on its own, so that a slip elsewhere in the file does not hide a missing key file.
    signing = settings.signing if settings else _alone(SigningSettings, given.get("signing", {}))
    tls = settings.tls if settings else _alone(TlsSettings, given.get("tls", {}))
    keys, key_faults = _signing_keys(signing, file, environ) if signing else ((), ())
    # Before the files are loaded: one that is replaced in between makes a difference at the next reload that is none,
    # and never the reverse.
    digest = _tls_digest(tls, file, environ) if tls else ""
    context, tls_faults = _ssl_context(tls, file, environ) if tls else (None, ())
    faults = (*faults, *key_faults, *tls_faults)
    if faults or settings is None:
        raise ConfigError(faults)
    return OperatorConfig(
        settings=settings,
        file=file,
        published_keys=keys,
        fingerprint=settings_fingerprint(settings),
        tls_digest=digest,
        ssl_context=context,
        certificate_ends=certificate_ends(settings.tls, file, environ),
        key_made_at=key_made_at(settings.signing.key_file, file, environ),
    )


def _operator_settings(file: Path, given: dict[str, Any]) -> tuple[OperatorSettings | None, tuple[Fault, ...]]:
    settings: OperatorSettings | None = None
    faults: tuple[Fault, ...] = ()
    try:
        settings = OperatorSettings.model_validate(given)
    except ValidationError as error:
        faults = _faults(error, OperatorSettings, given, file)
    named = given.get("operator_id", file.stem)
    if named != file.stem and not any(fault.key == "operator_id" for fault in faults):
        allowed = f"must be {shown(file.stem)}, as the file is called; change the one or the other"
        return None, (Fault(file=str(file), key="operator_id", value=shown(named), allowed=allowed), *faults)
    return settings, faults


def _alone(section: type[_SectionT], given: object) -> _SectionT | None:
    try:
        return section.model_validate(given)
    except ValidationError:
        return None  # Its faults are already among the file's.


def _signing_keys(
    signing: SigningSettings, file: Path, environ: Mapping[str, str]
) -> tuple[tuple[SigningKey, ...], tuple[Fault, ...]]:
    keys, wrong = published_keys(located(signing.key_file, file, environ), signing.algorithm, operator_id=file.stem)
    return keys, tuple(
        Fault(file=str(file), key="signing.key_file", value=shown(signing.key_file), allowed=allowed)
        for allowed in wrong
    )


def _tls_digest(tls: TlsSettings, file: Path, environ: Mapping[str, str]) -> str:
    named = [name for name in tls.model_dump().values() if name]
    digest = hashlib.sha256()
    for name in named:
        # What cannot be read is a fault, and is told where the file is loaded.
        with contextlib.suppress(OSError):
            digest.update(hashlib.sha256(bytes_of(located(name, file, environ))).digest())
    return digest.hexdigest() if named else ""


def _ssl_context(
    tls: TlsSettings, file: Path, environ: Mapping[str, str]
) -> tuple[ssl.SSLContext | None, tuple[Fault, ...]]:
    paths: dict[str, Path] = {}
    faults: list[Fault] = []

    def refuse(key: str, allowed: str) -> None:
        faults.append(Fault(file=str(file), key=f"tls.{key}", value=shown(getattr(tls, key)), allowed=allowed))

    for key, name in tls.model_dump().items():
        if name:
            paths[key] = located(name, file, environ)
            try:
                bytes_of(paths[key])
            except OSError as error:
                refuse(key, f"{why(error)}; must be a PEM file")
    if not paths or faults:
        return None, tuple(faults)
    # With a CA of its own, an operator is trusted by that one only.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ca_file" in paths:
            context.load_verify_locations(paths["ca_file"])
        else:
            context.load_default_certs()
    except (OSError, ValueError):
        refuse("ca_file", "does not load; must be PEM certificates")
    try:
        if "client_cert_file" in paths:
            # An empty password makes OpenSSL refuse an encrypted key, where it would ask the terminal for one.
            context.load_cert_chain(paths["client_cert_file"], paths["client_key_file"], password="")
    except (OSError, ValueError):
        refuse(
            "client_cert_file", "does not load; must be a PEM certificate and, in client_key_file, its unencrypted key"
        )
    return context, tuple(faults)


def _toml(path: Path, *, if_missing: str = "") -> dict[str, Any]:
    try:
        return tomllib.loads(bytes_of(path).decode())
    except OSError as error:
        hint = if_missing if isinstance(error, FileNotFoundError) else ""
        allowed = f"{why(error)}; must be a readable TOML file{hint}"
    except tomllib.TOMLDecodeError as error:
        allowed = f"not valid TOML: {error}"
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        allowed = f"not valid TOML: not UTF-8 (at line {line}, column {column})"
    except (ValueError, RecursionError):
        allowed = "not valid TOML: a number of thousands of digits or brackets nested too deeply"
    raise ConfigError((Fault(file=str(path), allowed=allowed),))


def _with(table: object, **values: str) -> object:
    return {**table, **values} if isinstance(table, dict) else table


def _faults(error: ValidationError, model: type[Section], given: Mapping[str, object], file: Path) -> tuple[Fault, ...]:
    return tuple(
        Fault(file=str(file), key=refusal.key, value=refusal.value, allowed=refusal.allowed)
        for refusal in refusals(error, model, given)
    )
