"""One request in the page: a line that opens, with the exact bytes sent and received."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

from predictu_dispatch.certification.observation import Sent
from predictu_dispatch.certification.report.contents import Octets, Report, octets, rfc3339
from predictu_dispatch.certification.report.markup import Html, joined, lines, tag
from predictu_dispatch.certification.report.words import DELIVERIES, OUTCOMES, TOKENS
from predictu_dispatch.core.callback import Evidence

_HEADER_CHARS_MAX = 400


def request_details(report: Report, sent: Sent, since: datetime | None, *, is_shown: bool = False) -> Html:
    """Return the request. `since` is when its scenario began; `is_shown` opens it."""
    attributes = {"class_": "request shown", "open": ""} if is_shown else {"class_": "request"}
    return tag("details", tag("summary", *_line(report, sent, since)), *_parts(report, sent), **attributes)


def _line(report: Report, sent: Sent, since: datetime | None) -> Iterator[Html]:
    yield tag("span", sent.name, class_="name")
    what = [sent.method.value] if sent.amount is None else [sent.method.value, report.money(sent.amount)]
    yield tag("span", " ".join(what), class_="what")
    for flag in filter(None, (TOKENS[sent.token], DELIVERIES[sent.delivery])):
        yield tag("span", flag, class_="flag")
    yield tag("span", _answer_in_short(report, sent), class_=f"answer {sent.outcome.value}")
    if since is not None:
        yield tag("span", f"{(sent.started_at - since).total_seconds():+.2f} s", class_="at")


def _answer_in_short(report: Report, sent: Sent) -> str:
    exchange, judgement = sent.exchange, sent.judgement
    if exchange.status is None:
        why = f" ({exchange.reason})" if exchange.reason else ""
        return f"{OUTCOMES[sent.outcome]}{why}"
    parts = [f"{exchange.status} {judgement.operator_status or ''}".rstrip()]
    if judgement.balance is not None:
        parts.append(f"balance {report.money(judgement.balance)}")
    parts.append(f"{exchange.total_ms:.0f} ms")
    return " · ".join(parts)


def _parts(report: Report, sent: Sent) -> Iterator[Html]:
    yield tag("h5", f"Sent at {rfc3339(sent.started_at)}")
    yield _bytes(octets(sent.body))
    if sent.header:
        yield tag("p", "Token, decoded; its signature is not stored:", class_="label")
        yield tag("pre", lines("\n".join(json.dumps(dict(part)) for part in (sent.header, sent.claims))))
    else:
        yield tag("p", "Without a token.", class_="label")
    exchange = sent.exchange
    yield tag("h5", "Answered")
    if exchange.evidence is Evidence.ANSWERED:
        head = [f"HTTP {exchange.status}", *(_header(name, value) for name, value in exchange.headers)]
        yield tag("pre", lines("\n".join(line.replace("\n", "\\n") for line in head)))
        yield _bytes(octets(exchange.body))
        if exchange.truncated:
            yield tag("p", "The answer was longer: reading stopped at the limit, max_response_bytes.", class_="label")
    else:
        yield tag(
            "p", f"No complete answer: {exchange.error or exchange.reason or 'the connection was cut on purpose'}."
        )
    yield tag("p", _times(sent), class_="label")
    yield tag("p", *_judgement(report, sent), class_="label")


def _header(name: str, value: str) -> str:
    more = f"… ({len(value)} characters)" if len(value) > _HEADER_CHARS_MAX else ""
    return f"{name}: {value[:_HEADER_CHARS_MAX]}{more}"


def _bytes(shown: Octets) -> Html:
    if not shown.length:
        return tag("p", "An empty body.", class_="label")
    note = f"{shown.length:,} bytes, SHA-256 {shown.sha256}"
    if shown.is_shortened:
        note = f"The first 4,096 of {note}"
    if shown.text is None:
        note = f"{note}; in base64, because the bytes are not UTF-8"
    return joined(tag("pre", lines(shown.text or shown.base64 or "")), tag("p", note, class_="label hash"))


def _times(sent: Sent) -> str:
    exchange = sent.exchange
    parts = [f"ended after {exchange.total_ms:.1f} ms"]
    if exchange.first_byte_ms is not None:
        parts.insert(0, f"first byte after {exchange.first_byte_ms:.1f} ms")
    if sent.is_on_used_connection:
        parts.insert(0, "on a connection that was open before")
    elif exchange.connect_ms is not None:
        parts.insert(0, f"connected after {exchange.connect_ms:.1f} ms")
    if exchange.peer:
        parts.append(f"from {exchange.peer}")
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _judgement(report: Report, sent: Sent) -> Iterator[str]:
    judgement = sent.judgement
    yield "In production: "
    yield tag("b", judgement.verdict.value)
    if judgement.reason:
        yield f", reason {judgement.reason}"
    if judgement.effect is not None:
        yield f", effect {judgement.effect.value}"
    if judgement.operator_transaction_id:
        yield f", transaction {judgement.operator_transaction_id}"
    if judgement.balance is not None:
        yield f", balance {report.money(judgement.balance)}"
    yield f"; {judgement.anomaly}." if judgement.anomaly else "."
