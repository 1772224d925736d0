"""The section `[audit]` of `dispatcher.toml`: the logs that make the audit provable."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from pydantic import Field, ValidationInfo, field_validator

from predictu_dispatch.core.section import Section


class WitnessSettings(Section):
    """A witness of the logs (c2sp.org/tlog-witness)."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="1 to 64 letters, digits, dots, hyphens and underscores, different for each witness",
    )
    vkey: str = Field(max_length=1000, description="the witness's public key for cosignature/v1, name+id+key")
    url: str = Field(
        max_length=2000,
        description="the URL to which /add-checkpoint is added, https:// unless its host is loopback",
    )
    # TOML gives a list, so the tuple is not strict; its items are.
    operators: tuple[str, ...] = Field(
        default=(),
        strict=False,
        max_length=10_000,
        description='the operators whose logs it cosigns, such as ["op_abc123"]; [] for all',
    )

    @field_validator("vkey")
    @classmethod
    def _is_a_cosigning_key(cls, vkey: str) -> str:
        from predictu_dispatch.core.merkle.note import Algorithm, NoteError, VerifierKey  # noqa: PLC0415 - loaded only where used

        try:
            algorithm = VerifierKey.parse(vkey).algorithm
        except NoteError as error:
            raise ValueError(f"{cls.model_fields['vkey'].description}: {error}") from None
        if algorithm is not Algorithm.COSIGNATURE_V1:
            raise ValueError(f"{cls.model_fields['vkey'].description}; this one is the key of a log")
        return vkey

    @field_validator("url")
    @classmethod
    def _is_a_safe_url(cls, url: str) -> str:
        match = _WITNESS_URL.match(url)
        if match is None or (match["scheme"] == "http" and not _is_loopback(match["host"])):
            raise ValueError(cls.model_fields["url"].description)
        return url


_WITNESS_URL: Final = re.compile(
    r"\A(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!$-;=@-Z_a-z~]*)?\Z"
)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class AuditSettings(Section):
    """The logs that make the audit provable. Without an origin nothing is sealed."""

    origin: str = Field(
        default="",
        # A log's name is the name of its key in notes, which has neither spaces nor a plus.
        pattern=r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$",
        max_length=200,
        description="a name without a scheme such as audit.predictu.example or predictu.example/audit,"
        ' of at most 200 characters, or "" to seal nothing',
    )
    key_file: str = Field(
        default="",
        max_length=4096,
        description="a file with an Ed25519 key, which origin needs; to create one: predictu-dispatch keys new --audit",
    )
    seal_s: float = Field(default=5.0, ge=0.1, le=60)

    @field_validator("key_file")
    @classmethod
    def _is_set_with_origin(cls, key_file: str, info: ValidationInfo) -> str:
        if info.data.get("origin") and not key_file:
            raise ValueError(cls.model_fields["key_file"].description)
        return key_file

    # TOML gives a list, so the tuple is not strict; its items are.
    witness: tuple[WitnessSettings, ...] = Field(
        default=(),
        strict=False,
        max_length=20,
        description="at most 20 tables [[audit.witness]], each with another name",
    )

    @field_validator("witness")
    @classmethod
    def _names_differ(cls, witnesses: tuple[WitnessSettings, ...]) -> tuple[WitnessSettings, ...]:
        if len({one.name for one in witnesses}) != len(witnesses):
            raise ValueError(cls.model_fields["witness"].description)
        return witnesses
