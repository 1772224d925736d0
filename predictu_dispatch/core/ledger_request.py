"""The request for an operator's ledger: a GET with a token of ours, for a period of time.

Certification and reconciliation send it. The reference operator's guide describes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.printable import printable
from predictu_dispatch.core.signing import SigningKey, unsigned_token

LEDGER_METHOD: Final = "LEDGER"
"""The `method` of the token. No callback has it."""
USER_AGENT: Final = "predictu-dispatch"
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})
_OUR_TOKENS: Final = "Their side must accept tokens with the method LEDGER, signed with our active key."
_MEANINGS: Final = {
    401: ("the operator refused our token (401)", _OUR_TOKENS),
    403: ("the operator forbids it (403)", _OUR_TOKENS),
    404: ("the operator has no ledger at this URL (404)", "Check the URL."),
    429: ("the operator asks to wait (429)", "Run it again later."),
}


def ledger_token(key: SigningKey, settings: OperatorSettings, *, jti: str, now_s: int) -> str:
    """Return the token, made at this Unix time; its digest is that of the empty body."""
    return key.signed(
        unsigned_token(
            key,
            operator_id=settings.operator_id,
            method=LEDGER_METHOD,
            jti=jti,
            body=b"",
            issued_at_s=now_s,
            ttl_s=settings.signing.token_ttl_s,
            audience=settings.signing.audience,
        )
    )


def ledger_headers(token: str, *, accept: str) -> dict[str, str]:
    """Return the request's headers without Host."""
    return {
        "Authorization": f"Bearer {token}",
        "Accept": accept,
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
    }


def ledger_url(url: str, *, since: datetime, until: datetime) -> str:
    """Return the URL of the ledger from `since` to before `until`."""
    period = urlencode({"from": _rfc3339(since), "until": _rfc3339(until)})
    return f"{url}{'&' if urlsplit(url).query else '?'}{period}"


def _rfc3339(at: datetime) -> str:
    return f"{at.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z"


class LedgerRefusal(NamedTuple):
    """Why there is no ledger, and what to do."""

    why: str
    todo: str = ""


def answer_refusal(status: int, headers: Mapping[str, str], *, url_key: str) -> LedgerRefusal | None:
    """Return why this answer cannot be a whole ledger; None if it may be one.

    `url_key` names the setting that has the URL.
    """
    if status in _REDIRECTS:
        to = urlsplit(headers.get("Location", "")).netloc
        return LedgerRefusal(
            f"the operator answered {status}, a redirect{f' to {printable(to)}' if to else ''}; none is followed",
            f"Set {url_key} to the URL that serves the ledger itself.",
        )
    if status != _OK:
        return LedgerRefusal(*_MEANINGS.get(status, (f"the operator answered {status}, not {_OK}", "")))
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _PAGES:
        return LedgerRefusal(f"the operator answered with a page ({kind}), not with a ledger", f"Check {url_key}.")
    if "Content-Length" not in headers and not _is_chunked(headers):
        return LedgerRefusal(
            "the answer has neither Content-Length nor chunks, so nothing shows that it is whole",
            "The operator's server must send one of them.",
        )
    return None


def _is_chunked(headers: Mapping[str, str]) -> bool:
    """Return whether chunks are the last coding; after another one, a cut body looks whole."""
    codings = ",".join(value for name, value in headers.items() if name.lower() == "transfer-encoding")
    return codings.rpartition(",")[2].strip().lower() == "chunked"


def is_page(beginning: bytes) -> bool:
    """Return whether a body that begins like this is HTML or XML, whatever its Content-Type."""
    return beginning.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"
