"""`check` and `keys`: whether the configuration is right, and what an operator verifies our tokens with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, print_json

if TYPE_CHECKING:
    from predictu_dispatch.core.operator_settings import SigningAlgorithm
    from predictu_dispatch.core.signing import SigningKey

ALGORITHMS: Final[tuple[SigningAlgorithm, ...]] = ("EdDSA", "RS256")
"""As SigningAlgorithm, whose module draws pydantic in; said twice to keep `--help` quick. A test compares the two."""


@click.command()
@common_options
def check(invocation: Invocation) -> None:
    """Validate every file, key and certificate; exit 2 with every fault on a line of its own."""
    operators = invocation.load().operators
    rows = [
        (
            operator_id,
            "enabled" if operator.settings.enabled else "disabled",
            operator.settings.signing.algorithm,
            operator.signing_key.kid,
            operator.settings.callback_url,
        )
        for operator_id, operator in operators.items()
    ]
    if invocation.json:
        names = ("operator_id", "enabled", "algorithm", "key_id", "callback_url")
        listed = [dict(zip(names, (row[0], row[1] == "enabled", *row[2:]), strict=True)) for row in rows]
        print_json({"ok": True, "operators": listed, "faults": []})
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"{len(rows)} operator{'' if len(rows) == 1 else 's'}, no fault")


@click.group()
def keys() -> None:
    """Make an operator's signing key, and print what the operator verifies with."""


def _operator_id(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """An operator's id and nothing else: it becomes the name of a file, so a path in it would lead anywhere."""
    import re  # noqa: PLC0415

    from predictu_dispatch.core.operator_settings import OPERATOR_ID_PATTERN  # noqa: PLC0415

    if not re.fullmatch(OPERATOR_ID_PATTERN, text) or text.endswith("\n"):
        raise click.BadParameter("an operator's id is 1 to 64 of A-Z a-z 0-9 _ -")
    return text


@keys.command()
@click.argument("operator", callback=_operator_id)
@click.option(
    "--algorithm", type=click.Choice(ALGORITHMS), help="Default: the operator's file's, or EdDSA without one."
)
@common_options
def new(invocation: Invocation, operator: str, algorithm: SigningAlgorithm | None) -> None:
    """Make OPERATOR's key pair; never overwrites one."""
    from predictu_dispatch.edge.config import ConfigError, read_operator_settings  # noqa: PLC0415
    from predictu_dispatch.edge.keys import create_key_file  # noqa: PLC0415

    file = _operator_file(invocation, operator)
    path = _default_key_file(file)
    if file.exists():
        try:
            signing = read_operator_settings(file).signing
        except ConfigError as error:
            invocation.refuse(error)
        if algorithm not in {None, signing.algorithm}:
            raise click.UsageError(
                f'{file} says algorithm = "{signing.algorithm}"; change it there, or leave --algorithm'
            )
        path, algorithm = file.parent / signing.key_file, signing.algorithm
    try:
        key = create_key_file(path, algorithm or "EdDSA")
    except FileExistsError:
        click.echo(f"{path} exists and stays as it is; to print it: predictu-dispatch keys public {operator}", err=True)
        sys.exit(EXIT_FAILED)
    except OSError as error:
        click.echo(f"{path} cannot be written: {error.strerror}", err=True)
        sys.exit(EXIT_FAILED)
    if invocation.json:
        print_json({"private_key_file": str(path), **_public(operator, key)})
        return
    click.echo(f"The private {key.algorithm} key is in {path}, readable by its owner only. It stays there.")
    if not file.exists():
        click.echo(
            f'Still missing: {file}, with [signing] algorithm = "{key.algorithm}", key_file = "keys/{path.name}"'
        )
    click.echo("Hand the public key to the operator, in the form they prefer:\n")
    _print_public(key)


@keys.command()
@click.argument("operator", callback=_operator_id)
@click.option("--format", "form", type=click.Choice(("pem", "jwk")), help="Print this form only.")
@common_options
def public(invocation: Invocation, operator: str, form: str | None) -> None:
    """Print OPERATOR's public key, as PEM and as JWK."""
    key = _signing_key(invocation, operator)
    if form == "pem":
        click.echo(key.public_pem(), nl=False)
    elif form == "jwk":
        click.echo(json.dumps(key.public_jwk()))
    elif invocation.json:
        print_json(_public(operator, key))
    else:
        _print_public(key)


def _signing_key(invocation: Invocation, operator: str) -> SigningKey:
    from predictu_dispatch.core.signing import SigningKey  # noqa: PLC0415
    from predictu_dispatch.edge.config import ConfigError, read_operator  # noqa: PLC0415

    file = _operator_file(invocation, operator)
    path = _default_key_file(file)
    if file.exists() or not path.exists():
        try:
            return read_operator(file, os.environ).signing_key
        except ConfigError as error:
            invocation.refuse(error)
    # The key was made before the operator's file, which would say the algorithm; the key itself says it as well.
    faults = []
    for algorithm in ALGORITHMS:
        try:
            return SigningKey.from_pem(path.read_bytes(), algorithm)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    click.echo(f"{path}: {'; '.join(dict.fromkeys(faults))}", err=True)
    sys.exit(EXIT_FAILED)


def _operator_file(invocation: Invocation, operator: str) -> Path:
    return invocation.config.parent / "operators" / f"{operator}.toml"


def _default_key_file(operator_file: Path) -> Path:
    return operator_file.parent / "keys" / f"{operator_file.stem}.pem"


def _public(operator: str, key: SigningKey) -> dict[str, object]:
    return {
        "operator_id": operator,
        "algorithm": key.algorithm,
        "key_id": key.kid,
        "public_pem": key.public_pem().decode(),
        "public_jwk": key.public_jwk(),
    }


def _print_public(key: SigningKey) -> None:
    click.echo(key.public_pem())
    click.echo(json.dumps(key.public_jwk()))
