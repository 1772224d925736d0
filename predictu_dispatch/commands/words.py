"""States, effects and reason codes in words, for people who do not know the code."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

STATES = {
    "waiting": "waits until its bet's earlier callback is settled",
    "ready": "is due, or will be tried again",
    "in_flight": "is being sent at this moment",
    "delivered": "was confirmed by the operator",
    "rejected": "was refused by the operator; it is not retried by itself",
    "exhausted": "was given up",
    "cancelled": "was taken back and is not sent",
}
BET_STATES = {
    "placing": "its placement is not settled yet",
    "open": "its debit is confirmed; it waits for the event to end",
    "closing": "its last callback is on its way",
    "closed": "its last callback was confirmed; nothing is left to do",
    "void": "no debit ever took place",
}
EFFECTS = {
    "none": "the operator has not applied it",
    "unknown": "the operator may or may not have applied it",
    "applied": "the operator has applied it",
}
REASONS = {
    "bet_rejected": "the operator refused the bet's placement",
    "bet_void": "the bet was never placed",
    "rolled_back": "the bet was rolled back",
    "requested": "the trade failed, so the platform asked for a rollback",
    "unknown_effect": "the placement's fate was unknown, so it is rolled back",
    "taken_back": "a person took it back before any attempt",
    "circuit_open": "the operator was not answering, so nobody was kept waiting for it",
    "paused": "the operator was paused, so nobody was kept waiting for it",
    "deadline": "its deadline passed",
    "max_attempts": "all attempts were made",
    "interrupted": "the daemon vanished or stopped before the answer came",
    "nothing_to_reverse": "the operator knows of no debit to reverse",
    "misconfigured": "the operator's address, our key there, or its routing is wrong",
    "no_socket": "the daemon's host has no file descriptor left for a connection; raise its limit (LimitNOFILE)",
    "address_refused": "the operator's host is at an address that nothing is sent to; see allow_private_addresses",
    "connect_refused": "the operator's host refused the connection",
    "connect_timeout": "no connection within connect_timeout_s",
    "connect_failed": "no connection could be made",
    "dns_failed": "the operator's host name could not be resolved",
    "tls_failed": "no trusted TLS connection could be made",
    "timeout": "no complete answer within attempt_timeout_s",
    "reset": "the connection broke off before the answer was complete",
    "truncated": "the answer ended too soon",
    "too_large": "the answer was longer than max_response_bytes",
    "too_late": "there was not enough time left to begin the attempt",
    "unsolicited_data": "the kept connection held bytes that the operator had sent unasked",
    "bad_http": "the answer was not valid HTTP",
    "not_json": "the answer was not JSON",
    "not_utf8": "the answer was not UTF-8 text",
    "not_object": "the answer was JSON, but not an object",
    "duplicate_keys": "the answer had the same key twice",
    "no_status": "the answer had no status",
    "unknown_status": "the answer's status is none that we know",
    "internal_error": "a fault of the daemon itself; its log says more",
}
INTERVENTIONS = {
    "retry": "sent again",
    "cancel": "taken back",
    "resolve": "taken off the review list, as settled by other means",
    "pause": "paused",
    "resume": "resumed",
}
VERDICTS = {
    "delivered": "delivered",
    "rejected": "refused",
    "retry": "no usable answer",
    "late": "too late, decides nothing",
}


def reason(code: str | None, operator_status: str | None = None) -> str:
    """A reason code in words; a code that is not in the table is shown as it is."""
    if code is None:
        return ""
    if code.startswith("http_"):
        return f"the operator answered HTTP {code.removeprefix('http_')}"
    if operator_status is not None and code == operator_status.lower():
        return f"the operator said {operator_status}"
    return REASONS.get(code, code)


def money(subunits: int | None, currency: str | None, minor_digits: int | None) -> str:
    """An amount as people write it; in subunits where the currency is not known."""
    if subunits is None:
        return "unknown"
    if minor_digits is None or currency is None:
        return f"{subunits} subunits"
    return f"{Decimal(subunits).scaleb(-minor_digits):,.{minor_digits}f} {currency}"


def moment(at: datetime | None) -> str:
    """A moment in UTC to the millisecond."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"


def span(seconds: float) -> str:
    """A span as people say it, in its largest sensible unit."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.1f} s"
