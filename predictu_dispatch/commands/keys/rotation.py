"""`keys stage`, `activate`, `revert` and `retire`: replace an operator's signing key under load."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED, EXIT_NO_DATABASE, Invocation, common_options
from predictu_dispatch.commands.keys.common import (
    listed,
    operator_argument,
    operator_file,
    print_public,
    refuse,
    signing_settings,
)
from predictu_dispatch.commands.output import print_error, print_json, print_line, print_wrapped, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from predictu_dispatch.core.operator_settings import SigningSettings
    from predictu_dispatch.core.signing import SigningKey
    from predictu_dispatch.edge.config.rotation import KeyRotation, Retirable

_RELOAD: Final = (
    "Reload every daemon: systemctl reload 'predictu-dispatch@*', or SIGHUP. If keys are systemd credentials, as in"
    " deploy/, restart the daemons one by one"
)


@click.command(short_help="Create the next key.")
@operator_argument
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
        print_public(key)


@click.command(short_help="Sign with the staged key from the next reload on.")
@operator_argument
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
            f"Does the operator accept it? predictu-dispatch ping {operator}",
            f"If not, to return to the previous key: predictu-dispatch keys revert {operator}",
            f"Wait at least {signing.token_ttl_s} s (token_ttl_s): until then, tokens of the previous key are valid.",
            f"Then: predictu-dispatch keys retire {operator}",
            f"If the previous key is compromised, do not wait: predictu-dispatch keys retire {operator} --compromised",
        ),
    )


@click.command(short_help="Undo an activate: the previous key is active again.")
@operator_argument
@common_options
def revert(invocation: Invocation, operator: str) -> None:
    """Undo an `activate` that is not retired yet, from the next reload on.

    OPERATOR's previous key is active again, and the key that was active is the staged one. Both
    stay published. Exits 1 if there is nothing to revert.
    """
    rotation, _ = _rotation(invocation, operator)
    with _refusals(invocation):
        key, reverted = rotation.revert()
    _report(
        invocation,
        rotation,
        key,
        done=f"Active: key {key.kid}. Key {reverted.kid} is staged again. Both are published.",
        next_steps=(
            f"{_RELOAD}. Then they sign with key {key.kid}.",
            f"Does the operator accept it? predictu-dispatch ping {operator}",
            f"To sign with key {reverted.kid} later: predictu-dispatch keys activate {operator}",
        ),
    )


@click.command(short_help="Remove the previous key.")
@operator_argument
@click.option(
    "--compromised",
    is_flag=True,
    help="Remove it at once, without asking the database. Requests under way with its tokens are refused and retried.",
)
@common_options
def retire(invocation: Invocation, operator: str, *, compromised: bool) -> None:
    """Remove OPERATOR's previous key, when nothing needs it any more.

    Refused, with the reason and the time, while a running daemon signs with it, while its tokens
    are valid (token_ttl_s), and until a PING that was signed with the active key was confirmed.
    The database knows all three, and records when the key was retired: the login needs
    predictu_operations. Without the database: exit 3.

    For a compromised active key: keys stage, keys activate, then keys retire --compromised.
    """
    rotation, signing = _rotation(invocation, operator)
    with _refusals(invocation):
        retirable = rotation.retirable()
    if not compromised:
        _check_retirement(invocation, operator, retirable, signing.token_ttl_s)
    _record_retirement(invocation, operator, retirable, is_urgent=compromised)
    with _refusals(invocation):
        key = rotation.retire(retirable)
    _report(
        invocation,
        rotation,
        key,
        done=f"Retired: key {key.kid}. Its file is removed.",
        next_steps=(
            f"{_RELOAD}. Then /keys/{operator}.json no longer has it.",
            "The operator must remove the key itself, at once: until then it accepts what the key signs."
            if compromised
            else "The operator may remove the key.",
        ),
    )


def _check_retirement(invocation: Invocation, operator: str, retirable: Retirable, token_ttl_s: int) -> None:
    """End the command unless the database shows that nothing needs the previous key any more."""
    import asyncio  # noqa: PLC0415 - loaded only where used

    from predictu_dispatch.commands.keys.retirement import obstacles_text, read_facts  # noqa: PLC0415
    from predictu_dispatch.core.key_retirement import refusals  # noqa: PLC0415

    at_once = f"If the key is compromised: predictu-dispatch keys retire {operator} --compromised"
    try:
        facts = asyncio.run(
            read_facts(
                invocation,
                operator,
                active_key_id=retirable.active.kid,
                previous_key_id=retirable.previous.kid,
                activated_s_ago=time.time() - retirable.activated_at_s,
                token_ttl_s=token_ttl_s,
            )
        )
    except SystemExit as exit_:
        if exit_.code == EXIT_NO_DATABASE:
            print_error("not retired: only the database knows which keys the daemons sign with", at_once)
        raise
    found = refusals(facts)
    if not found:
        return
    title, texts = f"key {retirable.previous.kid} is not retired:", obstacles_text(operator, facts, found)
    if invocation.json:
        reasons = [
            {"obstacle": one.obstacle.value, "instance": one.instance, "wait_s": one.wait_s, "message": text}
            for one, text in zip(found, texts, strict=True)
        ]
        print_json({"ok": False, "error": f"{title} {'; '.join(texts)}", "refusals": reasons})
    for paragraph in (title, *texts, at_once):
        for line in wrapped(paragraph, indent="  " if paragraph in texts else ""):
            print_line(line, err=True)
    sys.exit(EXIT_FAILED)


def _record_retirement(invocation: Invocation, operator: str, retirable: Retirable, *, is_urgent: bool) -> None:
    """Record that the previous key is retired. A failure ends the command unless it is urgent."""
    import asyncio  # noqa: PLC0415 - loaded only where used

    from predictu_dispatch.commands.keys.retirement import record_retirement  # noqa: PLC0415

    try:
        asyncio.run(record_retirement(invocation, operator, retirable.previous.kid))
    except SystemExit:
        if not is_urgent:
            raise
        print_error(
            f"signing_key does not say that key {retirable.previous.kid} is retired: the database did not record it",
            f"Later, as predictu_operations: select predictu_dispatch.retire_signing_key('{operator}',"
            f" '{retirable.previous.kid}')",
        )


def _rotation(invocation: Invocation, operator: str) -> tuple[KeyRotation, SigningSettings]:
    from predictu_dispatch.edge.config.rotation import rotation_of  # noqa: PLC0415

    file = operator_file(invocation, operator)
    signing = signing_settings(invocation, file)
    with _refusals(invocation):
        return rotation_of(file, signing, os.environ), signing


@contextmanager
def _refusals(invocation: Invocation) -> Iterator[None]:
    from predictu_dispatch.edge.config.rotation import RotationRefusedError  # noqa: PLC0415

    try:
        yield
    except RotationRefusedError as refusal:
        refuse(invocation, str(refusal))
    except OSError as error:
        refuse(invocation, f"{error.filename2 or error.filename}: {error.strerror}")


def _report(
    invocation: Invocation, rotation: KeyRotation, key: SigningKey, *, done: str, next_steps: Sequence[str]
) -> None:
    """Print what was done with `key`, which keys there are now, and the next steps."""
    from predictu_dispatch.edge.config.keys import read_keys  # noqa: PLC0415

    found, _ = read_keys(rotation.active_file, rotation.algorithm)
    if invocation.json:
        changed = {"operator_id": rotation.operator_id, "key_id": key.kid}
        print_json({"ok": True, **changed, "keys": listed(found), "next": next_steps})
        return
    print_wrapped(done)
    print_line("Next:")
    for number, step in enumerate(next_steps, 1):
        print_wrapped(step, indent=f"  {number}. ")
