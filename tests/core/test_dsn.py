"""A DSN: its hosts, and that what is accepted works and what cannot work is refused."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import pytest
from asyncpg import connect_utils

from predictu_dispatch.core.dsn import Surroundings, dsn_fault, has_valid_hosts, one_per_host


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("", [""]),
        ("h", ["h"]),
        ("h1:5432,h2", ["h1:5432", "h2"]),
        # urlsplit() refuses these two as a whole.
        ("h1:5432,[::1]:5432,h3", ["h1:5432", "[::1]:5432", "h3"]),
        ("[::1],[::2]:5432", ["[::1]", "[::2]:5432"]),
        ("%2Frun%2Fpg:5432", ["%2Frun%2Fpg:5432"]),
    ],
)
@pytest.mark.parametrize("login", ["", "u@", "u:p%40@"])
@pytest.mark.parametrize("rest", ["", "/db", "?sslmode=require", "/db?options=-c%20a=b@c,d"])
def test_each_host_gets_the_whole_dsn(login: str, hosts: str, rest: str, expected: list[str]) -> None:
    dsn = f"postgresql://{login}{hosts}{rest}"
    assert one_per_host(dsn) == [f"postgresql://{login}{host}{rest}" for host in expected]
    assert has_valid_hosts(dsn)


@pytest.mark.parametrize("hosts", ["rest@h", "h:5x", "[h", "h]", "[::1]x", "[zz]", "h1,[::1", "h:123456"])
def test_the_rest_of_a_password_is_no_host(hosts: str) -> None:
    assert not has_valid_hosts(f"postgresql://u:p@{hosts}/db")


TLS = "sslmode=verify-full&sslrootcert=/ca.pem"
WORKS = [
    "/db",
    "u@localhost/db",
    "u@127.0.0.2:5433/db",
    "u@[::1]:5433/db",
    "u@%2Frun%2Fpg:5432/db",
    f"u@db.example.com/db?{TLS}",
    "u@10.0.0.1/db?sslmode=disable",
    f"u:p%40%2B@h1:5432,[2001:db8::1]:5433,h3/db?target_session_attrs=read-write&{TLS}",
    f"/db?user=u&host=h1,h2&port=5432,5433&{TLS}",
    f"/db?host=h1,h2&port=5433&{TLS}",
    "/?dbname=db&host=%2Frun%2Fpg,localhost",
    "localhost/db?options=-c%20statement_timeout%3D5s%20--lock_timeout=1s&application_name=us",
    "localhost/db?sslmode=require&sslnegotiation=direct&ssl_min_protocol_version=TLSv1.3",
    "localhost/db?sslcert=/c.pem&sslkey=/k.pem&sslpassword=x&sslcrl=/crl.pem&passfile=/p",
]
REMOTE = "sslmode, because a host is remote"
CANNOT_WORK = [
    *[
        (f"localhost/db?{name}={value}", f"without {name}")
        for name, value in {
            "channel_binding": "require",
            "client_encoding": "LATIN1",
            "connect_timeout": "10",
            "fallback_application_name": "x",
            "gssencmode": "disable",
            "gsslib": "gssapi",
            "hostaddr": "127.0.0.1",
            "keepalives": "1",
            "keepalives_idle": "60",
            "krbsrvname": "postgres",
            "load_balance_hosts": "random",
            "replication": "database",
            "requirepeer": "postgres",
            "require_auth": "scram-sha-256",
            "search_path": "public",
            "service": "s",
            "ssl": "true",
            "sslcertmode": "allow",
            "sslsni": "0",
            "tcp_user_timeout": "1000",
        }.items()
    ],
    ("h/db", REMOTE),
    ("localhost,h2/db", REMOTE),
    ("/db?host=%2Frun%2Fpg,h2", REMOTE),
    ("[2001:db8::1]/db", REMOTE),
    ("localhost/db?sslmode=on", "sslmode is disable, "),
    ("localhost/db?sslmode=parse", "sslmode is disable, "),
    ("localhost/db?sslmode=", "sslmode is disable, "),
    ("localhost/db?sslnegotiation=direct", "sslmode=require or stricter"),
    ("localhost/db?target_session_attrs=standby", "target_session_attrs is any, primary or read-write"),
    ("localhost/db?ssl_min_protocol_version=TLSv1.1", "ssl_min_protocol_version is TLSv1.2 or TLSv1.3"),
    ("localhost/db?options=geqo", "options is -c%20name=value"),
    ("localhost/db?sslkey=/k.pem", "sslcert, because it has sslkey"),
    ("localhost/db?sslrootcert=/gone", "sslrootcert is a file that can be used"),
    ("localhost/db?passfile=/gone", "passfile is a file that can be used"),
    ("h/db?sslmode=verify-full", "sslrootcert is a file that can be used"),
    ("localhost/db?sslmode", "?name=value&name=value"),
    ("localhost/db?sslmode=disable&", "?name=value&name=value"),
    ("localhost/db?application_name=a+b", "%2B for +"),
    ("localhost/db?sslmode=disable&sslmode=require", "sslmode once"),
    ("localhost/db%zz", "two hexadecimal digits"),
    ("localhost/db?sslmode=disable#x", "%23 for #"),
    ("u:1/secret@localhost/db", "%40 for @"),
    ("localhost:0/db", "ports from 1 to 65535"),
    ("localhost:70000/db", "ports from 1 to 65535"),
    ("localhost:/db", "ports from 1 to 65535"),
    ("/db?host=%2Frun&port=x", "ports from 1 to 65535"),
    ("localhost,/db", "without an empty host"),
    (":5432/db", "without an empty host"),
    ("/db?host=localhost,", "host is hosts or socket folders"),
    ("/db?host=localhost:5432", "host is hosts or socket folders"),
    ("/db?host=localhost,%2Frun&port=1,2,3", "port has one port"),
    ("localhost/db?host=%2Frun", "its hosts and ports in one place"),
]
ENVIRONMENT = [
    ({"PGHOST": "localhost", "PGPORT": "5433", "PGSSLMODE": "disable"}, None),
    ({"PGHOST": "h1,h2", "PGSSLMODE": "require"}, None),
    ({"PGHOST": "h"}, REMOTE),
    ({"PGHOST": "h", "PGSSLMODE": "on"}, "PGSSLMODE is disable, "),
    ({"PGPORT": "x"}, "ports from 1 to 65535"),
    ({"PGHOST": "/run,/tmp", "PGPORT": "1,2,3"}, "PGPORT has one port"),
    ({"PGTARGETSESSIONATTRS": "standby"}, "PGTARGETSESSIONATTRS is any"),
    ({"PGSSLROOTCERT": "/gone"}, "PGSSLROOTCERT is a file"),
    ({"PGSERVICE": "s"}, "PGSERVICE is not supported"),
    ({"PGHOSTADDR": "127.0.0.1"}, "PGHOSTADDR is not supported"),
]


def unusable_file(files: Mapping[str, str]) -> str | None:
    return next((name for name, file in files.items() if file.startswith(("/gone", "/.postgresql"))), None)


def fault(dsn: str, **environ: str) -> str | None:
    return dsn_fault(dsn, Surroundings(environ=environ, unusable_file=unusable_file))


def read_by_driver(dsn: str) -> tuple[Any, Any]:
    """What asyncpg makes of it; the files need not exist."""
    without_files = re.sub(r"(?<=[?&])(ssl(rootcert|cert|key|crl)|passfile)=[^&]*&?", "", dsn).rstrip("?&")
    parse = vars(connect_utils)["_parse_connect_dsn_and_args"]
    arguments = dict.fromkeys(inspect.signature(parse).parameters)
    found: tuple[Any, Any] = parse(**{**arguments, "dsn": without_files.replace("verify-full", "require")})
    return found


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
@pytest.mark.parametrize("dsn", WORKS)
def test_the_driver_takes_what_is_accepted_and_sends_nothing_unknown(scheme: str, dsn: str) -> None:
    assert fault(f"{scheme}://{dsn}") is None
    for one in one_per_host(f"{scheme}://{dsn}"):
        addresses, parameters = read_by_driver(one)
        assert len(addresses) == 1 or dsn == "/db"
        assert (parameters.server_settings or {}).keys() <= {"application_name", "options"}


@pytest.mark.parametrize(("dsn", "message"), CANNOT_WORK)
def test_what_cannot_work_is_refused_by_its_name(dsn: str, message: str) -> None:
    found = fault(f"postgresql://{dsn}")
    assert message in str(found)
    assert "secret" not in str(found)


@pytest.mark.parametrize(("environ", "message"), ENVIRONMENT)
def test_the_environment_counts_where_the_dsn_says_nothing(environ: dict[str, str], message: str | None) -> None:
    assert (message or "None") in str(fault("postgresql:///db", **environ))
    # An explicit DSN does not depend on it.
    explicit = "postgresql://localhost:1/db?sslmode=disable&target_session_attrs=any&sslrootcert=/ca.pem"
    assert fault(explicit, **environ) is None


def test_several_hosts_of_the_query_are_tried_one_by_one() -> None:
    dsn = "postgresql:///db?user=u&host=h1,%2Frun%2Fpg&port=1,2&sslmode=require"
    assert one_per_host(dsn) == [
        "postgresql:///db?host=h1&port=1&user=u&sslmode=require",
        "postgresql:///db?host=%2Frun%2Fpg&port=2&user=u&sslmode=require",
    ]
