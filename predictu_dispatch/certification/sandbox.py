"""The sandbox of an operator's file: its keys, and whether it is safe to test.

`check` and `certify` refuse one that is or may be a live operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from predictu_dispatch.certification.live_guard import Conflict, Live, Shared, conflicts
from predictu_dispatch.core.settings import shown
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.certify_keys import (
    SandboxKeys,
    read_certify_key,
    read_sandbox_keys,
    shared_certify_key,
)
from predictu_dispatch.edge.config.files import ConfigError, Fault
from predictu_dispatch.edge.config.loader import Config
from predictu_dispatch.edge.config.operator_file import OperatorConfig

_RUN: Final = "a run moves money, so it must never reach a live wallet"


def live_operators(config: Config) -> tuple[Live, ...]:
    """Return every configured operator, also a disabled one: its wallet is a live one."""
    return tuple(
        Live(
            operator_id=operator_id,
            callback_url=operator.settings.callback_url,
            kids=frozenset(key.kid for key in operator.published_keys),
        )
        for operator_id, operator in config.operators.items()
    )


def safe_sandbox_keys(operator: OperatorConfig, config: Config, environ: Mapping[str, str]) -> SandboxKeys:
    """Return the keys of a configured sandbox; raises ConfigError if it is not safe to test."""
    keys = read_sandbox_keys(operator, environ)
    sandbox = operator.settings.sandbox
    found = conflicts(sandbox.callback_url, [key.kid for key in keys.all], live_operators(config))
    if found:
        new = f"predictu-dispatch keys new {operator.settings.operator_id} --sandbox"
        values = {Shared.URL: sandbox.callback_url, Shared.KEY: sandbox.key_file}
        names = {Shared.URL: "sandbox.callback_url", Shared.KEY: "sandbox.key_file"}
        raise ConfigError(
            tuple(
                Fault(
                    file=str(operator.file),
                    key=names[one.shared],
                    value=shown(values[one.shared]),
                    allowed=conflict_text(one, new_key=f"set another file, then {new}"),
                )
                for one in found
            )
        )
    return keys


def conflict_text(conflict: Conflict, *, new_key: str) -> str:
    """Return why the sandbox is refused, and what to do."""
    match conflict.shared:
        case Shared.URL:
            return f"is the live callback_url of {conflict.operator_id}; give the URL of a test endpoint: {_RUN}"
        case Shared.KEY:
            return f"key {conflict.kid} is a live key of {conflict.operator_id}; {new_key}: {_RUN}"


def certify_key(config: Config, environ: Mapping[str, str]) -> SigningKey | None:
    """Return the key that signs certificates, or None; raises ConfigError if it signs more."""
    key = read_certify_key(config.dispatcher.certify, config.path, environ)
    users = {operator_id: operator.published_keys for operator_id, operator in config.operators.items()}
    if config.audit_keys is not None:
        users["the audit's logs"] = config.audit_keys.all
    for operator_id, operator in config.operators.items():
        if operator.settings.sandbox.key_file:
            # One that cannot be read is a fault of its own.
            with suppress(ConfigError):
                users[f"the sandbox of {operator_id}"] = read_sandbox_keys(operator, environ).all
    if key is not None and (shared := shared_certify_key(key, config.dispatcher.certify, users, config.path)):
        raise ConfigError(shared)
    return key


def certify_faults(config: Config, environ: Mapping[str, str]) -> tuple[Fault, ...]:
    """Return everything that is wrong with the sandboxes and the key that signs certificates."""
    faults: list[Fault] = []
    for operator in config.operators.values():
        if operator.settings.sandbox.callback_url:
            try:
                safe_sandbox_keys(operator, config, environ)
            except ConfigError as error:
                faults += error.faults
    try:
        certify_key(config, environ)
    except ConfigError as error:
        faults += error.faults
    return tuple(faults)
