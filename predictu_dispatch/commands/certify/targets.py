"""The sandbox that `certify` plays against: of an operator's file, or of the options of --url."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from ssl import SSLContext, SSLError
from typing import Any, Final

from pydantic import ValidationError

from predictu_dispatch.certification.live_guard import conflicts
from predictu_dispatch.certification.sandbox import certify_key as certify_key_of
from predictu_dispatch.certification.sandbox import conflict_text, live_operators, safe_sandbox_keys
from predictu_dispatch.certification.target import Target, minor_digits
from predictu_dispatch.commands.certify.options import (
    DEFAULT_OPERATOR_ID,
    DEFAULT_REPORTS,
    RATE_MAX,
    REQUESTS_MAX,
    URL_ONLY,
    Options,
)
from predictu_dispatch.commands.invocation import EXIT_MISCONFIGURED, Invocation
from predictu_dispatch.commands.keys.common import refuse
from predictu_dispatch.core.callback_url import url_fault
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.settings import refusals, shown
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.certify_keys import SandboxKeys, read_given_keys
from predictu_dispatch.edge.config.files import ConfigError, Fault, system_message
from predictu_dispatch.edge.config.loader import Config
from predictu_dispatch.edge.tls import client_context

NOT_COMPARED: Final = "No configuration was read, so URL and key were compared with no live operator."
UNSIGNED: Final = "only a configured operator gets one, not a run with --url."
_OPTIONS: Final = {
    "callback_url": "--url",
    "sandbox.callback_url": "--url",
    "sandbox.players": "--player",
    "sandbox.currency": "--currency",
    "operator_id": "--operator-id",
    **{f"statuses.{name}": URL_ONLY[name] for name in ("success", "rejected", "nothing_to_reverse", "retry")},
}
"""The option that gives each key of an operator's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is played against, and how a person names it on the command line."""

    target: Target
    words: tuple[str, ...]
    """The command line without `--only` and `--clean`."""
    notes: tuple[str, ...]
    """For the head of the report."""
    certify_key: SigningKey | None = None
    why_no_certificate: str = ""

    def line(self, *more: str) -> str:
        """The command line that names the same sandbox."""
        return shlex.join(("predictu-dispatch", "certify", *self.words, *more))


def from_file(invocation: Invocation, operator: str, options: Options) -> Chosen:
    """The `[sandbox]` of an operator's file; ends the command if it is missing or not safe."""
    config = invocation.load()
    found = config.operators.get(operator)
    if found is None:
        near = get_close_matches(operator, list(config.operators), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        file = config.path.parent / "operators" / f"{operator}.toml"
        refuse(invocation, f"no operator {operator}: {file} does not exist{hint}", EXIT_MISCONFIGURED)
    sandbox = found.settings.sandbox
    if not sandbox.callback_url:
        refuse(
            invocation,
            f"{found.file} has no [sandbox]: set its callback_url, key_file and players; config/README.md says how",
            EXIT_MISCONFIGURED,
        )
    try:
        keys = safe_sandbox_keys(found, config, os.environ)
        certify_key = certify_key_of(config, os.environ)
    except ConfigError as error:
        invocation.refuse(error)
    _refuse_live_ledger(invocation, options, config)
    settings = found.settings.model_copy(update={"callback_url": sandbox.callback_url})
    target, notes = _target(invocation, settings, options, keys=keys, ssl_context=found.ssl_context)
    words = (operator, *_config_words(invocation), *_common_words(options))
    why = (
        ""
        if certify_key
        else "dispatcher.toml has no [certify] key_file; to create it: predictu-dispatch keys new --certify"
    )
    return Chosen(target=target, words=words, notes=notes, certify_key=certify_key, why_no_certificate=why)


def from_url(invocation: Invocation, options: Options) -> Chosen:
    """The sandbox of the options; ends the command if the configuration has it as a live one."""
    url, key_file = options["url"], options["key"]
    assert url is not None and key_file is not None  # noqa: S101, PT018 - refuse_contradictions checked it
    settings = _settings(invocation, url, options)
    try:
        keys = read_given_keys(key_file, settings.signing.algorithm if options["algorithm"] else None)
    except ConfigError as error:
        invocation.refuse(error)
    signing = settings.signing.model_copy(update={"algorithm": keys.active.algorithm})
    settings = settings.model_copy(update={"signing": signing})
    notes = (NOT_COMPARED,) if invocation.is_without_config else ()
    if not invocation.is_without_config:
        _refuse_live(invocation, url, keys, options)
    ssl_context = _ssl_context(invocation, options["ca_file"])
    target, more_notes = _target(invocation, settings, options, keys=keys, ssl_context=ssl_context, is_configured=False)
    words = ("--url", url, *_url_words(options), *_config_words(invocation), *_common_words(options))
    return Chosen(target=target, words=words, notes=(*notes, *more_notes), why_no_certificate=UNSIGNED)


def _target(
    invocation: Invocation,
    settings: OperatorSettings,
    options: Options,
    *,
    keys: SandboxKeys,
    ssl_context: SSLContext | None,
    is_configured: bool = True,
) -> tuple[Target, tuple[str, ...]]:
    """The target, and what the report should say about it."""
    currency, digits, notes = settings.sandbox.currency, options["digits"], []
    if digits is None and (digits := minor_digits(currency)) is None:
        if settings.amount_format == "decimal":
            refuse(invocation, f"the minor digits of {currency} are unknown; add --digits N", EXIT_MISCONFIGURED)
        digits = 2
        notes = [f"The minor digits of {currency} are unknown: it is shown with 2. --digits gives others."]
    ledger = options["ledger"] or ""
    fault = url_fault(
        ledger,
        allow_insecure_http=settings.allow_insecure_http,
        allow_private_addresses=settings.allow_private_addresses,
    )
    if ledger and fault:
        allowed = fault if is_configured else _with_options(fault)
        refuse(invocation, f"--ledger = {shown(ledger)}: must be {allowed}", EXIT_MISCONFIGURED)
    target = Target(
        settings=settings,
        key=keys.active,
        next_key=keys.staged,
        players=settings.sandbox.players[:2],
        currency=currency,
        digits=digits,
        ssl_context=ssl_context,
        ledger_url=ledger,
        requests_max=options["max_requests"],
        requests_per_s=options["max_rate"],
    )
    return target, tuple(notes)


def _settings(invocation: Invocation, url: str, options: Options) -> OperatorSettings:
    """The settings that an operator's file would give."""
    given: dict[str, Any] = {
        "operator_id": options["operator_id"] or DEFAULT_OPERATOR_ID,
        "callback_url": url,
        "amount_format": options["amount_format"] or "subunits",
        "allow_insecure_http": options["allow_insecure_http"],
        "allow_private_addresses": options["allow_private_addresses"],
        "signing": {"algorithm": options["algorithm"] or "EdDSA", "key_file": str(options["key"])},
        "statuses": {
            "success": list(options["success"]),
            "rejected": list(options["rejected"]),
            "nothing_to_reverse": list(options["nothing_to_reverse"]),
            "retry": list(options["retry"]),
        },
        "sandbox": {
            "callback_url": url,
            "key_file": str(options["key"]),
            "players": list(options["players"]),
            "currency": options["currency"] or "EUR",
        },
    }
    try:
        return OperatorSettings.model_validate(given)
    except ValidationError as error:
        faults = {
            (option, refusal.value): Fault(
                file="certify", key=option, value=refusal.value, allowed=_with_options(refusal.allowed)
            )
            for refusal in refusals(error, OperatorSettings, given)
            for option in [_OPTIONS.get(refusal.key.partition("[")[0], refusal.key)]
        }
        invocation.refuse(ConfigError(tuple(faults.values())))


def _with_options(allowed: str) -> str:
    """A message about a key as one about an option."""
    for name in ("allow_insecure_http", "allow_private_addresses"):
        allowed = allowed.replace(f"{name} = true", URL_ONLY[name])
    return allowed.replace(", and the file's name", "")


def _refuse_live(invocation: Invocation, url: str, keys: SandboxKeys, options: Options) -> None:
    """End the command if the configuration has this URL or key, or cannot be read."""
    config = invocation.load()
    _refuse_live_ledger(invocation, options, config)
    found = conflicts(url, [key.kid for key in keys.all], live_operators(config))
    if found:
        given = {"url": ("--url", url), "key": ("--key", str(keys.file))}
        invocation.refuse(
            ConfigError(
                tuple(
                    Fault(
                        file=str(invocation.config),
                        key=given[one.shared][0],
                        value=shown(given[one.shared][1]),
                        allowed=conflict_text(one, new_key="give another one"),
                    )
                    for one in found
                )
            )
        )


def _refuse_live_ledger(invocation: Invocation, options: Options, config: Config) -> None:
    """End the command if the ledger's URL is a live callback_url: a token goes there too."""
    for one in conflicts(ledger := options["ledger"] or "", [], live_operators(config) if ledger else ()):
        refuse(
            invocation,
            f"--ledger = {shown(ledger)}: {conflict_text(one, new_key='give another one')}",
            EXIT_MISCONFIGURED,
        )


def _ssl_context(invocation: Invocation, ca_file: Path | None) -> SSLContext | None:
    if ca_file is None:
        return None
    try:
        return client_context(ca_file)
    except SSLError:
        refuse(invocation, f"--ca-file {ca_file}: must be PEM certificates", EXIT_MISCONFIGURED)
    except OSError as error:
        refuse(
            invocation, f"--ca-file {ca_file}: {system_message(error)}; must be PEM certificates", EXIT_MISCONFIGURED
        )
    except ValueError:
        refuse(invocation, f"--ca-file {ca_file}: must be PEM certificates", EXIT_MISCONFIGURED)


def _url_words(options: Options) -> Iterator[str]:
    """The options of --url again, as somebody would type them."""
    for name, option in URL_ONLY.items():
        value = options[name]  # type: ignore[literal-required]
        if value is True:
            yield option
        else:
            for one in value if isinstance(value, tuple) else (value,) if value else ():
                yield from (option, str(one))


def _config_words(invocation: Invocation) -> tuple[str, ...]:
    return () if invocation.is_default_config else ("--config", str(invocation.config))


def _common_words(options: Options) -> Iterator[str]:
    for option, value, default in (
        ("--digits", options["digits"], None),
        ("--ledger", options["ledger"], None),
        ("--max-requests", options["max_requests"], REQUESTS_MAX),
        ("--max-rate", options["max_rate"], RATE_MAX),
        ("--reports", options["reports"], Path(DEFAULT_REPORTS)),
    ):
        if value != default:
            yield from (option, str(value))
