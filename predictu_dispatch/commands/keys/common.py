"""What the verbs of `keys` share: the operator argument, its files, and a key's public half."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final, NoReturn

import click

from predictu_dispatch.commands.invocation import (
    CONFIG_VARIABLE,
    EXIT_FAILED,
    EXIT_MISCONFIGURED,
    Invocation,
    fail,
)
from predictu_dispatch.commands.output import print_json, print_line, print_lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from predictu_dispatch.core.operator_settings import SigningAlgorithm, SigningSettings
    from predictu_dispatch.core.signing import SigningKey
    from predictu_dispatch.edge.config.keys import KeyRole

ALGORITHMS: Final[tuple[SigningAlgorithm, ...]] = ("EdDSA", "RS256")
"""The values of SigningAlgorithm, because importing it slows `--help`; a test compares the two."""


def _operator_id(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """Refuse everything but an operator id, because it becomes a file name."""
    if text is None:
        return None
    import re  # noqa: PLC0415

    from predictu_dispatch.core.operator_settings import OPERATOR_ID_PATTERN  # noqa: PLC0415

    if not re.fullmatch(OPERATOR_ID_PATTERN, text) or text.endswith("\n"):
        raise click.BadParameter("an operator's id must be 1 to 64 characters of A-Z a-z 0-9 _ -")
    return text


operator_argument = click.argument("operator", callback=_operator_id)
optional_operator_argument = click.argument("operator", callback=_operator_id, required=False)


def refuse(invocation: Invocation, message: str, code: int = EXIT_FAILED) -> NoReturn:
    """End the command with the message, with --json on stdout too."""
    if invocation.json:
        print_json({"ok": False, "error": message})
    fail(message, code)


def signing_settings(invocation: Invocation, file: Path) -> SigningSettings:
    """The operator's [signing]; exit 2 with every fault of its file."""
    refuse_missing(invocation, file)
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415
    from predictu_dispatch.edge.config.operator_file import read_operator_settings  # noqa: PLC0415

    try:
        return read_operator_settings(file).signing
    except ConfigError as error:
        invocation.refuse(error)


def refuse_missing(invocation: Invocation, file: Path, verbs: Mapping[str, str] | None = None) -> None:
    """End the command with exit 2 if the operator has no file; names the nearest one.

    `verbs` has words that may stand in the operator's place, and the commands that they are for.
    """
    if not invocation.config.exists():
        refuse(
            invocation,
            f"{invocation.config} does not exist; set --config or {CONFIG_VARIABLE} to its path",
            EXIT_MISCONFIGURED,
        )
    if os.path.lexists(file):
        return
    from difflib import get_close_matches  # noqa: PLC0415 - loaded only where used

    operators = [one.stem for one in file.parent.glob("*.toml")]
    words = dict.fromkeys(operators) | {word: f"`{command}`" for word, command in (verbs or {}).items()}
    near = dict.fromkeys(words[match] or match for match in get_close_matches(file.stem, words, n=3))
    suggestion = f"; did you mean {' or '.join(near)}?" if near else ""
    refuse(invocation, f"no operator {file.stem}: {file} does not exist{suggestion}", EXIT_MISCONFIGURED)


def operator_file(invocation: Invocation, operator: str) -> Path:
    """The path of the operator's file."""
    return invocation.config.parent / "operators" / f"{operator}.toml"


def default_key_file(operator_file: Path) -> Path:
    """The path of the key that `new` creates without an operator's file."""
    return operator_file.parent / "keys" / f"{operator_file.stem}.pem"


def listed(found: Mapping[KeyRole, SigningKey]) -> list[dict[str, object]]:
    """The keys for --json."""
    return [{"role": role.value, **public_half(key)} for role, key in found.items()]


def public_half(key: SigningKey) -> dict[str, object]:
    """What may be published of a key."""
    return {
        "algorithm": key.algorithm,
        "key_id": key.kid,
        "public_pem": key.public_pem().decode(),
        "public_jwk": key.public_jwk(),
    }


def print_public(key: SigningKey) -> None:
    """Print the public key as PEM and as JWK."""
    print_lines(key.public_pem().decode())
    print_line()
    print_line(json.dumps(key.public_jwk()))
