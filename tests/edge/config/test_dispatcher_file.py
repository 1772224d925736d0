"""`dispatcher.toml`, its DSN and the environment; no secret in any message."""

import os
from pathlib import Path

import pytest

from predictu_dispatch.edge.config.files import ConfigError
from tests.edge.config.configuration import OPERATOR, faults, load


def test_the_dsn_of_the_environment_wins(folder: Path) -> None:
    (folder / "dispatcher.toml").write_text('[database]\ndsn = "postgresql://file/db?sslmode=require"\npool_size = 9\n')
    assert load(folder).dispatcher.database.dsn.get_secret_value() == "postgresql://file/db?sslmode=require"
    database = load(folder, PREDICTU_DISPATCH_DSN="postgresql://env/db?sslmode=require").dispatcher.database
    assert (database.dsn.get_secret_value(), database.pool_size) == ("postgresql://env/db?sslmode=require", 9)


def test_the_instance_is_the_hosts_name_unless_the_file_names_it(folder: Path) -> None:
    assert load(folder).dispatcher.daemon.instance == os.uname().nodename
    (folder / "dispatcher.toml").write_text('[daemon]\ninstance = "host-1"\n')
    assert load(folder).dispatcher.daemon.instance == "host-1"


def test_instance_and_listen_of_the_environment_win(folder: Path) -> None:
    (folder / "dispatcher.toml").write_text('[daemon]\ninstance = "file"\n[http]\nlisten = "127.0.0.1:1"\n')
    listen = {"PREDICTU_DISPATCH_LISTEN": "127.0.0.1:9465", "PREDICTU_DISPATCH_KEYS_LISTEN": "[::1]:9466"}
    settings = load(folder, PREDICTU_DISPATCH_INSTANCE="host-1", **listen).dispatcher
    assert (settings.daemon.instance, settings.http.address) == ("host-1", ("127.0.0.1", 9465))
    assert settings.http.keys_address == ("::1", 9466)
    listen = {"PREDICTU_DISPATCH_LISTEN": "9465", "PREDICTU_DISPATCH_KEYS_LISTEN": "h:1:2"}
    assert faults(folder, PREDICTU_DISPATCH_INSTANCE="host 1", **listen) == [
        (
            'environment: PREDICTU_DISPATCH_INSTANCE = "host 1": must be up to 100 characters without a space,'
            ' different on every daemon, or "" for the host\'s name'
        ),
        (
            'environment: PREDICTU_DISPATCH_LISTEN = "9465": must be "host:port", an IPv6 host in brackets,'
            " port 0 for any free port"
        ),
        (
            'environment: PREDICTU_DISPATCH_KEYS_LISTEN = "h:1:2": must be "host:port" as for listen but another one,'
            ' or "" for no second address'
        ),
    ]


def test_a_dsn_can_be_in_a_file_or_a_credential(folder: Path) -> None:
    (folder / "dispatcher.toml").write_text('[database]\ndsn = "file:dsn"\nlisten_dsn = "file:secret/listen"\n')
    (folder / "dsn").write_text("postgresql://u@near/db?sslmode=require\n")
    (folder / "dsn").chmod(0o600)
    credentials = folder / "credentials"
    credentials.mkdir()
    (credentials / "dsn").write_text("postgresql://u@far/db?sslmode=require")
    (credentials / "secret_listen").write_text("postgresql://u@listen/db?sslmode=require")
    database = load(folder, CREDENTIALS_DIRECTORY=str(credentials)).dispatcher.database
    assert database.dsn.get_secret_value() == "postgresql://u@near/db?sslmode=require"
    assert database.listen_dsn.get_secret_value() == "postgresql://u@listen/db?sslmode=require"
    (folder / "dsn").unlink()
    database = load(folder, CREDENTIALS_DIRECTORY=str(credentials)).dispatcher.database
    assert database.dsn.get_secret_value() == "postgresql://u@far/db?sslmode=require"


@pytest.mark.parametrize(
    ("content", "allowed"),
    [
        (None, "no such file or directory; must be a file that holds a DSN, or a systemd credential"),
        (b" \n", "is empty; must be a file that holds a DSN"),
        (b"\xff", "is not text; must be a file that holds a DSN"),
        (
            b"mysql://u:hunter2@h/db",
            (
                "must be a DSN such as postgresql://user@host:5432/database, here, in PREDICTU_DISPATCH_DSN or in"
                ' "file:NAME"'
            ),
        ),
    ],
)
def test_a_file_without_a_dsn_is_named_and_not_shown(folder: Path, content: bytes | None, allowed: str) -> None:
    (folder / "dispatcher.toml").write_text('[database]\ndsn = "file:dsn"\n')
    if content is not None:
        (folder / "dsn").write_bytes(content)
        (folder / "dsn").chmod(0o600)
    assert faults(folder) == [f'dispatcher.toml: database.dsn = "file:dsn": {allowed}']


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dispatcher.toml", f"[database]\ndsn = 'mysql://u:{SECRET}@h/db'"),
        ("dispatcher.toml", f"[database]\ndsn = ['postgresql://u:{SECRET}@h/db']"),
        ("dispatcher.toml", f"[database]\nlisten_dsn = 'host=h password={SECRET}'"),
        ("dispatcher.toml", f"[database]\ndns = 'postgresql://u:{SECRET}@h/db'"),
        ("dispatcher.toml", f"[database]\nurl = 'host=h pw={SECRET}'"),
        ("dispatcher.toml", f"database = 'postgresql://u:{SECRET}@h/db'"),
        ("dispatcher.toml", f"databas = 'host=h pw={SECRET}'"),
        ("dispatcher.toml", f"db_password = '{SECRET}'"),
        ("dispatcher.toml", f"pg = 'postgresql://u:{SECRET}@h/db'"),
        ("dispatcher.toml", f"pg = 'postgresql://u:{SECRET}@@/@h/db'"),
        ("dispatcher.toml", f"pg = ['host=h password = {SECRET}']"),
        ("dispatcher.toml", f"[http]\nlisten = 'u:{SECRET}@h:80'"),
        ("operators/op_a.toml", OPERATOR.replace("https://", f"https://u:{SECRET}@")),
        ("operators/op_a.toml", OPERATOR.replace("https://", f"https://u: {SECRET}\\n@")),
        ("operators/op_a.toml", OPERATOR.replace("keys/op_a.pem", f"-----BEGIN PRIVATE KEY----- {SECRET}")),
        ("operators/op_a.toml", f"api_key = '{SECRET}'\n{OPERATOR}"),
        ("operators/op_a.toml", f"{OPERATOR}[headers]\nX = '{SECRET}'"),
        ("operators/op_a.toml", f"{OPERATOR}key = '{SECRET}'"),
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_without_being_shown(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ConfigError) as raised:
        load(folder)
    assert SECRET not in f"{raised.value} {raised.value.faults!r} {raised.value.__cause__} {raised.value.__context__}"


@pytest.mark.parametrize("dsn", [f"mysql://u:{SECRET}@h/db", f"u:{SECRET}", f"postgresql://u:{SECRET}\udcff@h/db"])
def test_a_wrong_dsn_in_the_environment_is_named_and_not_shown(folder: Path, dsn: str) -> None:
    assert faults(folder, PREDICTU_DISPATCH_DSN=dsn) == [
        (
            "environment: PREDICTU_DISPATCH_DSN = (hidden): must be a DSN such as postgresql://user@host:5432/database,"
            ' here, in PREDICTU_DISPATCH_DSN or in "file:NAME"'
        )
    ]


@pytest.mark.parametrize(
    "dsn", ["u:{}/x@h/db", "u:{}#x@h/db", "u:{}?x@h/db", "u:{}@x@h/db", "u:{}@[h/db", "u:{}@h:5432,h:5x/db"]
)
def test_an_unescaped_password_in_a_dsn_is_not_shown(folder: Path, dsn: str) -> None:
    """The rest of an unescaped password stands in the place of the hosts and port."""
    assert faults(folder, PREDICTU_DISPATCH_DSN=f"postgresql://{dsn.format(SECRET)}") == [
        (
            "environment: PREDICTU_DISPATCH_DSN = (hidden): must be a DSN with hosts as host:5432;"
            " in a password write %40 for @, %2F for /, %3F for ?, %23 for #"
        )
    ]


@pytest.mark.parametrize(
    "dsn", ["/db", "h?sslmode=require", "u:p%40@h1:5432,[::1]:5432,h3/db?sslmode=require", "u@%2Frun%2Fpg:5432/db"]
)
def test_a_dsn_can_have_sockets_and_several_hosts(folder: Path, dsn: str) -> None:
    config = load(folder, PREDICTU_DISPATCH_DSN=f"postgresql://{dsn}")
    assert config.dispatcher.database.dsn.get_secret_value().endswith(dsn)


def test_a_valid_configuration_shows_no_secret(folder: Path) -> None:
    config = load(folder, PREDICTU_DISPATCH_DSN=f"postgresql://u:{SECRET}@h/db?sslmode=require")
    private_line = (folder / "operators" / "keys" / "op_a.pem").read_text().splitlines()[1]
    assert SECRET not in f"{config!r} {config.dispatcher!s}"
    assert private_line not in repr(config)
