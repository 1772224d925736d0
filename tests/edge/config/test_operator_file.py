"""When certificates expire and keys were created, as read from an operator's files."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from predictu_dispatch.edge.config.operator_file import first_expiry
from tests.edge.config.configuration import CLIENT_TLS, OPERATOR, issue_certificates, load

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


def test_certificates_and_the_key_have_their_times(folder: Path) -> None:
    operators = folder / "operators"
    (operators / "op_a.toml").write_text(OPERATOR + CLIENT_TLS)
    os.utime(operators / "keys" / "op_a.pem", (1_700_000_000, 1_700_000_000))
    issue_certificates(folder, not_after=datetime.now(UTC) + timedelta(days=40))
    operator = load(folder).operators["op_a"]
    assert operator.key_made_at == 1_700_000_000
    assert operator.certificate_ends == {
        "ca": first_expiry((operators / "ca.pem").read_bytes()),
        "client": pytest.approx(time.time() + 40 * 86_400, abs=SLACK_S),
    }


def test_a_key_from_systemd_has_no_creation_time(folder: Path) -> None:
    (folder / "operators" / "keys").rename(folder / "credentials")
    (folder / "credentials" / "op_a.pem").rename(folder / "credentials" / "keys_op_a.pem")
    operator = load(folder, CREDENTIALS_DIRECTORY=str(folder / "credentials")).operators["op_a"]
    assert operator.key_made_at is None
