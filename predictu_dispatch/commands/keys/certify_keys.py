"""The keys of `certify`: a sandbox's, and the one that signs certificates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from predictu_dispatch.commands.invocation import EXIT_MISCONFIGURED, Invocation
from predictu_dispatch.commands.keys.common import operator_file, print_public, public_half, refuse, refuse_missing
from predictu_dispatch.commands.output import print_json, print_line, print_wrapped

if TYPE_CHECKING:
    from predictu_dispatch.core.operator_settings import SigningAlgorithm
    from predictu_dispatch.core.signing import SigningKey

_DEFAULT_FILE: Final = "certify/certify.pem"
_PRINT: Final = "predictu-dispatch keys public --certify"


def create_certify_key(invocation: Invocation) -> None:
    """Create [certify] key_file, or certify/certify.pem beside dispatcher.toml if it is not set."""
    from predictu_dispatch.certification.certificate import vkey_of  # noqa: PLC0415 - loaded only where used

    name = invocation.dispatcher().certify.key_file
    path = invocation.config.parent / (name or _DEFAULT_FILE)
    key = _created(invocation, path, "EdDSA", to_print=_PRINT)
    vkey = vkey_of(key.ed25519_public_key)
    if invocation.json:
        print_json({"private_key_file": os.fspath(path), "key_id": key.kid, "vkey": vkey})
        return
    print_wrapped(f"The private key that signs certificates is in {path}, readable by its owner only.")
    if not name:
        print_wrapped(f'Next: in {invocation.config} set [certify] key_file = "{_DEFAULT_FILE}".')
    print_line("Give its vkey to everybody who verifies certificates:")
    print_line(f"    {vkey}")


def print_certify_key(invocation: Invocation) -> None:
    """Print the vkey of [certify] key_file."""
    from predictu_dispatch.certification.certificate import vkey_of  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.config.certify_keys import read_certify_key  # noqa: PLC0415
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415

    try:
        key = read_certify_key(invocation.dispatcher().certify, invocation.config, os.environ)
    except ConfigError as error:
        invocation.refuse(error)
    if key is None:
        refuse(invocation, f"{invocation.config} has no [certify] key_file", EXIT_MISCONFIGURED)
    vkey = vkey_of(key.ed25519_public_key)
    if invocation.json:
        print_json({"key_id": key.kid, "vkey": vkey})
    else:
        print_line(vkey)


def create_sandbox_key(invocation: Invocation, operator: str, algorithm: SigningAlgorithm | None) -> None:
    """Create [sandbox] key_file, or sandbox/OPERATOR.pem if it is not set."""
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.config.operator_file import read_operator_settings  # noqa: PLC0415

    file = operator_file(invocation, operator)
    refuse_missing(invocation, file)
    try:
        settings = read_operator_settings(file)
    except ConfigError as error:
        invocation.refuse(error)
    if algorithm not in {None, settings.signing.algorithm}:
        raise click.UsageError(
            f'{file} says algorithm = "{settings.signing.algorithm}", which its sandbox has too; omit --algorithm'
        )
    name = settings.sandbox.key_file or f"sandbox/{operator}.pem"
    path = file.parent / name
    key = _created(invocation, path, settings.signing.algorithm, to_print=f"openssl pkey -pubout -in {path}")
    if invocation.json:
        print_json({"private_key_file": os.fspath(path), "operator_id": operator, **public_half(key)})
        return
    print_wrapped(f"The private {key.algorithm} key of the sandbox is in {path}, readable by its owner only.")
    if not settings.sandbox.key_file:
        print_wrapped(f'Next: in {file} set [sandbox] callback_url, key_file = "{name}", players and currency.')
    print_line("Give the public key to the operator, for its test endpoint only:")
    print_line()
    print_public(key)


def _created(invocation: Invocation, path: Path, algorithm: SigningAlgorithm, *, to_print: str) -> SigningKey:
    from predictu_dispatch.edge.config.keys import create_key_file  # noqa: PLC0415 - loaded only where used

    try:
        return create_key_file(path, algorithm)
    except FileExistsError:
        refuse(invocation, f"{path} exists and is not changed; to print its public half: {to_print}")
    except OSError as error:
        refuse(invocation, f"{path} cannot be written: {error.strerror}")
