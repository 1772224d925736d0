"""Loading a configuration: its files, keys and certificates, and the message of each fault."""

import os
import ssl
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.edge.config.files import FILE_BYTES_MAX
from predictu_dispatch.edge.config.keys import create_key_file, new_private_pem
from tests.edge.config.configuration import CLIENT_TLS, OPERATOR, faults, issue_certificates, load


def test_a_valid_configuration_is_loaded(folder: Path) -> None:
    config = load(folder)
    operator = config.operators["op_a"]
    assert [*config.operators] == ["op_a"]
    assert operator.signing_key.algorithm == "EdDSA"
    assert operator.file == folder / "operators" / "op_a.toml"
    assert operator.ssl_context is None
    assert len(operator.fingerprint) == 64


def test_a_daemon_without_operators_is_allowed(folder: Path) -> None:
    (folder / "operators" / "op_a.toml").unlink()
    (folder / "operators" / "op_b.toml.example").write_text("not = [ TOML")
    (folder / "operators" / ".#op_b.toml").symlink_to("an editor's lock")
    assert not load(folder).operators


def test_the_configuration_of_a_fresh_clone_has_no_fault() -> None:
    assert not load(Path(__file__).parents[3] / "config").operators


def test_an_edit_changes_the_fingerprint_and_a_comment_does_not(folder: Path) -> None:
    file = folder / "operators" / "op_a.toml"
    before = load(folder).operators["op_a"].fingerprint
    file.write_text(f"# A comment.\nenabled = true\n{OPERATOR}")
    assert load(folder).operators["op_a"].fingerprint == before
    file.write_text(f"enabled = false\n{OPERATOR}")
    assert load(folder).operators["op_a"].fingerprint != before


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("[database]\npool_size = 0", "database.pool_size = 0: must be a whole number from 1 to 100"),
        ("[log]\nlevel = 'loud'", 'log.level = "loud": must be "debug" or "info" or "warning" or "error"'),
        ("[databas]", "databas = a table: unknown key; did you mean database?"),
        (
            f"[database]\npool_size = 0x{'f' * 5000}",
            "database.pool_size = a number of 20000 bits: must be a whole number from 1 to 100",
        ),
        ("http = 1", "http = not a table: must be a table"),
        ("a = 1\nb =\n", "not valid TOML: Invalid value (at line 2, column 4)"),
        ("a = 1\nb = '\xff'\n".encode("latin-1"), "not valid TOML: not UTF-8 (at line 2, column 6)"),
        (f"a = {'[' * 5000}", "not valid TOML: a number has too many digits, or brackets are nested too deeply"),
        (f"a = {'9' * 5000}", "not valid TOML: a number has too many digits, or brackets are nested too deeply"),
        ("#" * (FILE_BYTES_MAX + 1), "longer than 1048576 bytes; must be a readable TOML file"),
    ],
)
def test_each_fault_of_the_dispatchers_file_has_its_message(folder: Path, content: str | bytes, line: str) -> None:
    (folder / "dispatcher.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert f"dispatcher.toml: {line}" in faults(folder)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            "callback_url = 'https://h'\n[signing]\nkey_file = 'keys/op_a.pem'",
            "operator_id: is missing; must be 1 to 64 of A-Z a-z 0-9 _ -, and the file's name",
        ),
        (
            "operator_id = 'op_a'\ncallback_url = 'https://h'",
            (
                "signing.key_file: is missing; must be a PKCS#8 PEM file relative to this file,"
                " or the name of a systemd credential"
            ),
        ),
        (
            OPERATOR.replace('"op_a"', '"op_b"'),
            'operator_id = "op_b": must be "op_a", the file\'s name; change the key or rename the file',
        ),
        (
            OPERATOR.replace("keys/op_a", "keys/gone"),
            (
                'signing.key_file = "keys/gone.pem": no such file or directory;'
                " to create one: predictu-dispatch keys new op_a"
            ),
        ),
        (OPERATOR.replace("keys/op_a.pem", "keys"), 'signing.key_file = "keys": not a file; must be a PKCS#8 PEM file'),
        (
            f'{OPERATOR}algorithm = "RS256"',
            (
                'signing.key_file = "keys/op_a.pem": signing.algorithm = "RS256" needs an RSA key of 2048 bits or more,'
                " and this is an Ed25519 key"
            ),
        ),
        (
            f"{OPERATOR}[tls]\nca_file = 'gone.pem'",
            'tls.ca_file = "gone.pem": no such file or directory; must be a PEM file',
        ),
        (
            f"{OPERATOR}[tls]\nca_file = 'op_a.toml'",
            'tls.ca_file = "op_a.toml": does not load; must be PEM certificates',
        ),
        (
            f"{OPERATOR}[interactive]\nattempt_timeout_s = 1",
            "interactive.connect_timeout_s = 2.0 (the default): must be at most attempt_timeout_s, which is 1",
        ),
        (
            f"callback_url = '{'x' * 200}'\n{OPERATOR.replace('callback_url', 'amount_format')}",
            f'callback_url = "{"x" * 79}…": must be an https:// URL',
        ),
    ],
)
def test_each_fault_of_an_operators_file_has_its_message(folder: Path, content: str, line: str) -> None:
    (folder / "operators" / "op_a.toml").write_text(content)
    assert f"operators/op_a.toml: {line}" in faults(folder)


@pytest.mark.parametrize(
    ("breaking", "line"),
    [
        (
            lambda folder: (folder / "dispatcher.toml").unlink(),
            (
                "dispatcher.toml: no such file or directory; must be a readable TOML file;"
                " set --config or PREDICTU_DISPATCH_CONFIG to its path"
            ),
        ),
        (
            lambda folder: (folder / "operators").rename(folder / "customers"),
            (
                "operators: no such file or directory; must be a folder beside dispatcher.toml"
                " with one file per operator, or empty"
            ),
        ),
        (
            lambda folder: (folder / "operators" / "op_b.toml").mkdir(),
            "operators/op_b.toml: not a file; must be a readable TOML file",
        ),
        (
            lambda folder: os.mkfifo(folder / "operators" / "op_b.toml"),
            "operators/op_b.toml: not a file; must be a readable TOML file",
        ),
        (
            lambda folder: (folder / "operators" / "op_b.toml").symlink_to("gone"),
            "operators/op_b.toml: no such file or directory; must be a readable TOML file",
        ),
    ],
)
def test_a_missing_or_irregular_file_is_one_fault(folder: Path, breaking: Callable[[Path], object], line: str) -> None:
    breaking(folder)
    assert faults(folder) == [line]


def test_all_faults_of_all_files_are_reported_at_once(folder: Path) -> None:
    (folder / "dispatcher.toml").write_text("[daemon]\ndrain_s = -1\n[http]\nlisten = 'here'\n")
    (folder / "operators" / "op_a.toml").write_text(
        OPERATOR.replace("op_a.pem", "gone.pem")
        + "[interactive]\njitter = 1.0\nretries = 3\n[tls]\nca_file = 'gone.pem'\n"
    )
    (folder / "operators" / "op_b.toml").write_text("nonsense")
    (folder / "operators" / "op_c.toml").write_text("")
    assert [line if "TOML" in line else line.split(" = ")[0] for line in faults(folder)] == [
        "dispatcher.toml: daemon.drain_s",
        "dispatcher.toml: http.listen",
        "operators/op_a.toml: interactive.jitter",
        "operators/op_a.toml: interactive.retries",
        "operators/op_a.toml: signing.key_file",
        "operators/op_a.toml: tls.ca_file",
        "operators/op_b.toml: not valid TOML: Expected '=' after a key in a key/value pair (at end of document)",
        "operators/op_c.toml: operator_id: is missing; must be 1 to 64 of A-Z a-z 0-9 _ -, and the file's name",
        "operators/op_c.toml: callback_url: is missing; must be an https:// URL of at most 2048 characters",
        (
            "operators/op_c.toml: signing.key_file: is missing; must be a PKCS#8 PEM file relative to this file,"
            " or the name of a systemd credential"
        ),
    ]


def test_a_key_can_be_a_credential_and_a_file_beside_the_operators_file_wins(folder: Path) -> None:
    (folder / "operators" / "op_a.toml").write_text(OPERATOR.replace("keys/op_a.pem", "op_a.key"))
    credentials = folder / "credentials"
    credential = create_key_file(credentials / "op_a.key", "EdDSA")
    assert load(folder, CREDENTIALS_DIRECTORY=str(credentials)).operators["op_a"].signing_key == credential
    nearer = create_key_file(folder / "operators" / "op_a.key", "EdDSA")
    assert load(folder, CREDENTIALS_DIRECTORY=str(credentials)).operators["op_a"].signing_key == nearer


def test_a_key_in_a_folder_can_be_a_credential_of_that_folder(folder: Path) -> None:
    """LoadCredential=keys:FOLDER makes a credential keys_NAME of each file."""
    near = load(folder).operators["op_a"].signing_key
    credentials = folder / "credentials"
    far = create_key_file(credentials / "keys_op_a.pem", "EdDSA")
    staged = create_key_file(credentials / "keys_op_a.next.pem", "EdDSA")
    assert load(folder, CREDENTIALS_DIRECTORY=str(credentials)).operators["op_a"].signing_key == near
    (folder / "operators" / "keys" / "op_a.pem").unlink()
    assert load(folder, CREDENTIALS_DIRECTORY=str(credentials)).operators["op_a"].published_keys == (far, staged)


def test_active_staged_and_previous_keys_are_published_once_each(folder: Path) -> None:
    keys = folder / "operators" / "keys"
    active = load(folder).operators["op_a"].signing_key
    previous = create_key_file(keys / "op_a.previous.pem", "EdDSA")
    staged = create_key_file(keys / "op_a.next.pem", "EdDSA")
    create_key_file(keys / "op_a.later.pem", "EdDSA")
    operator = load(folder).operators["op_a"]
    assert (operator.signing_key, operator.published_keys) == (active, (active, staged, previous))
    (keys / "op_a.next.pem").write_bytes((keys / "op_a.pem").read_bytes())
    assert load(folder).operators["op_a"].published_keys == (active, previous)


def test_a_relative_path_does_not_leave_the_credentials_folder(folder: Path) -> None:
    create_key_file(folder / "run" / "elsewhere" / "op_a.key", "EdDSA")
    (folder / "run" / "credentials").mkdir()
    (folder / "operators" / "op_a.toml").write_text(OPERATOR.replace("keys/op_a.pem", "../elsewhere/op_a.key"))
    assert len(faults(folder, CREDENTIALS_DIRECTORY=str(folder / "run" / "credentials"))) == 1


def test_a_client_certificate_and_a_private_ca_are_loaded(folder: Path) -> None:
    issue_certificates(folder)
    (folder / "operators" / "op_a.toml").write_text(OPERATOR + CLIENT_TLS)
    context = load(folder).operators["op_a"].ssl_context
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1
    (folder / "operators" / "client.key").write_bytes(new_private_pem("EdDSA"))
    assert faults(folder) == [
        (
            'operators/op_a.toml: tls.client_cert_file = "client.pem": does not load;'
            " must be a PEM certificate and, in client_key_file, its unencrypted key"
        )
    ]


def _toml(value: object) -> str:
    """A value as TOML. Hypothesis draws it, so that no test depends on a writer of TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
        case _:
            return str(value)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_KNOWN = [
    *("operator_id", "callback_url", "signing", "key_file", "interactive", "jitter", "statuses", "success", "database"),
    *(
        "dsn",
        "instance",
        "daemon",
        "tls",
        "ca_file",
        "http",
        "listen",
        "keys_listen",
        "max_attempts",
        "deadline_s",
        "enabled",
    ),
]
_JUNK = st.recursive(
    st.booleans() | st.integers() | st.floats() | _TEXT | st.dates() | st.datetimes() | st.times() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KNOWN) | _TEXT, inner, max_size=5),
    max_leaves=12,
)
_FILES = st.dictionaries(st.sampled_from(_KNOWN) | _TEXT, _JUNK, max_size=6)


@given(dispatcher=_FILES, operator=_FILES)
def test_random_values_are_refused_with_faults(dispatcher: dict[str, object], operator: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "operators").mkdir()
        for file, table in (("dispatcher.toml", dispatcher), ("operators/op_a.toml", operator)):
            text = "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in table.items())
            tomllib.loads(text)
            (folder / file).write_text(text)
        assert faults(folder)


@given(content=st.binary(max_size=60) | st.text(st.sampled_from("a=[]{}\"'\n\\1.,#"), max_size=60).map(str.encode))
def test_any_bytes_are_toml_or_a_fault(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "operators").mkdir()
        (folder / "dispatcher.toml").write_bytes(content)
        (folder / "operators" / "op_a.toml").write_bytes(content)
        assert faults(folder)
