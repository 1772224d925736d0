"""When certificates end and keys were made, read from the files that an operator's file names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from cryptography import x509
from prometheus_client.core import GaugeMetricFamily

from predictu_dispatch.edge.config.files import bytes_of, is_credential, located

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import Metric

    from predictu_dispatch.core.operator_settings import TlsSettings
    from predictu_dispatch.edge.config.loader import OperatorConfig

_CERTIFICATES: Final = {"ca": "ca_file", "client": "client_cert_file"}
"""What the metric's label calls a certificate, and the key of `[tls]` that names its file."""


def certificates_end(pem: bytes) -> float | None:
    """The Unix seconds at which the first of these certificates ends; None where there is none that can be read.

    In a chain each one is needed. Of several authorities it cannot be known which one the operator's chain hangs on.
    """
    try:
        return min(one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(pem))
    except ValueError:
        # OpenSSL, which has the last word on what may be used, is more lenient than this reader.
        return None


def certificate_ends(tls: TlsSettings, file: Path, environ: Mapping[str, str]) -> dict[str, float]:
    """When each certificate of `[tls]` ends, in Unix seconds, by what it is: `ca`, `client`. Raises nothing."""
    found: dict[str, float] = {}
    for certificate, key in _CERTIFICATES.items():
        if name := getattr(tls, key):
            try:
                end_s = certificates_end(bytes_of(located(name, file, environ)))
            except OSError:
                # It was there a moment ago, or it is a fault that is told where the file is loaded.
                continue
            if end_s is not None:
                found[certificate] = end_s
    return found


def key_made_at(key_file: str, file: Path, environ: Mapping[str, str]) -> float | None:
    """When the active key's file was written, in Unix seconds; rotation moves it without touching that.

    None for a credential of systemd, which is written anew at each start.
    """
    path = located(key_file, file, environ)
    try:
        return None if is_credential(path, environ) else path.stat().st_mtime
    except OSError:
        return None


class Expiry:
    """A collector for a Prometheus registry; it says what the configuration that runs was read with."""

    def __init__(self) -> None:
        self._operators: tuple[OperatorConfig, ...] = ()

    def take(self, operators: Iterable[OperatorConfig]) -> None:
        self._operators = tuple(operators)

    def collect(self) -> Iterable[Metric]:
        ends = GaugeMetricFamily(
            "predictu_dispatch_certificate_expires_timestamp_seconds",
            "When the first certificate in the operator's [tls] files ends, as Unix time: `client` is ours, by which "
            "the operator knows us; `ca` is the authority that we trust for it. Past it no callback gets through. "
            "As of the last start or reload.",
            labels=("operator", "certificate"),
        )
        made = GaugeMetricFamily(
            "predictu_dispatch_signing_key_created_timestamp_seconds",
            "When the file of the operator's active signing key was written, as Unix time; absent for a credential of "
            "systemd, whose file is new at each start.",
            labels=("operator",),
        )
        for operator in self._operators:
            operator_id = operator.settings.operator_id
            for certificate, end_s in operator.certificate_ends.items():
                ends.add_metric((operator_id, certificate), end_s)
            if operator.key_made_at is not None:
                made.add_metric((operator_id,), operator.key_made_at)
        yield ends
        yield made
