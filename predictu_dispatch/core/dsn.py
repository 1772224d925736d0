"""The database's DSN: its hosts, and whether it can work.

Only what the driver supports is accepted, so that `run` does not fail after `check` succeeded. The
driver would send an unknown parameter to the server as a setting. It would ignore others, even if
they protect the connection in libpq.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, unquote, urlsplit

# Postgres allows several hosts, separated by commas; urlsplit() refuses them if one is in brackets.
_PARTS: Final = re.compile(r"(?P<before>[a-z]+://(?:[^/?#@]*@)?)(?P<hosts>[^/?#]*)(?P<after>.*)", re.DOTALL)
"""The login ends at the first @, as in asyncpg."""
_HOST: Final = re.compile(r"(\[[^][@]+\]|[^][@:]*)(:[0-9]{0,5})?")
_QUERY: Final = re.compile(r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_PORT_MAX: Final = 65_535
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OPTIONS: Final = re.compile(r"(?:(?:^|\s+)(?:-c\s*|--)[A-Za-z_][\w.-]*=(?:[^\s\\]|\\.)*)+")

ESCAPES: Final = "a DSN with hosts as host:5432; in a password write %40 for @, %2F for /, %3F for ?, %23 for #"
_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    # The daemon writes: it can use no standby.
    "target_session_attrs": ("any", "primary", "read-write"),
    "ssl_min_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1.2", "TLSv1.3"),
}
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_TEXTS: Final = ("host", "port", "dbname", "user", "password", "sslpassword", "application_name", "options")
PARAMETERS: Final = (*_TEXTS, *_VALUES, *_FILES)
_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "passfile": "PGPASSFILE",
}
"""The variables that the driver reads where the DSN has no such parameter."""
_TO_REMOTE_HOSTS: Final = (
    "a DSN with sslmode, because a host is remote: add ?sslmode=verify-full&sslrootcert=FILE, or sslmode=disable if "
    "the network is protected in another way"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a DSN depends on: the environment's variables, and the files that it names.

    `unusable_file` gets files by the names of their parameters and returns one that does not work.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    unusable_file: Callable[[Mapping[str, str]], str | None] = lambda _: None


def one_per_host(dsn: str) -> list[str]:
    """The DSN once for each of its hosts, in their order."""
    parts = _PARTS.fullmatch(dsn)
    if parts is None:
        return [dsn]
    if not parts["hosts"]:
        return _one_per_host_of_query(dsn)
    return [f"{parts['before']}{host}{parts['after']}" for host in parts["hosts"].split(",")]


def _one_per_host_of_query(dsn: str) -> list[str]:
    base, _, query = dsn.partition("?")
    given = [one.partition("=")[::2] for one in query.split("&")] if query else []
    values = {name: unquote(value) for name, value in given}
    hosts = values.get("host", "").split(",")
    if len(hosts) == 1:
        return [dsn]
    ports = values["port"].split(",") if values.get("port") else []
    rest = [f"{name}={value}" for name, value in given if name not in ("host", "port")]
    return [
        "&".join(
            [
                f"{base}?host={quote(host, safe='')}",
                *([f"port={ports[0] if len(ports) == 1 else ports[number]}"] if ports else []),
                *rest,
            ]
        )
        for number, host in enumerate(hosts)
    ]


def has_valid_hosts(dsn: str) -> bool:
    """False if the hosts are malformed, for example because a password holds an unescaped @."""
    parts = _PARTS.fullmatch(dsn)
    if parts is None or not all(_HOST.fullmatch(host) for host in parts["hosts"].split(",")):
        return False
    try:
        for one in one_per_host(dsn):
            urlsplit(one)
    except ValueError:
        return False
    return True


def dsn_fault(dsn: str, surroundings: Surroundings) -> str | None:
    """What the DSN must be, if it cannot work; names parameters, never their values."""
    if not has_valid_hosts(dsn):
        return ESCAPES
    parts = _PARTS.fullmatch(dsn)
    assert parts is not None  # noqa: S101 - has_valid_hosts() has matched it
    rest = _QUERY.fullmatch(parts["after"])
    if rest is None or "@" in parts["after"]:
        return ESCAPES
    if _BAD_ESCAPE.search(dsn):
        return "a DSN in which each % is followed by two hexadecimal digits; write %25 for %"
    query: dict[str, str] = {}
    if rest["query"] is not None:
        for one in rest["query"].split("&"):
            name, separator, value = one.partition("=")
            if not separator or "+" in value:
                return "a DSN with parameters as ?name=value&name=value; write %20 for a space and %2B for +"
            if fault := _name_fault(name, query):
                return fault
            query[name] = unquote(value)
    given = {name: (name, value) for name, value in query.items()}
    for name, variable in _VARIABLES.items():
        if name not in query and (value := surroundings.environ.get(variable)):
            given[name] = variable, value
    return (
        _hosts_fault(parts["hosts"], query, given, surroundings.environ)
        or _values_fault(given)
        or _files_fault(given, surroundings)
    )


def _name_fault(name: str, before: Mapping[str, str]) -> str | None:
    shown = name if _NAME.fullmatch(name) else "one of its parameters"
    if name in before:
        return f"a DSN with {shown} once"
    if name not in PARAMETERS:
        known = ", ".join(PARAMETERS)
        return f"a DSN without {shown}: supported are {known}; a server setting is options=-c%20name=value"
    return None


def _hosts_fault(
    hosts: str, query: Mapping[str, str], given: Mapping[str, tuple[str, str]], environ: Mapping[str, str]
) -> str | None:
    names: list[str]
    if hosts:
        if "host" in query or "port" in query:
            return "a DSN with its hosts and ports in one place: host:5432 or ?host=…&port=…"
        pairs = [_split_host(host) for host in hosts.split(",")]
        names, ports = [name for name, _ in pairs], [port for _, port in pairs if port is not None]
        if not all(names):
            return "a DSN without an empty host"
    else:
        if "host" not in given and (variable := next((v for v in ("PGHOSTADDR", "PGSERVICE") if environ.get(v)), None)):
            return f"a DSN with a host: {variable} is not supported"
        source, text = given.get("host", ("host", ""))
        names = text.split(",") if text else []
        if not all(names) or any(":" in name and not name.startswith("/") for name in names):
            return (
                f"a DSN in which {source} is hosts or socket folders, without ports; write IPv6 addresses before the /"
            )
        ports = given["port"][1].split(",") if "port" in given else []
        if len(ports) > 1 and len(ports) != len(names):
            return f"a DSN in which {given['port'][0]} has one port, or one for each host"
    if not all(_PORT.fullmatch(port) and 0 < int(port) <= _PORT_MAX for port in ports):
        return f"a DSN with ports from 1 to {_PORT_MAX}"
    if "sslmode" not in given and not all(map(_is_local, names)):
        return _TO_REMOTE_HOSTS
    return None


def _split_host(host: str) -> tuple[str, str | None]:
    match = _HOST.fullmatch(host)
    assert match is not None  # noqa: S101 - has_valid_hosts() has matched it
    return unquote(match[1]).strip("[]"), match[2][1:] if match[2] else None


def _is_local(host: str) -> bool:
    """True for a socket's folder, localhost and loopback addresses."""
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _values_fault(given: Mapping[str, tuple[str, str]]) -> str | None:
    for name, allowed in _VALUES.items():
        if name in given and given[name][1] not in allowed:
            return f"a DSN in which {given[name][0]} is {', '.join(allowed[:-1])} or {allowed[-1]}"
    if "sslnegotiation" in given and given["sslnegotiation"][1] == "direct" and not _verifies(given, "require"):
        return "a DSN with sslmode=require or stricter, because of sslnegotiation=direct"
    if "options" in given and not _OPTIONS.fullmatch(given["options"][1].strip()):
        return "a DSN in which options is -c%20name=value, any number of times"
    return None


def _files_fault(given: Mapping[str, tuple[str, str]], surroundings: Surroundings) -> str | None:
    if "sslkey" in given and "sslcert" not in given:
        return "a DSN with sslcert, because it has sslkey"
    files = {name: given[name] for name in (*_FILES, "sslpassword") if name in given}
    if _verifies(given, "verify-ca"):
        default = f"{surroundings.environ.get('HOME', '')}/.postgresql/root.crt"
        files.setdefault("sslrootcert", ("sslrootcert", default))
    bad = surroundings.unusable_file({name: value for name, (_, value) in files.items()})
    return None if bad is None else f"a DSN in which {files[bad][0]} is a file that can be used"


def _verifies(given: Mapping[str, tuple[str, str]], at_least: str) -> bool:
    modes = _VALUES["sslmode"]
    return "sslmode" in given and modes.index(given["sslmode"][1]) >= modes.index(at_least)
