"""The fixture of the configuration tests."""

from pathlib import Path

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from tests.edge.config.configuration import OPERATOR


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid configuration: `dispatcher.toml`, `operators/op_a.toml` and its key."""
    (tmp_path / "operators").mkdir()
    (tmp_path / "dispatcher.toml").write_text("")
    (tmp_path / "operators" / "op_a.toml").write_text(OPERATOR)
    create_key_file(tmp_path / "operators" / "keys" / "op_a.pem", "EdDSA")
    return tmp_path
