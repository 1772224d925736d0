"""Makes the TLS contexts that verify operators' certificates."""

from __future__ import annotations

import ssl
from pathlib import Path


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Trusts the authorities of `ca_file` only, or without it those of the system.

    Raises OSError and ValueError if the file has no certificates.
    """
    context = ssl.create_default_context(cafile=ca_file)
    # Python sets both since 3.13. A newer Python must not refuse an operator that an older one
    # reached, such as one whose authority's certificate has no key usage.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # Some OpenSSL builds, such as Debian 12's, allow TLS 1.0 by default.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
