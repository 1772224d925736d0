"""The keys of an operator's file, with their defaults, their bounds and the rules between two keys.

A rule between two keys is a validator of the later field; `info.data` has the valid earlier fields,
so all faults are reported at once. This decides the order of some fields.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails

from predictu_dispatch.core.answer import BUILT_IN_STATUSES
from predictu_dispatch.core.callback_url import url_fault
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.reconcile_settings import ReconcileSettings
from predictu_dispatch.core.section import Section
from predictu_dispatch.core.settings import DAY_S, HOUR_S

SigningAlgorithm = Literal["EdDSA", "RS256"]
JtiSource = Literal["request_id", "attempt"]

OPERATOR_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
"""The id is also a file name, a metric label and part of a URL, and must be safe in all three."""


class SigningSettings(Section):
    """How a callback's token is signed."""

    algorithm: SigningAlgorithm = "EdDSA"
    key_file: str = Field(
        min_length=1,
        max_length=4096,
        description="a PKCS#8 PEM file relative to this file, or the name of a systemd credential",
    )
    jti: JtiSource = "request_id"
    token_ttl_s: int = Field(default=30, ge=1, le=3600)
    audience: str = Field(
        default="",
        # Without what JSON escapes.
        pattern=r"^[!#-\[\]-~]{0,200}$",
        description="up to 200 ASCII characters without spaces, quotes and backslashes, such as a URL,"
        ' or "" for tokens without `aud`',
    )


class LaneSettings(Section):
    """Timeouts, retries and slots of one lane; defaults: `INTERACTIVE` and `SETTLEMENT`."""

    attempt_timeout_s: float = Field(ge=0.05, le=300)
    deadline_s: float = Field(ge=0, le=31 * DAY_S)
    connect_timeout_s: float = Field(ge=0.01, le=300)
    max_attempts: int = Field(ge=1, le=10_000)
    max_delay_s: float = Field(ge=0, le=DAY_S)
    initial_delay_s: float = Field(ge=0, le=DAY_S)
    multiplier: float = Field(ge=1, le=100)
    jitter: float = Field(ge=0, lt=1)
    max_in_flight: int = Field(ge=1, le=10_000)

    @field_validator("deadline_s")
    @classmethod
    def _deadline_leaves_time_for_an_attempt(cls, deadline_s: float, info: ValidationInfo) -> float:
        attempt_timeout_s = info.data.get("attempt_timeout_s", 0.0)
        if 0 < deadline_s < attempt_timeout_s:
            raise ValueError(f"0 for no deadline, or at least attempt_timeout_s, which is {attempt_timeout_s:g}")
        return deadline_s

    @field_validator("connect_timeout_s", "initial_delay_s")
    @classmethod
    def _a_part_is_not_above_the_whole(cls, part_s: float, info: ValidationInfo) -> float:
        whole = {"connect_timeout_s": "attempt_timeout_s", "initial_delay_s": "max_delay_s"}[str(info.field_name)]
        if part_s > info.data.get(whole, part_s):
            raise ValueError(f"at most {whole}, which is {info.data[whole]:g}")
        return part_s


INTERACTIVE: Final = LaneSettings(
    deadline_s=15.0,
    attempt_timeout_s=5.0,
    connect_timeout_s=2.0,
    max_attempts=3,
    initial_delay_s=0.2,
    multiplier=2.0,
    max_delay_s=2.0,
    jitter=0.2,
    max_in_flight=32,
)
SETTLEMENT: Final = LaneSettings(
    deadline_s=0.0,
    attempt_timeout_s=10.0,
    connect_timeout_s=2.0,
    max_attempts=400,
    initial_delay_s=1.0,
    multiplier=2.0,
    max_delay_s=300.0,
    jitter=0.2,
    max_in_flight=16,
)


def _completed(defaults: LaneSettings, given: object) -> object:
    return {**defaults.model_dump(), **given} if isinstance(given, dict) else given


class RollbackSettings(Section):
    """How long a slow debit may still arrive after the operator had nothing to reverse."""

    recheck_s: float = Field(default=60.0, ge=0, le=DAY_S)


class LimitsSettings(Section):
    """Limits of one operator; the rate counts over the whole fleet."""

    max_requests_per_s: float = Field(default=0.0, ge=0, le=100_000)
    max_response_bytes: int = Field(default=65_536, ge=64, le=16 * 1024 * 1024)


class CircuitSettings(Section):
    """When the circuit opens, and for how long."""

    failure_threshold: int = Field(default=10, ge=1, le=10_000)
    open_s: float = Field(default=5.0, ge=0.05, le=HOUR_S)


class HealthSettings(Section):
    """How often an operator gets a PING; 0 is never."""

    ping_interval_s: float = Field(default=30.0, ge=0, le=DAY_S)


Status = Annotated[str, Field(min_length=1, max_length=100)]
# TOML gives a list, so the tuple is not strict; its items are.
StatusList = Annotated[
    tuple[Status, ...],
    Field(strict=False, max_length=100, description="a list of at most 100 statuses, each of 1 to 100 characters"),
]


class StatusesSettings(Section):
    """Statuses of an operator beyond PROTOCOL.md's; each has one meaning only."""

    success: StatusList = ()
    rejected: StatusList = ()
    nothing_to_reverse: StatusList = ()
    retry: StatusList = ()

    @field_validator("success", "rejected", "nothing_to_reverse", "retry")
    @classmethod
    def _one_status_has_one_meaning(cls, added: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        others = {other: built_in for other, built_in in BUILT_IN_STATUSES.items() if other != info.field_name}
        clashes = [f"{s!r} always means {other}" for other, built_in in others.items() for s in added if s in built_in]
        clashes += [f"{s!r} is in {other} too" for other in others for s in added if s in info.data.get(other, ())]
        if clashes:
            raise ValueError(f"statuses without another meaning: {', '.join(clashes)}")
        return added


class TlsSettings(Section):
    """A private CA and a client certificate; `""` for none."""

    ca_file: str = Field(default="", max_length=4096)
    client_cert_file: str = Field(default="", max_length=4096)
    client_key_file: str = Field(default="", max_length=4096)

    @field_validator("client_key_file")
    @classmethod
    def _certificate_and_key_come_together(cls, client_key_file: str, info: ValidationInfo) -> str:
        if "client_cert_file" in info.data and bool(client_key_file) != bool(info.data["client_cert_file"]):
            raise ValueError("set if client_cert_file is set, and only then")
        return client_key_file


PlayerId = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]


class SandboxSettings(Section):
    """The operator's test endpoint, for `certify`. No daemon uses it."""

    callback_url: str = Field(
        default="",
        max_length=2048,
        description='the https:// URL of the operator\'s test endpoint, of at most 2048 characters, or "" for none',
    )
    key_file: str = Field(
        default="",
        max_length=4096,
        description="a PKCS#8 PEM file relative to this file, another one than signing.key_file,"
        ' or "" if callback_url is ""',
    )
    # TOML gives a list, so the tuple is not strict; its items are.
    players: tuple[PlayerId, ...] = Field(
        default=(),
        strict=False,
        max_length=100,
        description="a list of different test players, each of 1 to 200 characters, at least one if callback_url is"
        " set; the first two are used",
    )
    currency: str = Field(
        default="EUR",
        pattern=r"^[0-9]*[A-Z][A-Z0-9]*$",
        min_length=3,
        max_length=10,
        description="the players' currency, 3 to 10 capital letters and digits, such as EUR",
    )

    @field_validator("key_file")
    @classmethod
    def _url_and_key_come_together(cls, key_file: str, info: ValidationInfo) -> str:
        if "callback_url" in info.data and bool(key_file) != bool(info.data["callback_url"]):
            raise ValueError(cls.model_fields["key_file"].description)
        return key_file

    @field_validator("players")
    @classmethod
    def _players_are_given_and_differ(cls, players: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(players)) != len(players) or (info.data.get("callback_url") and not players):
            raise ValueError(cls.model_fields["players"].description)
        return players


class OperatorSettings(Section):
    """Everything in an operator's file."""

    operator_id: str = Field(pattern=OPERATOR_ID_PATTERN, description="1 to 64 of A-Z a-z 0-9 _ -, and the file's name")
    enabled: bool = True
    amount_format: Literal["subunits", "decimal"] = "subunits"
    allow_insecure_http: bool = False
    allow_private_addresses: bool = False
    callback_url: str = Field(max_length=2048, description="an https:// URL of at most 2048 characters")
    signing: SigningSettings
    interactive: Annotated[LaneSettings, BeforeValidator(partial(_completed, INTERACTIVE))] = INTERACTIVE
    settlement: Annotated[LaneSettings, BeforeValidator(partial(_completed, SETTLEMENT))] = SETTLEMENT
    rollback: RollbackSettings = RollbackSettings()
    limits: LimitsSettings = LimitsSettings()
    circuit: CircuitSettings = CircuitSettings()
    health: HealthSettings = HealthSettings()
    statuses: StatusesSettings = StatusesSettings()
    tls: TlsSettings = TlsSettings()
    sandbox: SandboxSettings = SandboxSettings()
    reconcile: ReconcileSettings = ReconcileSettings()

    def lane(self, lane: Lane) -> LaneSettings:
        return self.interactive if lane is Lane.INTERACTIVE else self.settlement

    @model_validator(mode="before")
    @classmethod
    def _a_missing_signing_table_is_an_empty_one(cls, given: object) -> object:
        # The message then names signing.key_file, the one required key.
        return {"signing": {}, **given} if isinstance(given, dict) else given

    @field_validator("callback_url")
    @classmethod
    def _is_safe_to_post_to(cls, url: str, info: ValidationInfo) -> str:
        # If one of the two is not valid, its own fault is enough.
        allow_insecure_http = info.data.get("allow_insecure_http", True)
        allow_private_addresses = info.data.get("allow_private_addresses", True)
        if fault := url_fault(
            url, allow_insecure_http=allow_insecure_http, allow_private_addresses=allow_private_addresses
        ):
            raise ValueError(fault)
        return url

    @field_validator("sandbox")
    @classmethod
    def _is_safe_to_certify(cls, sandbox: SandboxSettings, info: ValidationInfo) -> SandboxSettings:
        _check_url("callback_url", sandbox.callback_url, info)
        return sandbox

    @field_validator("reconcile")
    @classmethod
    def _is_safe_to_pull_from(cls, reconcile: ReconcileSettings, info: ValidationInfo) -> ReconcileSettings:
        _check_url("url", reconcile.url, info)
        return reconcile


def _check_url(key: str, url: str, info: ValidationInfo) -> None:
    """Raise the error of an inner key, so that the message names it, if it is no safe URL."""
    fault = url_fault(
        url,
        allow_insecure_http=info.data.get("allow_insecure_http", True),
        allow_private_addresses=info.data.get("allow_private_addresses", True),
    )
    if url and fault:
        error = InitErrorDetails(type="value_error", loc=(key,), input=url, ctx={"error": ValueError(fault)})
        raise ValidationError.from_exception_data(OperatorSettings.__name__, [error])


def settings_fingerprint(settings: OperatorSettings) -> str:
    """Return the SHA-256, lower-case hex, of all settings that a daemon uses.

    Key files count by name, not by content. `sandbox` and `reconcile` do not count: no daemon uses
    them.
    """
    used = settings.model_dump(mode="json", exclude={"sandbox", "reconcile"})
    canonical = json.dumps(used, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
