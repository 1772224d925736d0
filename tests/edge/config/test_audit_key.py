"""The key of the audit's logs: read, rotated, and refused."""

import shutil
from pathlib import Path

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.config.loader import reload_config
from tests.edge.config.configuration import faults, load

_AUDIT = '[audit]\norigin = "audit.predictu.example"\nkey_file = "audit.pem"\n'


@pytest.fixture
def audited(folder: Path) -> Path:
    """A configuration that seals."""
    (folder / "dispatcher.toml").write_text(_AUDIT)
    create_key_file(folder / "audit.pem", "EdDSA")
    return folder


def test_without_an_origin_no_key_is_read(folder: Path) -> None:
    (folder / "dispatcher.toml").write_text('[audit]\nkey_file = "missing.pem"\n')
    assert load(folder).audit_keys is None


def test_while_there_is_a_previous_key_both_sign_and_the_new_one_is_first(audited: Path) -> None:
    staged = create_key_file(audited / "audit.next.pem", "EdDSA")
    keys = load(audited).audit_keys
    assert keys is not None
    assert (keys.seeds, keys.staged) == ((keys.active.ed25519_seed,), staged)
    (audited / "audit.pem").rename(audited / "audit.previous.pem")
    (audited / "audit.next.pem").rename(audited / "audit.pem")
    rotated = load(audited).audit_keys
    assert rotated is not None
    assert rotated.seeds == (staged.ed25519_seed, keys.active.ed25519_seed)


def test_a_reload_takes_a_rotated_key_and_keeps_the_running_one_if_it_is_bad(audited: Path) -> None:
    running = load(audited)
    (audited / "audit.pem").unlink()
    bad = reload_config(running, {})
    assert [fault.key for fault in bad.faults] == ["audit.key_file"]
    assert bad.config.audit_keys == running.audit_keys
    new = create_key_file(audited / "audit.pem", "EdDSA")
    reloaded = reload_config(running, {})
    assert not reloaded.faults
    assert reloaded.config.audit_keys is not None
    assert reloaded.config.audit_keys.active == new


def test_a_missing_key_names_the_command_that_makes_one(audited: Path) -> None:
    (audited / "audit.pem").unlink()
    [fault] = faults(audited)
    assert fault == (
        'dispatcher.toml: audit.key_file = "audit.pem": no such file or directory; to create one:'
        " predictu-dispatch keys new --audit"
    )


def test_a_key_of_another_kind_is_refused(audited: Path) -> None:
    (audited / "audit.pem").unlink()
    create_key_file(audited / "audit.pem", "RS256")
    (audited / "audit.next.pem").write_text("no key")
    (audited / "audit.next.pem").chmod(0o600)
    assert [fault.rpartition('"audit.pem": ')[2] for fault in faults(audited)] == [
        "must be an unencrypted Ed25519 key (PKCS#8 PEM)",
        "the staged key beside it, audit.next.pem: must be an unencrypted Ed25519 key (PKCS#8 PEM)",
    ]


@pytest.mark.parametrize("name", ["audit.pem", "audit.next.pem", "audit.previous.pem"])
def test_a_key_that_others_can_read_is_refused(audited: Path, name: str) -> None:
    if not (audited / name).exists():
        create_key_file(audited / name, "EdDSA")
    (audited / name).chmod(0o644)
    [fault] = faults(audited)
    assert f"chmod 600 {name}" in fault


def test_a_key_that_signs_tokens_is_refused(audited: Path) -> None:
    (audited / "audit.pem").unlink()
    shutil.copy(audited / "operators/keys/op_a.pem", audited / "audit.pem")
    [fault] = faults(audited)
    assert "is also a signing key of op_a; the audit needs a key of its own" in fault
