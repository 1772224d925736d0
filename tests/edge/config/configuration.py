"""A valid configuration on disk, and the faults of a changed one."""

import os
from pathlib import Path

import pytest

from predictu_dispatch.edge.config.files import ConfigError
from predictu_dispatch.edge.config.loader import Config, load_config

OPERATOR = """
operator_id = "op_a"
callback_url = "https://wallet.example.com/predictu"
[signing]
key_file = "keys/op_a.pem"
"""


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
