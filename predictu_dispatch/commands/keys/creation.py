"""`keys new` and `keys public`: an operator's first key, and the public halves of all its keys."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from predictu_dispatch.commands.invocation import Invocation, common_options
from predictu_dispatch.commands.keys.audit_key import create_audit_key
from predictu_dispatch.commands.keys.certify_keys import create_certify_key, create_sandbox_key, print_certify_key
from predictu_dispatch.commands.keys.common import (
    ALGORITHMS,
    default_key_file,
    listed,
    operator_file,
    optional_operator_argument,
    print_public,
    public_half,
    refuse,
    refuse_missing,
    signing_settings,
)
from predictu_dispatch.commands.output import print_json, print_line, print_lines, print_wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predictu_dispatch.core.operator_settings import SigningAlgorithm
    from predictu_dispatch.core.signing import SigningKey
    from predictu_dispatch.edge.config.keys import KeyRole


@click.command()
@optional_operator_argument
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="Default: that of the operator's file, or EdDSA.")
@click.option("--sandbox", is_flag=True, help="Create the key of OPERATOR's [sandbox], for certify.")
@click.option("--audit", is_flag=True, help="Create the key that signs the audit's logs, instead of an operator's.")
@click.option("--certify", is_flag=True, help="Create the key that signs certificates, instead of an operator's.")
@common_options
def new(
    invocation: Invocation,
    operator: str | None,
    algorithm: SigningAlgorithm | None,
    *,
    sandbox: bool,
    audit: bool,
    certify: bool,
) -> None:
    """Create OPERATOR's first key pair, or with --audit that of the logs.

    Never overwrites a key.
    """
    if operator is None and sandbox:
        raise click.UsageError("--sandbox needs OPERATOR: the key is for its [sandbox]")
    if operator is None or audit or certify:
        if operator is not None or algorithm is not None or sandbox or audit == certify:
            raise click.UsageError(
                "give either OPERATOR, or --audit or --certify alone: one Ed25519 key signs all logs, another one all"
                " certificates"
            )
        create_audit_key(invocation) if audit else create_certify_key(invocation)
    elif sandbox:
        create_sandbox_key(invocation, operator, algorithm)
    else:
        _create(invocation, operator, algorithm)


def _create(invocation: Invocation, operator: str, algorithm: SigningAlgorithm | None) -> None:
    from predictu_dispatch.edge.config.keys import create_key_file  # noqa: PLC0415

    file = operator_file(invocation, operator)
    path = default_key_file(file)
    if not invocation.config.exists():
        # The key would be in a folder that no daemon reads.
        refuse_missing(invocation, file)
    if file.exists():
        signing = signing_settings(invocation, file)
        if algorithm not in {None, signing.algorithm}:
            raise click.UsageError(
                f'{file} says algorithm = "{signing.algorithm}"; change it there, or omit --algorithm'
            )
        path, algorithm = file.parent / signing.key_file, signing.algorithm
    try:
        key = create_key_file(path, algorithm or "EdDSA")
    except FileExistsError:
        refuse(
            invocation,
            f"{path} exists and is not changed; to print it: predictu-dispatch keys public {operator};"
            f" to create the next key: predictu-dispatch keys stage {operator}",
        )
    except OSError as error:
        refuse(invocation, f"{path} cannot be written: {error.strerror}")
    if invocation.json:
        print_json({"private_key_file": str(path), "operator_id": operator, **public_half(key)})
        return
    print_wrapped(f"The private {key.algorithm} key is in {path}, readable by its owner only.")
    if not file.exists():
        print_wrapped(
            f'Next: create {file} with [signing] algorithm = "{key.algorithm}", key_file = "keys/{path.name}"'
        )
    print_line("Give the public key to the operator, in the format that it prefers:")
    print_line()
    print_public(key)


@click.command(short_help="Print OPERATOR's public keys, as PEM and as JWK.")
@optional_operator_argument
@click.option("--format", "form", type=click.Choice(("pem", "jwk")), help="Print this format only.")
@click.option("--certify", is_flag=True, help="Print the vkey by which certificates are verified, instead.")
@common_options
def public(invocation: Invocation, operator: str | None, form: str | None, *, certify: bool) -> None:
    """Print OPERATOR's public keys as PEM and as JWK: active, staged, previous."""
    if certify and operator is None and form is None:
        print_certify_key(invocation)
        return
    if certify or operator is None:
        raise click.UsageError("give either OPERATOR, or --certify alone")
    found = _keys(invocation, operator)
    if invocation.json:
        print_json({"operator_id": operator, "keys": listed(found)})
        return
    for role, key in found.items():
        if form == "pem":
            print_lines(key.public_pem().decode())
        elif form == "jwk":
            print_line(json.dumps(key.public_jwk()))
        else:
            print_line(f"{role.value}  {key.algorithm}  {key.kid}")
            print_line()
            print_public(key)


def _keys(invocation: Invocation, operator: str) -> Mapping[KeyRole, SigningKey]:
    """The keys by role; exit 2 with every fault if one cannot be read."""
    from predictu_dispatch.edge.config.files import ConfigError, located  # noqa: PLC0415
    from predictu_dispatch.edge.config.keys import read_keys  # noqa: PLC0415
    from predictu_dispatch.edge.config.operator_file import read_operator  # noqa: PLC0415

    file = operator_file(invocation, operator)
    path = default_key_file(file)
    if file.exists() or not path.exists():
        refuse_missing(invocation, file)
        try:
            signing = read_operator(file, os.environ).settings.signing
        except ConfigError as error:
            invocation.refuse(error)
        found, _ = read_keys(located(signing.key_file, file, os.environ), signing.algorithm)
        return found
    # Without the operator's file, the key shows its algorithm.
    faults = []
    for algorithm in ALGORITHMS:
        found, wrong = read_keys(path, algorithm)
        if not wrong:
            return found
        faults += [f"{role}: {error}" for role, error in wrong.items()]
    return refuse(invocation, f"{path}: {'; '.join(dict.fromkeys(faults))}")
