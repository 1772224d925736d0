"""A valid configuration on disk, and the faults of a changed one."""

import os
from datetime import datetime
from pathlib import Path

import pytest
import trustme

from predictu_dispatch.edge.config.files import ConfigError
from predictu_dispatch.edge.config.loader import Config, load_config

OPERATOR = """
operator_id = "op_a"
callback_url = "https://wallet.example.com/predictu"
[signing]
key_file = "keys/op_a.pem"
"""


CLIENT_TLS = "[tls]\nca_file = 'ca.pem'\nclient_cert_file = 'client.pem'\nclient_key_file = 'client.key'\n"


def issue_certificates(folder: Path, *, not_after: datetime | None = None) -> None:
    """Writes the files of CLIENT_TLS: a new authority and a client certificate of it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("dispatch.example.com", not_after=not_after)
    authority.cert_pem.write_to_path(folder / "operators" / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "operators" / "client.key")
    (folder / "operators" / "client.key").chmod(0o600)
    certificate.cert_chain_pems[0].write_to_path(folder / "operators" / "client.pem")


def load(folder: Path, **environ: str) -> Config:
    return load_config(folder / "dispatcher.toml", environ)


def faults(folder: Path, **environ: str) -> list[str]:
    """Returns the lines of all faults, without the folder's path."""
    with pytest.raises(ConfigError) as raised:
        load(folder, **environ)
    lines = [str(fault) for fault in raised.value.faults]
    assert str(raised.value) == "\n".join(lines)
    assert all(line.isprintable() for line in lines)
    return [line.replace(f"{folder}{os.sep}", "") for line in lines]
