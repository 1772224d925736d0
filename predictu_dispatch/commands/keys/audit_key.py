"""`keys new --audit`: creates the key that signs the checkpoints of the audit's logs."""

from __future__ import annotations

import os
from typing import Final

from predictu_dispatch.commands.invocation import EXIT_MISCONFIGURED, Invocation
from predictu_dispatch.commands.keys.common import refuse
from predictu_dispatch.commands.output import print_json, print_line, print_wrapped

_DEFAULT_FILE: Final = "audit/audit.pem"


def create_audit_key(invocation: Invocation) -> None:
    """Create [audit] key_file, or audit/audit.pem beside dispatcher.toml if it is not set."""
    import tomllib  # noqa: PLC0415 - loaded only where used

    from predictu_dispatch.edge.config.keys import create_key_file  # noqa: PLC0415

    try:
        # Without the checks: a key_file that does not exist yet is no fault here.
        section = tomllib.loads(invocation.config.read_text(encoding="utf-8")).get("audit", {})
    except OSError as error:
        refuse(invocation, f"{invocation.config}: {error.strerror}", EXIT_MISCONFIGURED)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        refuse(invocation, f"{invocation.config}: {error}", EXIT_MISCONFIGURED)
    name = section.get("key_file") or _DEFAULT_FILE if isinstance(section, dict) else _DEFAULT_FILE
    if not isinstance(name, str):
        refuse(invocation, f"{invocation.config}: audit.key_file must be a path", EXIT_MISCONFIGURED)
    path = invocation.config.parent / name
    try:
        key = create_key_file(path, "EdDSA")
    except FileExistsError:
        refuse(invocation, f"{path} exists and is not changed; to print its public half: predictu-dispatch audit key")
    except OSError as error:
        refuse(invocation, f"{path} cannot be written: {error.strerror}")
    is_set = isinstance(section, dict) and section.get("key_file") and section.get("origin")
    if invocation.json:
        print_json({"private_key_file": os.fspath(path), "key_id": key.kid, "public_jwk": key.public_jwk()})
        return
    print_wrapped(f"The private key of the audit's logs is in {path}, readable by its owner only.")
    if not is_set:
        print_wrapped(f'Next: in {invocation.config} set [audit] origin = "audit.example.com" and key_file = "{name}".')
    print_line("Then restart every daemon. To print the public half for those who verify the logs:")
    print_line("    predictu-dispatch audit key")
