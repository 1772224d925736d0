"""The texts of the codes that the database stores: states, effects, verdicts, reasons, actions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from predictu_dispatch.commands.output import Row, duration, timestamp

CLOCK_DIFFERENCE_SHOWN_S: Final = 1.0
"""As the alert PredictuClockDiffers."""

STATES: Final = {
    "waiting": "waits until its bet's earlier callback is settled",
    "ready": "is due, or scheduled for a retry",
    "in_flight": "is being sent now",
    "delivered": "was confirmed by the operator",
    "rejected": "was rejected by the operator",
    "exhausted": "ended without a confirmation",
    "cancelled": "was cancelled and is not sent",
}
"""A callback's state; the sentence begins with "it"."""

BET_STATES: Final = {
    "placing": "its placement is not settled yet",
    "open": "its debit is confirmed; no terminal callback yet",
    "closing": "its terminal callback is not confirmed yet",
    "closed": "the operator confirmed the callback that ended it",
    "void": "no debit took place",
}

EFFECTS: Final = {
    "none": "the operator has not applied it",
    "unknown": "the operator may have applied it",
    "applied": "the operator has applied it",
}

VERDICTS: Final = {
    "delivered": "delivered",
    "rejected": "rejected",
    "retry": "no usable answer",
    "late": "late answer, changes nothing",
}

INTERVENTIONS: Final = {
    "retry": "retried",
    "cancel": "cancelled",
    "abandon": "abandoned",
    "resolve": "resolved",
    "pause": "paused",
    "resume": "resumed",
    "retire": "retired",
    "explain": "explained",
    "accept": "accepted",
}

_TLS_FAULT: Final = re.compile(r"\[SSL: \w+\] ([^(']+)")
_LINE_CHARS_MAX: Final = 120
"""Of an operator's answer; `show` prints more."""

REASONS: Final = {
    "bet_rejected": "the operator rejected the bet's placement",
    "bet_void": "the bet was never placed",
    "rolled_back": "a rollback of the bet was requested",
    "requested": "the trade failed, so the platform requested a rollback",
    "unknown_effect": "the placement ended with an unknown outcome",
    "withdrawn": "it was cancelled manually before any attempt",
    "abandoned": "its retries were stopped manually",
    "circuit_open": "not sent: the operator was down",
    "paused": "not sent: the operator was paused",
    "deadline": "its deadline passed",
    "max_attempts": "all attempts were used",
    "interrupted": "the daemon stopped before the answer arrived",
    "nothing_to_reverse": "the operator has no debit to reverse",
    "misconfigured": "the callback_url, our key at the operator, or its routing is wrong",
    "no_socket": "the daemon's host has no free file descriptor; raise LimitNOFILE",
    "address_refused": "the operator's host has an address that is not allowed; see allow_private_addresses",
    "connect_refused": "the operator's host refused the connection",
    "connect_timeout": "no connection within connect_timeout_s",
    "connect_failed": "the connection failed",
    "dns_failed": "the operator's host name could not be resolved",
    "tls_failed": "no trusted TLS connection",
    "timeout": "no complete answer within attempt_timeout_s",
    "reset": "the connection was reset before the answer was complete",
    "truncated": "the answer ended too early",
    "too_large": "the answer is larger than max_response_bytes",
    "too_late": "the lease or the deadline left too little time for the attempt",
    "unsolicited_data": "the operator sent bytes on an idle connection without a request",
    "bad_http": "the answer is not valid HTTP",
    "not_json": "the answer is not JSON",
    "not_utf8": "the answer is not UTF-8",
    "not_object": "the answer is JSON, but not an object",
    "duplicate_keys": "the answer has the same key twice",
    "no_status": "the answer has no status",
    "unknown_status": "unknown status: declare it under [statuses] in the operator's file",
    "operator_retry": "the operator reported a temporary condition",
    "internal_error": "an internal error of the daemon; see its log",
}

_MISCONFIGURED: Final = {
    401: "the operator refuses our token",
    403: "the operator refuses our token or our address",
    404: "the operator has nothing at callback_url",
    405: "callback_url does not accept POST",
    410: "the operator has removed callback_url",
}
"""What the reason `misconfigured` means with an HTTP code; every code from 300 to 399 redirects."""

_EXPLAINED_BY_ERROR: Final = frozenset(
    {"tls_failed", "dns_failed", "connect_failed", "address_refused", "bad_http", "internal_error"}
)
"""Reasons with several causes, which the attempt's error tells apart."""


def reason_text(code: str | None, operator_status: str | None = None, operator_id: str | None = None) -> str:
    """A reason code as text; a code that is not in the table stays as it is."""
    if code is None:
        return ""
    if code == "unknown_status" and operator_status is not None and operator_id is not None:
        return f'unknown status "{operator_status}": declare it under [statuses] in operators/{operator_id}.toml'
    if code == "operator_retry" and operator_status is not None:
        return f"the operator reported the temporary condition {operator_status}"
    if code.startswith("http_"):
        return f"the operator answered HTTP {code.removeprefix('http_')}"
    if operator_status is not None and code == operator_status.lower():
        return f"the operator answered {operator_status}"
    return REASONS.get(code, code)


def failure_text(
    reason: str | None, status: int | None, location: str | None, answer: str | None, error: str | None = None
) -> str:
    """A failed attempt in one line: its reason, the HTTP code, where it redirects, the answer.

    `error` is the attempt's, for example the fault of a certificate.
    """
    text = reason_text(reason) or "no usable answer"
    if reason == "misconfigured" and status is not None:
        text = _MISCONFIGURED.get(status, "the operator redirects" if 300 <= status < 400 else text)  # noqa: PLR2004 - the class of redirections
    parts = [text]
    if status is not None and reason != f"http_{status}":
        parts.append(f"HTTP {status}")
    if location:
        parts.append(f"Location: {first_line(location.encode())}")
    if answer:
        parts.append(f"answer: {answer}")
    elif error and reason in _EXPLAINED_BY_ERROR:
        parts.append(fault(error))
    return ", ".join(parts)


def fault(error: str) -> str:
    """What an attempt's error says, without the classes and the host that it names."""
    if of_tls := _TLS_FAULT.search(error):
        return of_tls[1].strip()
    in_brackets = error.rpartition(" [")[2].removesuffix("]") if error.endswith("]") else error
    return first_line(in_brackets.encode())


def repeated_answer(attempt: Row, audit: Sequence[Row]) -> str:
    """Which earlier attempt got the same answer, if an attempt's row has only its beginning."""
    digest = attempt["response_body_sha256"]
    whole = next(
        (
            one["response_body"]
            for one in audit
            if one["attempt"] == attempt["response_body_repeats"]
            and one["response_body"] is not None
            and hashlib.sha256(one["response_body"]).hexdigest() == digest
        ),
        None,
    )
    size = "" if whole is None else f"{len(whole):,} bytes, "
    kept = len(attempt["response_body"])
    return (
        f"the same answer as attempt {attempt['response_body_repeats']}, {size}SHA-256 {digest};"
        f" the first {kept:,} are kept"
    )


def first_line(answer: bytes | None) -> str:
    """The first line of an operator's answer for a screen, without our token; may be empty."""
    if not answer:
        return ""
    from predictu_dispatch.edge.telemetry.log import without_tokens  # noqa: PLC0415 - loaded only where used

    lines = answer.decode("utf-8", "replace").strip().splitlines()
    line = without_tokens(lines[0]).strip() if lines else ""
    return line if len(line) <= _LINE_CHARS_MAX else f"{line[:_LINE_CHARS_MAX]}…"


def state_text(state: str, reason: str | None, operator_status: str | None, operator_id: str) -> str:
    """A callback's state and its reason in one sentence."""
    because = reason_text(reason, operator_status, operator_id)
    return f"it {STATES[state]}" + (f" ({because})" if because else "")


def class_text(name: str) -> str:
    """The class of a difference as it is printed."""
    return name.replace("_", " ")


def difference_text(before: str | None) -> str:
    """The difference that an intervention is about; "" if it is about something else."""
    was = json.loads(before or "{}")
    return f"difference {was['item_id']} ({class_text(was['class'])})" if "item_id" in was else ""


def changes_text(before: str | None, after: str | None) -> str:
    """What an intervention changed, from its columns before and after; "" if nothing."""
    was, then = json.loads(before or "{}"), json.loads(after or "{}")
    changed = ((name, was.get(name), then.get(name)) for name in {**was, **then})
    return ", ".join(f"{name} {_value(name, old)} → {_value(name, new)}" for name, old, new in changed if old != new)


def _value(name: str, value: str | None) -> str:
    """A column of a row as text; a time as RFC 3339."""
    if value is None:
        return "none"
    return timestamp(datetime.fromisoformat(value)) if name.endswith(("_at", "_since")) else str(value)


def clock_text(ahead_s: float | None) -> str:
    """What `status` and `why` say of a host whose clock differs by more than a second; or ""."""
    if ahead_s is None or abs(ahead_s) < CLOCK_DIFFERENCE_SHOWN_S:
        return ""
    return f"the host's clock is {duration(abs(ahead_s))} {'behind' if ahead_s > 0 else 'ahead of'} the database's"
