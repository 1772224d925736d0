"""`keys`: creates, prints and rotates the keys that sign an operator's tokens."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from predictu_dispatch.commands.invocation import Invocation, common_options, fail
from predictu_dispatch.commands.output import print_json, print_line, print_lines, print_wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from predictu_dispatch.core.operator_settings import SigningAlgorithm, SigningSettings
    from predictu_dispatch.core.signing import SigningKey
    from predictu_dispatch.edge.config.keys import KeyRole
    from predictu_dispatch.edge.config.rotation import KeyRotation

ALGORITHMS: Final[tuple[SigningAlgorithm, ...]] = ("EdDSA", "RS256")
"""The values of SigningAlgorithm, because importing it slows `--help`; a test compares the two."""
_RELOAD: Final = (
    "Reload every daemon: systemctl reload 'predictu-dispatch@*', or SIGHUP. If keys are systemd credentials, as in"
    " deploy/, restart the daemons one by one"
)


@click.group()
def keys() -> None:
    """Create and rotate an operator's signing keys, and print the public keys."""


def _operator_id(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """Refuse everything but an operator id, because it becomes a file name."""
    import re  # noqa: PLC0415

    from predictu_dispatch.core.operator_settings import OPERATOR_ID_PATTERN  # noqa: PLC0415

    if not re.fullmatch(OPERATOR_ID_PATTERN, text) or text.endswith("\n"):
        raise click.BadParameter("an operator's id must be 1 to 64 characters of A-Z a-z 0-9 _ -")
    return text


_operator_argument = click.argument("operator", callback=_operator_id)


@keys.command()
@_operator_argument
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="Default: that of the operator's file, or EdDSA.")
@common_options
def new(invocation: Invocation, operator: str, algorithm: SigningAlgorithm | None) -> None:
    """Create OPERATOR's first key pair. Never overwrites a key."""
    from predictu_dispatch.edge.config.keys import create_key_file  # noqa: PLC0415

    file = _operator_file(invocation, operator)
    path = _default_key_file(file)
    if file.exists():
        signing = _signing_settings(invocation, file)
        if algorithm not in {None, signing.algorithm}:
            raise click.UsageError(
                f'{file} says algorithm = "{signing.algorithm}"; change it there, or omit --algorithm'
            )
        path, algorithm = file.parent / signing.key_file, signing.algorithm
    try:
        key = create_key_file(path, algorithm or "EdDSA")
    except FileExistsError:
        _refuse(
            invocation,
            f"{path} exists and is not changed; to print it: predictu-dispatch keys public {operator};"
            f" to create the next key: predictu-dispatch keys stage {operator}",
        )
    except OSError as error:
        _refuse(invocation, f"{path} cannot be written: {error.strerror}")
    if invocation.json:
        print_json({"private_key_file": str(path), "operator_id": operator, **_public(key)})
        return
    print_wrapped(f"The private {key.algorithm} key is in {path}, readable by its owner only.")
    if not file.exists():
        print_wrapped(
            f'Next: create {file} with [signing] algorithm = "{key.algorithm}", key_file = "keys/{path.name}"'
        )
    print_line("Give the public key to the operator, in the format that it prefers:")
    print_line()
    _print_public(key)


@keys.command(short_help="Print OPERATOR's public keys, as PEM and as JWK.")
@_operator_argument
@click.option("--format", "form", type=click.Choice(("pem", "jwk")), help="Print this format only.")
@common_options
def public(invocation: Invocation, operator: str, form: str | None) -> None:
    """Print OPERATOR's public keys as PEM and as JWK: active, staged, previous."""
    found = _keys(invocation, operator)
    if invocation.json:
        print_json({"operator_id": operator, "keys": _listed(found)})
        return
    for role, key in found.items():
        if form == "pem":
            print_lines(key.public_pem().decode())
        elif form == "jwk":
            print_line(json.dumps(key.public_jwk()))
        else:
            print_line(f"{role.value}  {key.algorithm}  {key.kid}")
            print_line()
            _print_public(key)


@keys.command(short_help="Create the next key.")
@_operator_argument
@common_options
def stage(invocation: Invocation, operator: str) -> None:
    """Create OPERATOR's next key. The next reload publishes it; it signs nothing yet."""
    from predictu_dispatch.core.signing import PUBLISHED_KEYS_AGE_MAX_S  # noqa: PLC0415

    rotation, _ = _rotation(invocation, operator)
    with _refusals(invocation):
        key = rotation.stage()
    _report(
        invocation,
        rotation,
        key,
        done=f"Staged: key {key.kid}. Nothing signs with it yet.",
        next_steps=(
            f"{_RELOAD}. Then /keys/{operator}.json has the staged key as well.",
            f"Let the operator fetch that file (caches may be {PUBLISHED_KEYS_AGE_MAX_S} s old), or send the key.",
            f"When the operator accepts the key: predictu-dispatch keys activate {operator}",
        ),
    )
    if not invocation.json:
        print_line()
        _print_public(key)


@keys.command(short_help="Sign with the staged key from the next reload on.")
@_operator_argument
@common_options
def activate(invocation: Invocation, operator: str) -> None:
    """Sign with OPERATOR's staged key from the next reload on. The previous key stays published."""
    rotation, signing = _rotation(invocation, operator)
    with _refusals(invocation):
        key, before = rotation.activate()
    _report(
        invocation,
        rotation,
        key,
        done=f"Active: key {key.kid}. The previous key {before.kid} is kept and still published.",
        next_steps=(
            f"{_RELOAD}. Then they sign with the new key.",
            f"Wait at least {signing.token_ttl_s} s (token_ttl_s): until then, tokens of the previous key are valid.",
            f"Then: predictu-dispatch keys retire {operator}",
        ),
    )


@keys.command(short_help="Remove the previous key.")
@_operator_argument
@common_options
def retire(invocation: Invocation, operator: str) -> None:
    """Remove OPERATOR's previous key. Its tokens must have expired."""
    rotation, _ = _rotation(invocation, operator)
    with _refusals(invocation):
        key = rotation.retire()
    _report(
        invocation,
        rotation,
        key,
        done=f"Retired: key {key.kid}. Its file is removed.",
        next_steps=(f"{_RELOAD}. Then /keys/{operator}.json no longer has it, and the operator may remove it.",),
    )


def _rotation(invocation: Invocation, operator: str) -> tuple[KeyRotation, SigningSettings]:
    from predictu_dispatch.edge.config.rotation import rotation_of  # noqa: PLC0415

    file = _operator_file(invocation, operator)
    signing = _signing_settings(invocation, file)
    with _refusals(invocation):
        return rotation_of(file, signing, os.environ), signing


@contextmanager
def _refusals(invocation: Invocation) -> Iterator[None]:
    from predictu_dispatch.edge.config.rotation import RotationRefusedError  # noqa: PLC0415

    try:
        yield
    except RotationRefusedError as refusal:
        _refuse(invocation, str(refusal))
    except OSError as error:
        _refuse(invocation, f"{error.filename2 or error.filename}: {error.strerror}")


def _refuse(invocation: Invocation, message: str) -> NoReturn:
    if invocation.json:
        print_json({"ok": False, "error": message})
    fail(message)


def _report(
    invocation: Invocation, rotation: KeyRotation, key: SigningKey, *, done: str, next_steps: Sequence[str]
) -> None:
    """Print what was done with `key`, which keys there are now, and the next steps."""
    from predictu_dispatch.edge.config.keys import read_keys  # noqa: PLC0415

    found, _ = read_keys(rotation.active_file, rotation.algorithm)
    if invocation.json:
        changed = {"operator_id": rotation.operator_id, "key_id": key.kid}
        print_json({"ok": True, **changed, "keys": _listed(found), "next": next_steps})
        return
    print_wrapped(done)
    print_line("Next:")
    for number, step in enumerate(next_steps, 1):
        print_wrapped(step, indent=f"  {number}. ")


def _keys(invocation: Invocation, operator: str) -> Mapping[KeyRole, SigningKey]:
    """The keys by role; exit 2 with every fault if one cannot be read."""
    from predictu_dispatch.edge.config.files import ConfigError, located  # noqa: PLC0415
    from predictu_dispatch.edge.config.keys import read_keys  # noqa: PLC0415
    from predictu_dispatch.edge.config.operator_file import read_operator  # noqa: PLC0415

    file = _operator_file(invocation, operator)
    path = _default_key_file(file)
    if file.exists() or not path.exists():
        try:
            signing = read_operator(file, os.environ).settings.signing
        except ConfigError as error:
            invocation.refuse(error)
        found, _ = read_keys(located(signing.key_file, file, os.environ), signing.algorithm)
        return found
    # Without the operator's file, the key itself tells its algorithm.
    faults = []
    for algorithm in ALGORITHMS:
        found, wrong = read_keys(path, algorithm)
        if not wrong:
            return found
        faults += [f"{role}: {error}" for role, error in wrong.items()]
    _refuse(invocation, f"{path}: {'; '.join(dict.fromkeys(faults))}")


def _signing_settings(invocation: Invocation, file: Path) -> SigningSettings:
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415
    from predictu_dispatch.edge.config.operator_file import read_operator_settings  # noqa: PLC0415

    try:
        return read_operator_settings(file).signing
    except ConfigError as error:
        invocation.refuse(error)


def _operator_file(invocation: Invocation, operator: str) -> Path:
    return invocation.config.parent / "operators" / f"{operator}.toml"


def _default_key_file(operator_file: Path) -> Path:
    return operator_file.parent / "keys" / f"{operator_file.stem}.pem"


def _listed(found: Mapping[KeyRole, SigningKey]) -> list[dict[str, object]]:
    return [{"role": role.value, **_public(key)} for role, key in found.items()]


def _public(key: SigningKey) -> dict[str, object]:
    return {
        "algorithm": key.algorithm,
        "key_id": key.kid,
        "public_pem": key.public_pem().decode(),
        "public_jwk": key.public_jwk(),
    }


def _print_public(key: SigningKey) -> None:
    print_lines(key.public_pem().decode())
    print_line()
    print_line(json.dumps(key.public_jwk()))
