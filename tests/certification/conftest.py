"""Certificates of a sandbox, and a shorter wait for an answer that is not read."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from predictu_dispatch.certification import connections

CERTIFICATE_ENDS_AT = datetime(2035, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", not_after=CERTIFICATE_ENDS_AT.replace(tzinfo=None)).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


@pytest.fixture
def never_read_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "NEVER_READ_S", 0.1)
