"""When certificates expire and keys were created, as read from an operator's files."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.config.loader import load_config
from predictu_dispatch.edge.config.operator_file import first_expiry

SLACK_S = 120.0


def issued(authority: trustme.CA, in_days: float) -> bytes:
    until_then = datetime.now(UTC) + timedelta(days=in_days)
    return authority.issue_cert("dispatch.example.com", not_after=until_then).cert_chain_pems[0].bytes()


def test_the_first_of_several_certificates_to_expire_counts() -> None:
    authority = trustme.CA()
    chain = issued(authority, 30) + issued(authority, 10) + issued(authority, 20)
    assert first_expiry(chain) == pytest.approx(time.time() + 10 * 86_400, abs=SLACK_S)


@pytest.mark.parametrize(
    "pem", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_broken_certificate_has_no_expiry(pem: bytes) -> None:
    assert first_expiry(pem) is None


def configured(folder: Path, *, tls: str = "") -> Path:
    """A configuration of one operator, with its key beside its file."""
    (folder / "operators").mkdir()
    (folder / "dispatcher.toml").write_text("")
    (folder / "operators" / "op_a.toml").write_text(
        f'operator_id = "op_a"\ncallback_url = "https://h/"\n[signing]\nkey_file = "op_a.pem"\n{tls}'
    )
    return folder / "dispatcher.toml"


def test_certificates_and_the_key_have_their_times(tmp_path: Path) -> None:
    path = configured(
        tmp_path, tls="[tls]\nca_file = 'ca.pem'\nclient_cert_file = 'client.pem'\nclient_key_file = 'client.key'\n"
    )
    operators = path.parent / "operators"
    create_key_file(operators / "op_a.pem", "EdDSA")
    os.utime(operators / "op_a.pem", (1_700_000_000, 1_700_000_000))
    authority = trustme.CA()
    ours = authority.issue_cert("dispatch.example.com", not_after=datetime.now(UTC) + timedelta(days=40))
    authority.cert_pem.write_to_path(operators / "ca.pem")
    ours.private_key_pem.write_to_path(operators / "client.key")
    ours.cert_chain_pems[0].write_to_path(operators / "client.pem")
    operator = load_config(path, {}).operators["op_a"]
    assert operator.key_made_at == 1_700_000_000
    assert operator.certificate_ends == {
        "ca": first_expiry(authority.cert_pem.bytes()),
        "client": pytest.approx(time.time() + 40 * 86_400, abs=SLACK_S),
    }


def test_a_key_from_systemd_has_no_creation_time(tmp_path: Path) -> None:
    path = configured(tmp_path)
    create_key_file(tmp_path / "credentials" / "op_a.pem", "EdDSA")
    operator = load_config(path, {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}).operators["op_a"]
    assert operator.key_made_at is None
