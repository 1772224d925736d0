"""Runs `check` and the verbs of `keys` on a configuration folder, without a database."""

import json
from pathlib import Path

import click
from click.testing import CliRunner, Result

from predictu_dispatch.commands.daemon import check
from predictu_dispatch.commands.keys.command import keys

GROUP = click.Group(commands=[check, keys])


def operator_file(dispatcher: Path, operator: str, more: str = "") -> Path:
    file = dispatcher.parent / "operators" / f"{operator}.toml"
    file.write_text(
        f'operator_id = "{operator}"\ncallback_url = "https://h/"\n[signing]\nkey_file = "own/{operator}.pem"\n{more}'
    )
    return file


def run(dispatcher: Path, *arguments: str) -> Result:
    """`retire` runs without the checks that need a database."""
    flags = ["--compromised"] if "retire" in arguments else []
    return CliRunner().invoke(GROUP, [*arguments, *flags, "--config", str(dispatcher)])


def one_line(text: str) -> str:
    return " ".join(text.split())


def roles(dispatcher: Path) -> dict[str, str]:
    """Role: key_id, as `keys public` lists them."""
    listed = json.loads(run(dispatcher, "keys", "public", "op_a", "--json").stdout)["keys"]
    return {key["role"]: key["key_id"] for key in listed}
