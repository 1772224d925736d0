"""Secrets that others can read or replace, and keys that two operators share, are refused."""

import os
import tempfile
from pathlib import Path

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.config.loader import reload_config
from predictu_dispatch.edge.config.secrecy import exposures
from predictu_dispatch.embedded_postgres.binaries import NOBODY
from tests.edge.config.configuration import CLIENT_TLS, OPERATOR, faults, issue_certificates, load

KEY = "operators/keys/op_a.pem"
DSN = "postgresql://dispatcher:secret@db.example.com/predictu?sslmode=require"


def add_operator(folder: Path, operator_id: str, key_file: str) -> None:
    text = OPERATOR.replace('"op_a"', f'"{operator_id}"').replace("keys/op_a.pem", key_file)
    (folder / "operators" / f"{operator_id}.toml").write_text(text)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o640, 0o620, 0o644, 0o666, 0o777])
def test_a_key_that_others_can_read_or_write_is_refused(folder: Path, mode: int) -> None:
    (folder / KEY).chmod(mode)
    [fault] = faults(folder)
    assert fault == (
        f'operators/op_a.toml: signing.key_file = "keys/op_a.pem": others can access {KEY} (mode {mode:04o});'
        f" run: chmod 600 {KEY}"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_key_is_accepted(folder: Path, mode: int) -> None:
    (folder / KEY).chmod(mode)
    load(folder)


@pytest.mark.parametrize("infix", [".next", ".previous"])
def test_the_staged_and_the_previous_key_are_secrets_too(folder: Path, infix: str) -> None:
    create_key_file(folder / f"operators/keys/op_a{infix}.pem", "EdDSA")
    (folder / f"operators/keys/op_a{infix}.pem").chmod(0o644)
    [fault] = faults(folder)
    assert f"chmod 600 operators/keys/op_a{infix}.pem" in fault


def test_a_dsn_file_and_a_client_key_that_others_can_read_are_refused(folder: Path) -> None:
    (folder / "dsn").write_text(DSN)
    (folder / "dsn").chmod(0o644)
    (folder / "dispatcher.toml").write_text('[database]\ndsn = "file:dsn"\n')
    issue_certificates(folder)
    (folder / "operators/client.key").chmod(0o640)
    (folder / "operators/op_a.toml").write_text(OPERATOR + CLIENT_TLS)
    dsn, key = faults(folder)
    assert dsn == ('dispatcher.toml: database.dsn = "file:dsn": others can access dsn (mode 0644); run: chmod 600 dsn')
    assert key.startswith('operators/op_a.toml: tls.client_key_file = "client.key": others can access operators/client')
    for file in ("dsn", "operators/client.key"):
        (folder / file).chmod(0o600)
    assert load(folder).dispatcher.database.dsn.get_secret_value() == DSN


@pytest.mark.parametrize("where", ["operators/keys", "operators", "."])
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_in_which_others_can_replace_the_key_is_refused(folder: Path, where: str, mode: int) -> None:
    (folder / where).chmod(mode)
    [fault] = faults(folder)
    assert "others can write to the folder" in fault
    assert f"(mode {mode:04o}); run: chmod go-w" in fault
    (folder / where).chmod(mode | 0o1000)
    load(folder)


def test_the_folder_of_a_linked_key_counts_too(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link can be replaced, and so can the file that it names."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / KEY).rename(elsewhere / "key.pem")
    (folder / KEY).symlink_to(elsewhere / "key.pem")
    load(folder)
    elsewhere.chmod(0o777)
    [fault] = faults(folder)
    assert str(elsewhere) in fault


def test_a_systemd_credential_is_accepted_as_systemd_gives_it(folder: Path, tmp_path: Path) -> None:
    """Its mode shows the mask of an ACL for the unit's user."""
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o750)
    (folder / KEY).rename(credentials / "keys_op_a.pem")
    (credentials / "keys_op_a.pem").chmod(0o440)
    load(folder, CREDENTIALS_DIRECTORY=str(credentials))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_key_of_root_may_be_readable_by_our_group_and_no_other_users_key_is_accepted() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        roots, others, ours = (Path(folder) / name for name in ("roots", "others", "ours"))
        for file, owner in ((roots, 0), (others, 1), (ours, NOBODY)):
            file.touch(mode=0o640)
            os.chown(file, owner, NOBODY)
        os.seteuid(NOBODY)
        try:
            found = exposures([roots, others, ours], {})
        finally:
            os.seteuid(0)
    assert found == [
        f"{others} belongs to another user; run: chown {NOBODY} {others}",
        f"others can access {ours} (mode 0640); run: chmod 600 {ours}",
    ]


def test_two_operators_with_one_key_are_refused_also_under_other_names(folder: Path) -> None:
    add_operator(folder, "op_b", "keys/op_b.pem")
    (folder / "operators/keys/op_b.pem").write_bytes((folder / KEY).read_bytes())
    (folder / "operators/keys/op_b.pem").chmod(0o600)
    kid = create_key_file(folder / "operators/keys/op_c.pem", "EdDSA").kid
    first, second = faults(folder)
    assert first.startswith('operators/op_a.toml: signing.key_file = "keys/op_a.pem": key ')
    assert first.endswith("each operator needs its own: set another key_file, then predictu-dispatch keys new op_a")
    assert "is also that of op_a; " in second
    add_operator(folder, "op_b", "keys/op_c.pem")
    assert load(folder).operators["op_b"].signing_key.kid == kid


def test_a_reload_keeps_what_runs_if_a_file_takes_another_operators_key_or_exposes_its_own(folder: Path) -> None:
    create_key_file(folder / "operators/keys/op_b.pem", "EdDSA")
    add_operator(folder, "op_b", "keys/op_b.pem")
    running = load(folder)
    add_operator(folder, "op_b", "keys/op_a.pem")
    add_operator(folder, "op_c", "keys/op_a.pem")
    reload = reload_config(running, {})
    assert reload.config.operators == running.operators
    assert reload.kept == ("op_b",)
    assert sorted(Path(fault.file).name for fault in reload.faults) == ["op_b.toml", "op_c.toml"]
    (folder / "operators/op_c.toml").unlink()
    add_operator(folder, "op_b", "keys/op_b.pem")
    (folder / KEY).chmod(0o644)
    reload = reload_config(running, {})
    assert (reload.config.operators, reload.kept) == (running.operators, ("op_a",))
