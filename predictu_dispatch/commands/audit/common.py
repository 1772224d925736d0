"""What the verbs of `audit` share: the connection, the trusted keys, and logs by operator."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from predictu_dispatch.commands.invocation import (
    EXIT_MISCONFIGURED,
    Invocation,
    dsn_of,
    exit_on_database_errors,
    fail,
    unknown_operator,
)
from predictu_dispatch.commands.output import print_json

if TYPE_CHECKING:
    from predictu_dispatch.core.witness import Witness
    from predictu_dispatch.edge.postgres.audit_reader import AuditReader
    from predictu_dispatch.evidence.trusted_keys import TrustedKeys

EARLIER_KEYS_FILE: Final = "audit.vkeys"
NOTHING_SEALED: Final = (
    "there is no log yet: no daemon that has [audit] origin and key_file in dispatcher.toml has sealed anything"
)


def refuse(invocation: Invocation, message: str, code: int = 1) -> NoReturn:
    """End the command with the message, with --json on stdout too."""
    if invocation.json:
        print_json({"ok": False, "error": message})
    fail(message, code)


@asynccontextmanager
async def reader(invocation: Invocation) -> AsyncIterator[AuditReader]:
    """The open database; ends the command if it cannot be reached or has another schema."""
    from predictu_dispatch.edge.postgres.audit_reader import open_audit_reader  # noqa: PLC0415 - loaded only where used

    with exit_on_database_errors(invocation):
        async with open_audit_reader(dsn_of(invocation), application_name="predictu-dispatch audit") as opened:
            yield opened


async def logs_of(invocation: Invocation, opened: AuditReader, operator: str | None) -> Sequence[Any]:
    """The rows of audit_logs.sql that have a log; ends the command if there is none."""
    found = await opened.fetch("audit_logs", operator)
    logs = [row for row in found if row["origin"] is not None and row["size"] is not None]
    if operator is not None and not found:
        refuse(invocation, unknown_operator(operator))
    if not logs:
        position = await opened.position()
        missing = f"operator {operator} has no log yet" if operator and position else NOTHING_SEALED
        refuse(invocation, missing)
    return logs


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredKeys:
    """What dispatcher.toml says about the logs. `why_none` is set if no key could be read."""

    origin: str
    public_keys: Sequence[bytes]
    earlier: TrustedKeys
    """Those of the file audit.vkeys beside dispatcher.toml."""
    witnesses: Sequence[Witness]
    why_none: str

    def policy_of(self, origin: str, operator_id: str) -> str:
        """The policy of a log, with those of the witnesses that cosign it."""
        from predictu_dispatch.evidence.policy import policy_text  # noqa: PLC0415

        return policy_text(self.trusted().of_log(origin), [one for one in self.witnesses if one.knows(operator_id)])

    def trusted(self) -> TrustedKeys:
        from predictu_dispatch.evidence.trusted_keys import TrustedKeys  # noqa: PLC0415

        witnesses = tuple(each.key for each in self.witnesses)
        return TrustedKeys(public_keys=tuple(self.public_keys), witnesses=witnesses).with_more(self.earlier)


def configured_keys(invocation: Invocation) -> ConfiguredKeys:
    """Read [audit] of dispatcher.toml, and the public halves of its keys, the active one first.

    Keys that were replaced have no file any more, and the stored checkpoints of their time have
    only their signatures. So the file audit.vkeys beside dispatcher.toml counts too.
    """
    from predictu_dispatch.core.merkle.note import NoteError, VerifierKey  # noqa: PLC0415
    from predictu_dispatch.core.witness import Witness  # noqa: PLC0415
    from predictu_dispatch.edge.config.files import located  # noqa: PLC0415
    from predictu_dispatch.edge.config.keys import KeyRole, read_keys  # noqa: PLC0415

    settings = invocation.dispatcher(needs_file=False).audit
    witnesses = []
    for each in settings.witness:
        try:
            key, operators = VerifierKey.parse(each.vkey), frozenset(each.operators)
            witnesses.append(Witness(name=each.name, key=key, url=each.url, operators=operators))
        except NoteError as error:
            refuse(invocation, f"[[audit.witness]] {each.name}: {error}", EXIT_MISCONFIGURED)
    public_keys: list[bytes] = []
    why_none = "[audit] key_file is not set in dispatcher.toml"
    if settings.key_file:
        path = located(settings.key_file, invocation.config, os.environ)
        found, wrong = read_keys(path, "EdDSA")
        public_keys = [found[role].ed25519_public_key for role in KeyRole if role in found]
        why_none = f"{path}: {_why_unreadable(wrong[KeyRole.ACTIVE])}" if KeyRole.ACTIVE in wrong else ""
    return ConfiguredKeys(
        origin=settings.origin,
        public_keys=public_keys,
        earlier=_earlier_keys(invocation),
        witnesses=witnesses,
        why_none=why_none,
    )


def _earlier_keys(invocation: Invocation) -> TrustedKeys:
    from predictu_dispatch.core.merkle.note import NoteError  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.evidence.trusted_keys import TrustedKeys, read_given_keys  # noqa: PLC0415

    path = invocation.config.parent / EARLIER_KEYS_FILE
    try:
        # `audit key >audit.vkeys` reads the file when the shell has emptied it.
        return read_given_keys([str(path)]) if path.stat().st_size else TrustedKeys()
    except FileNotFoundError:
        return TrustedKeys()
    except NoteError as error:
        refuse(invocation, str(error), EXIT_MISCONFIGURED)
    except OSError as error:
        refuse(invocation, f"{path}: {error.strerror}", EXIT_MISCONFIGURED)


def _why_unreadable(error: OSError | ValueError) -> str:
    from predictu_dispatch.edge.config.files import system_message  # noqa: PLC0415 - loaded only where used

    if isinstance(error, OSError):
        return system_message(error)
    return "must be an unencrypted Ed25519 key (PKCS#8 PEM)"
