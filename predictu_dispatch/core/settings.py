"""The keys of `dispatcher.toml`, and the messages about refused keys of any configuration file.

The models are strict (`true` is no number, `"5"` neither) and frozen, because a running daemon
shares them. The bounds catch mistakes such as milliseconds for seconds. Messages are made from a
field's type, bounds and `description`, so that they always match the check.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args, get_origin

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from predictu_dispatch.core.audit_settings import AuditSettings
from predictu_dispatch.core.dsn import Surroundings, dsn_fault
from predictu_dispatch.core.section import Section

DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0


class DatabaseSettings(Section):
    """How to reach Postgres. Both DSNs may hold a password, so no `repr` shows them."""

    dsn: SecretStr = Field(
        # Without host, user and password libpq's defaults and PG* variables count.
        default=SecretStr("postgresql:///predictu_dispatch"),
        description="a DSN such as postgresql://user@host:5432/database,"
        ' here, in PREDICTU_DISPATCH_DSN or in "file:NAME"',
    )
    listen_dsn: SecretStr = Field(default=SecretStr(""), description='a DSN as for dsn, or "" to use dsn')
    pool_size: int = Field(default=4, ge=1, le=100)

    @field_validator("dsn", "listen_dsn")
    @classmethod
    def _is_a_dsn(cls, dsn: SecretStr, info: ValidationInfo) -> SecretStr:
        text = dsn.get_secret_value()
        if text == "" and info.field_name == "listen_dsn":
            return dsn
        if not text.startswith(("postgresql://", "postgres://")) or any(
            c.isspace() or not c.isprintable() for c in text
        ):
            raise ValueError(cls.model_fields[str(info.field_name)].description)
        if fault := dsn_fault(text, info.context or Surroundings()):
            raise ValueError(fault)
        return dsn


class DaemonSettings(Section):
    """How a daemon runs."""

    instance: str = Field(
        default="",
        pattern=r"^\S{0,100}$",
        description='up to 100 characters without a space, different on every daemon, or "" for the host\'s name',
    )
    drain_s: float = Field(default=20.0, ge=0, le=HOUR_S)
    poll_interval_s: float = Field(default=0.5, ge=0.01, le=60)
    audit_retention_months: int = Field(default=24, ge=0, le=1200)


class HttpSettings(Section):
    """Where to serve metrics, health and public keys."""

    listen: str = Field(
        default="127.0.0.1:9464", description='"host:port", an IPv6 host in brackets, port 0 for any free port'
    )
    keys_listen: str = Field(
        default="", description='"host:port" as for listen but another one, or "" for no second address'
    )

    @field_validator("listen", "keys_listen")
    @classmethod
    def _is_host_and_port(cls, address: str, info: ValidationInfo) -> str:
        if address == "" and info.field_name == "keys_listen":
            return address
        is_valid = _HOST_AND_PORT.match(address) and int(address.rpartition(":")[2]) <= _PORT_MAX
        # With port 0 the system chooses two.
        if not is_valid or (address == info.data.get("listen") and not address.endswith(":0")):
            raise ValueError(cls.model_fields[str(info.field_name)].description)
        return address

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port; port 0 lets the system choose."""
        return _host_and_port(self.listen)

    @property
    def keys_address(self) -> tuple[str, int] | None:
        """Return the second address, for /keys/ only, or None."""
        return _host_and_port(self.keys_listen) if self.keys_listen else None


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


_HOST_AND_PORT: Final = re.compile(r"\A(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}\Z")
_PORT_MAX: Final = 65_535


class LogSettings(Section):
    """What is logged, and in which format."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class CertifySettings(Section):
    """The key that signs certificates. No daemon uses it."""

    key_file: str = Field(
        default="",
        max_length=4096,
        description='a file with an Ed25519 key, or "" to sign no certificate; to create one:'
        " predictu-dispatch keys new --certify",
    )


class DispatcherSettings(Section):
    """Everything in `dispatcher.toml`."""

    database: DatabaseSettings = DatabaseSettings()
    daemon: DaemonSettings = DaemonSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    audit: AuditSettings = AuditSettings()
    certify: CertifySettings = CertifySettings()


SHOWN_CHARS_MAX: Final = 80
"""Longer values are cut, so that a message fits one line of a terminal."""

# For unknown keys only; a known key is secret if its type says so.
_SECRET_NAME: Final = re.compile(r"dsn|dns|datab|pass|pwd|pw$|secret|token|auth|credential|key", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refused key: printable, on one line, free of secrets. `value` is "" if there is none."""

    key: str
    value: str
    allowed: str


def refusals(error: ValidationError, model: type[Section], given: Mapping[str, object]) -> tuple[Refusal, ...]:
    """Return every refused key of `given` with what is allowed, unknown keys last."""
    return tuple(
        Refusal(
            key=dotted(line["loc"]),
            value=_value_of(line["type"], line["loc"], line["input"], model, given),
            allowed=_allowed(line["type"], line["loc"], line.get("ctx", {}), model),
        )
        for line in error.errors(include_url=False)
    )


def known_keys(model: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield every key of a file as `section.key`, and the sections."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if (section := _section(field)) is not None:
            yield from known_keys(section, f"{prefix}{name}.")


def dotted(loc: tuple[str | int, ...]) -> str:
    """Return a key's path as TOML writes it, `statuses.rejected[0]`, quoted where necessary."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", part) else shown(part))
    return text


def shown(value: object) -> str:
    """Return a value for a message: one line, shortened, without what may be a credential."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{_shortened(_escaped(_redacted(value)))}"'
        case int() if value.bit_length() > SHOWN_CHARS_MAX:
            return f"a number of {value.bit_length()} bits"
        case int() | float() | dt.date() | dt.time():
            return str(value)
        case list() | tuple():
            return _shortened(f"[{', '.join('…' if isinstance(item, list | dict) else shown(item) for item in value)}]")
        case _:
            return "a table"


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() and c != '"' else c.encode("unicode_escape").decode() for c in text)


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 1]}…"


def _redacted(text: str) -> str:
    if "PRIVATE KEY" in text or re.search(r"password\s*=", text, re.IGNORECASE):
        return "(hidden)"
    # Everything before the last @ may be a password that was not escaped.
    return re.sub(r"(?s)^(\w+://)?.*@", r"\1…@", text)


def _section(field: FieldInfo | None) -> type[Section] | None:
    annotation = field.annotation if field is not None else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _section_of_items(field: FieldInfo | None) -> type[Section] | None:
    """The section of each table in a list of tables."""
    item = next(iter(get_args(field.annotation)), None) if field is not None else None
    return item if isinstance(item, type) and issubclass(item, Section) else None


def _field_at(model: type[Section], loc: tuple[str | int, ...]) -> tuple[type[Section], FieldInfo | None]:
    """The innermost section on the way to a key, and the key's field; None if unknown there."""
    section, field = model, None
    for name in (part for part in loc if isinstance(part, str)):
        section = _section(field) or _section_of_items(field) or section
        field = section.model_fields.get(name)
    return section, field


def _value_of(
    kind: str, loc: tuple[str | int, ...], value: object, model: type[Section], given: Mapping[str, object]
) -> str:
    _, field = _field_at(model, loc)
    if kind == "missing":
        return ""
    if field is None:
        is_secret = _SECRET_NAME.search(dotted(loc)) and not isinstance(value, dict)
        return "(hidden)" if is_secret else shown(value)
    if field.annotation is SecretStr:
        return "(hidden)"
    if _section(field) is not None:
        return "not a table"
    return shown(value) if _is_given(loc, given) else f"{shown(value)} (the default)"


def _is_given(loc: tuple[str | int, ...], given: object) -> bool:
    for part in loc:
        if isinstance(part, int):
            # Each item of a list was given.
            given = given[part] if isinstance(given, list) else given
        elif isinstance(given, Mapping) and part in given:
            given = given[part]
        else:
            return False
    return True


def _allowed(kind: str, loc: tuple[str | int, ...], context: Mapping[str, object], model: type[Section]) -> str:
    section, field = _field_at(model, loc)
    if field is None:
        return _unknown(str(loc[-1]), dotted(loc[:-1]), section, model)
    if kind == "value_error":
        return f"must be {context['error']}"
    if kind == "missing":
        return f"is missing; must be {_values_of(field)}"
    return f"must be {_values_of(field)}"


def _unknown(name: str, table: str, section: type[Section], model: type[Section]) -> str:
    here = [*section.model_fields]
    # difflib takes time with the square of the length, and a name may be as long as the file.
    if near := difflib.get_close_matches(name[:SHOWN_CHARS_MAX], here, n=1):
        return f"unknown key; did you mean {f'{table}.' if table else ''}{near[0]}?"
    everywhere = [*known_keys(model)]
    if near := difflib.get_close_matches(name[:SHOWN_CHARS_MAX], [key.rpartition(".")[2] for key in everywhere], n=1):
        meant = [key for key in everywhere if key.rpartition(".")[2] == near[0]]
        return f"unknown key here; did you mean {' or '.join(meant)}?"
    return f"unknown key; known here: {', '.join(here)}"


def _values_of(field: FieldInfo) -> str:
    if field.description:
        return field.description
    if field.annotation is bool:
        return "true or false"
    if get_origin(field.annotation) is Literal:
        return " or ".join(shown(value) for value in get_args(field.annotation))
    if _section(field) is not None:
        return "a table"
    bounds = {
        name: getattr(m, name) for m in field.metadata for name in ("ge", "le", "lt", "max_length") if hasattr(m, name)
    }
    if field.annotation is str:
        return f"text of at most {bounds['max_length']} characters"
    number = "a whole number" if field.annotation is int else "a number"
    last = f"{bounds['le']:.12g}" if "le" in bounds else f"below {bounds['lt']:.12g}"
    return f"{number} from {bounds['ge']:.12g} to {last}"
